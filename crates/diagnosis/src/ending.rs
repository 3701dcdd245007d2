//! Pods on their way out, and those that ended.

use k8s_openapi::api::core::v1::Pod;

use crate::finding::Finding;
use crate::mend::{Owner, quoted};
use crate::pod::{lost_node, word};
use crate::snapshot::{Snapshot, name};

/// A pod that is being deleted: within its grace, or held by something.
pub(crate) fn state(snapshot: &Snapshot, pod: &Pod) -> Finding {
    let word = word(pod);
    let own = name(&pod.metadata);
    let until = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0).unwrap_or_default();
    let left = until.as_second() - snapshot.now.as_second();
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    let finding = Finding::new("Ending", &word, "it is ending").seen("metadata.deletionTimestamp", until.to_string());
    if let Some(lost) = lost_node(snapshot, pod) {
        return Finding {
            what: "it is ending, but nobody can say that it has: a pod of that name may still run".to_owned(),
            ..finding
        }
        .because(Some(lost));
    }
    if left >= 0 {
        let what =
            format!("it is ending, and has {left} s of its {grace} s left; its replacement comes when it is gone");
        return Finding { what, ..finding }.waiting();
    }
    let finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
    if !finalizers.is_empty() {
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        return Finding {
            rule: "Finalizers",
            what: format!("it has ended but is held by its finalizers for {}", snapshot.since(until)),
            ..finding
        }
        .seen("metadata.finalizers", finalizers.join(", "))
        .mended_by(
            "who put them there has to take them away; by hand, when nobody will",
            format!("{} patch pod {own} --type=merge -p {}", snapshot.kubectl(), quoted(patch)),
        );
    }
    let late = snapshot.since(until);
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    let finding = Finding {
        what: format!("it should have ended {late} ago; its node {node} has not said that it has"),
        ..finding
    };
    if -left < LATE_SECONDS {
        return finding.waiting();
    }
    finding
        .with(snapshot.event("Pod", &pod.metadata, "FailedKillPod"))
        .mended_by("see whether its node works", format!("kubectl describe node {node}"))
        .advice("forcing it away (--grace-period=0 --force) may let two pods of one identity run: only when its containers are known to be gone")
}

/// How long after the end of its grace a pod may take to be gone, in seconds.
const LATE_SECONDS: i64 = 15;

/// A pod that will never run again.
pub(crate) fn finished(snapshot: &Snapshot, pod: &Pod) -> Finding {
    let status = pod.status.clone().unwrap_or_default();
    let reason = status.reason.clone().unwrap_or_else(|| status.phase.clone().unwrap_or_default());
    let finding = Finding::new("Finished", word(pod), format!("it ended ({reason}) and will not run again"))
        .seen("status", format!("{} {}", status.phase.unwrap_or_default(), status.message.unwrap_or_default()))
        .with(snapshot.event("Pod", &pod.metadata, "Evicted"));
    let owner = Owner::of(snapshot, pod);
    if owner.word.starts_with("pod/") {
        return finding.mended_by(
            "delete it and create it anew",
            format!("{} delete pod {}", snapshot.kubectl(), name(&pod.metadata)),
        );
    }
    finding.advice(format!("{} makes it anew; when it ends so again and again, mend the reason", owner.word))
}
