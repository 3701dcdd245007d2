//! The end of a namespace: pods first, then everything else, then the namespace itself.
//!
//! Source: `pkg/controller/namespace/deletion/namespaced_resources_deleter.go`, with ordered deletion (1.33 and later).

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The finalizer in `spec` that is taken away when the namespace is empty.
pub const FINALIZER: &str = "kubernetes";
const PODS: &str = "pods";

/// The objects of one kind that are still in the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// `pods`, `statefulsets.apps`.
    pub resource: String,
    pub count: usize,
    /// Of these, the ones that were told to go.
    pub deleting: usize,
    /// Finalizers that they wait for, with how many do.
    pub finalizers: BTreeMap<String, usize>,
}

/// All that the decision about one namespace may look at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub namespace: Namespace,
    pub remaining: Vec<Remaining>,
    /// Kinds of which something could not be deleted, with the reason.
    pub failures: Vec<String>,
    pub now: Timestamp,
}

/// What to do, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Write the conditions.
    pub status: Option<Namespace>,
    /// Delete everything of these kinds.
    pub delete: Vec<String>,
    /// It is empty: take the finalizer away.
    pub finalize: Option<Namespace>,
}

/// Decides about one namespace.
#[must_use]
pub fn plan(snapshot: &Snapshot) -> Plan {
    let namespace = &snapshot.namespace;
    let ours = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()).any(|f| f == FINALIZER);
    if namespace.metadata.deletion_timestamp.is_none() || !ours {
        return Plan::default();
    }
    let there: Vec<&Remaining> = snapshot.remaining.iter().filter(|remaining| remaining.count > 0).collect();
    if there.is_empty() && snapshot.failures.is_empty() {
        let mut empty = namespace.clone();
        empty.spec.get_or_insert_default().finalizers.get_or_insert_default().retain(|f| f != FINALIZER);
        return Plan { finalize: Some(empty), ..Plan::default() };
    }
    // Whatever a pod needs to end well stays until it has.
    let pods = there.iter().any(|remaining| remaining.resource == PODS);
    let now = |remaining: &&&Remaining| !pods || remaining.resource == PODS;
    let told = |remaining: &&&Remaining| remaining.deleting >= remaining.count;
    let delete = there.iter().filter(now).filter(|r| !told(r)).map(|r| r.resource.clone()).collect();
    Plan { status: with_conditions(snapshot, &there), delete, finalize: None }
}

/// The namespace with its conditions; `None` when they say this already.
fn with_conditions(snapshot: &Snapshot, there: &[&Remaining]) -> Option<Namespace> {
    let mut wanted = vec![
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered".to_owned(),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
    ];
    wanted.push(if snapshot.failures.is_empty() {
        let text = "All content successfully deleted, may be waiting on finalization".to_owned();
        ("NamespaceDeletionContentFailure", false, "ContentDeleted", text)
    } else {
        let text = format!(
            "Failed to delete all resource types, {} remaining: {}",
            snapshot.failures.len(),
            snapshot.failures.join(", ")
        );
        ("NamespaceDeletionContentFailure", true, "ContentDeletionFailed", text)
    });
    let list: Vec<String> =
        there.iter().map(|r| format!("{} has {} resource instances", with_dot(&r.resource), r.count)).collect();
    wanted.push(if list.is_empty() {
        ("NamespaceContentRemaining", false, "ContentRemoved", "All content successfully removed".to_owned())
    } else {
        let text = format!("Some resources are remaining: {}", list.join(", "));
        ("NamespaceContentRemaining", true, "SomeResourcesRemain", text)
    });
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, count) in there.iter().flat_map(|r| &r.finalizers) {
        *finalizers.entry(name).or_default() += count;
    }
    let list: Vec<String> = finalizers.iter().map(|(name, n)| format!("{name} in {n} resource instances")).collect();
    wanted.push(if list.is_empty() {
        let text = "All content-preserving finalizers finished".to_owned();
        ("NamespaceFinalizersRemaining", false, "ContentHasNoFinalizers", text)
    } else {
        let text = format!("Some content in the namespace has finalizers remaining: {}", list.join(", "));
        ("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", text)
    });
    let mut namespace = snapshot.namespace.clone();
    let conditions = namespace.status.get_or_insert_default().conditions.get_or_insert_default();
    for (kind, status, reason, message) in wanted {
        set(conditions, kind, status, reason, message, snapshot.now);
    }
    (namespace.status != snapshot.namespace.status).then_some(namespace)
}

/// Upstream writes the core group as an empty word after the dot.
fn with_dot(resource: &str) -> String {
    if resource.contains('.') { resource.to_owned() } else { format!("{resource}.") }
}

