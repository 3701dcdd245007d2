//! The report as text, in the form of the checker that it stands for, with findings after it.

use std::fmt::Write as _;

use super::diagnose::{Finding, claim_names};
use super::snapshot::{Snapshot, service_name};

pub(super) fn text(snapshot: &Snapshot, findings: &[Finding]) -> String {
    let mut out = String::new();
    let set = &snapshot.set;
    let wanted = set.spec.replicas.unwrap_or(1);
    let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let _ = writeln!(out, "--- StatefulSet: {} ---", set.metadata.name.as_deref().unwrap_or_default());
    let _ = writeln!(out, "  - Replicas: {ready}/{wanted}");
    let _ = writeln!(out, "  - ServiceName: {}", service_name(set).unwrap_or_default());
    let _ = writeln!(out, "\n--- Managed Pods and PVCs ---");
    for pod in snapshot.pods.values() {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or_default();
        let _ = writeln!(out, "  - Pod: {} (IP: {address})", pod.metadata.name.as_deref().unwrap_or_default());
        for claim in claim_names(pod) {
            let _ = writeln!(out, "    - PVC: {claim}");
        }
    }
    if !findings.is_empty() {
        let _ = writeln!(out, "\n--- Findings ---");
    }
    for finding in findings {
        let _ = writeln!(out, "  - {}: {}", finding.object, finding.what);
        for line in &finding.evidence {
            let _ = writeln!(out, "      evidence: {line}");
        }
        let _ = writeln!(out, "      mend: {}", finding.mend);
    }
    out
}
