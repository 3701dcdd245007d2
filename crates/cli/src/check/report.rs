//! The report as text, in the form of the checker that it stands for, with findings after it.

use std::fmt::Write as _;

use k8s_openapi::api::apps::v1::StatefulSet;
use stead_diagnosis::{Report, Severity, Snapshot, claim_names, text as findings};
use stead_workloads::statefulset::identity;

pub(super) fn text(set: &StatefulSet, snapshot: &Snapshot, report: &Report) -> String {
    let mut out = String::new();
    let wanted = set.spec.replicas.unwrap_or(1);
    let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let _ = writeln!(out, "--- StatefulSet: {} ---", set.metadata.name.as_deref().unwrap_or_default());
    let _ = writeln!(out, "  - Replicas: {ready}/{wanted}");
    let _ = writeln!(out, "  - ServiceName: {}", set.spec.service_name.as_deref().unwrap_or_default());
    let _ = writeln!(out, "\n--- Managed Pods and PVCs ---");
    let mut pods: Vec<_> =
        snapshot.pods.values().filter_map(|pod| Some((identity::ordinal_of(set, pod)?, pod))).collect();
    pods.sort_by_key(|(ordinal, _)| *ordinal);
    for (_, pod) in pods {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or_default();
        let _ = writeln!(out, "  - Pod: {} (IP: {address})", pod.metadata.name.as_deref().unwrap_or_default());
        for claim in claim_names(pod) {
            let _ = writeln!(out, "    - PVC: {claim}");
        }
    }
    // Notes are for those who ask: the checker tells what is wrong.
    let wrong: Vec<_> = report.findings.iter().filter(|finding| finding.severity > Severity::Note).collect();
    if !wrong.is_empty() {
        let _ = writeln!(out, "\n--- Findings ---");
    }
    for finding in wrong {
        findings::tree(&mut out, finding, 1);
    }
    if !snapshot.unread.is_empty() && report.worst().is_some() {
        let _ = write!(out, "\n{}", findings::unread(&snapshot.unread));
    }
    out
}