fn set(
    conditions: &mut Vec<NamespaceCondition>,
    kind: &str,
    status: bool,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let status = if status { "True" } else { "False" };
    let fresh = NamespaceCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        None => conditions.push(fresh),
        Some(old) => {
            let since = if old.status == fresh.status {
                old.last_transition_time.clone()
            } else {
                fresh.last_transition_time.clone()
            };
            *old = NamespaceCondition { last_transition_time: since, ..fresh };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn ending() -> Namespace {
        serde_json::from_value(json!({
            "metadata": {"name": "obj", "deletionTimestamp": "2026-11-20T14:56:06Z"},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"},
        }))
        .expect("a namespace")
    }

    fn some(resource: &str, count: usize, deleting: usize) -> Remaining {
        Remaining { resource: resource.to_owned(), count, deleting, finalizers: BTreeMap::new() }
    }

    fn decide(remaining: &[Remaining]) -> Plan {
        plan(&Snapshot { namespace: ending(), remaining: remaining.to_vec(), ..Snapshot::default() })
    }

    #[test]
    fn pods_first_then_the_rest_then_itself() {
        let stories: &[(&[Remaining], &[&str], bool)] = &[
            (&[some("pods", 2, 0), some("configmaps", 1, 0)], &["pods"], false),
            (&[some("pods", 2, 2), some("configmaps", 1, 0)], &[], false),
            (
                &[some("pods", 0, 0), some("configmaps", 1, 0), some("statefulsets.apps", 1, 0)],
                &["configmaps", "statefulsets.apps"],
                false,
            ),
            (&[some("persistentvolumeclaims", 1, 1)], &[], false),
            (&[some("pods", 0, 0)], &[], true),
            (&[], &[], true),
        ];
        for (remaining, delete, finalize) in stories {
            let plan = decide(remaining);
            assert_eq!(
                (plan.delete.as_slice(), plan.finalize.is_some()),
                (&delete.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>()[..], *finalize)
            );
        }
        let finalized = decide(&[]).finalize.expect("final").spec.expect("a spec").finalizers;
        assert_eq!(finalized, Some(vec![]));
        let mut living = ending();
        living.metadata.deletion_timestamp = None;
        let snapshot = Snapshot { namespace: living, remaining: vec![some("pods", 1, 0)], ..Snapshot::default() };
        assert_eq!(plan(&snapshot), Plan::default());
    }

    /// From every small content, whatever goes first once it is told to: pods go before the rest, nothing is told twice, the
    /// namespace goes last, and it does go.
    #[test]
    fn every_small_content_goes_and_the_namespace_after_it() {
        const RESOURCES: [&str; 3] = ["pods", "configmaps", "statefulsets.apps"];
        const EACH_MAX: usize = 2;
        let of_one = || (0..=EACH_MAX).flat_map(|count| (0..=count).map(move |deleting| (count, deleting)));
        let starts = of_one().flat_map(|a| of_one().flat_map(move |b| of_one().map(move |c| [a, b, c])));
        for start in starts {
            let mut seen = BTreeSet::new();
            let mut open = vec![start];
            while let Some(content) = open.pop() {
                if !seen.insert(content) {
                    continue;
                }
                let remaining: Vec<Remaining> = RESOURCES
                    .iter()
                    .zip(content)
                    .map(|(name, (count, deleting))| some(name, count, deleting))
                    .collect();
                let plan = decide(&remaining);
                let empty = content.iter().all(|(count, _)| *count == 0);
                assert_eq!(plan.finalize.is_some(), empty, "{content:?}");
                let told = |at: usize| plan.delete.iter().any(|name| name == RESOURCES[at]);
                for (at, (count, deleting)) in content.into_iter().enumerate() {
                    assert!(!told(at) || deleting < count, "{content:?}: told twice");
                    assert!(!told(at) || at == 0 || content[0].0 == 0, "{content:?}: before the pods");
                }
                let mut next = content;
                (0..RESOURCES.len()).filter(|at| told(*at)).for_each(|at| next[at].1 = next[at].0);
                // Then any of those that are ending goes.
                let mut moves = (0..RESOURCES.len()).filter(|at| next[*at].1 > 0).peekable();
                assert!(empty || moves.peek().is_some(), "{content:?} stays for ever");
                open.extend(moves.map(|at| {
                    let mut then = next;
                    then[at] = (next[at].0 - 1, next[at].1 - 1);
                    then
                }));
            }
            assert!(seen.contains(&[(0, 0); 3]));
        }
    }

    #[test]
    fn conditions() {
        let mut claims = some("persistentvolumeclaims", 1, 1);
        claims.finalizers.insert("kubernetes.io/pvc-protection".to_owned(), 1);
        let snapshot =
            Snapshot { namespace: ending(), remaining: vec![some("pods", 2, 2), claims], ..Snapshot::default() };
        let written = plan(&snapshot).status.expect("conditions");
        let texts: Vec<String> = written
            .status
            .as_ref()
            .and_then(|s| s.conditions.as_ref())
            .expect("conditions")
            .iter()
            .map(|c| format!("{}={} {}", c.type_, c.status, c.message.as_deref().unwrap_or_default()))
            .collect();
        assert_eq!(
            texts[3],
            "NamespaceContentRemaining=True Some resources are remaining: pods. has 2 resource instances, persistentvolumeclaims. has 1 resource instances"
        );
        assert_eq!(
            texts[4],
            "NamespaceFinalizersRemaining=True Some content in the namespace has finalizers remaining: kubernetes.io/pvc-protection in 1 resource instances"
        );
        let again = Snapshot { namespace: written, ..snapshot };
        assert_eq!(plan(&again).status, None, "written once");
    }
}
