//! Which revision of its template a StatefulSet is rolling out, and which it comes from.
//!
//! Source: `pkg/controller/statefulset/stateful_set_control.go`, `getStatefulSetRevisions` and `truncateHistory`.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::Pod;

use super::identity::{revision_label, revision_of, set_ref};
use crate::history::{self, Draft, HASH_LABEL, Update};

/// `spec.revisionHistoryLimit` when it is not set.
const HISTORY_DEFAULT: i32 = 10;

/// What has to be done so that the revision to roll out exists, and what it is called.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub update: Update,
    /// Name of the revision of pods that are not updated yet. Equal to that of `update` when no roll-out is under way.
    pub current: String,
}

/// Decides on the revisions of `set`. `revisions`: those that it controls, in any order.
#[must_use]
pub fn decide(set: &StatefulSet, revisions: &[Arc<ControllerRevision>], collisions: i32) -> Decision {
    let reference = set_ref(set);
    let labels = set.spec.template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    let draft = Draft {
        owner: &set.metadata,
        reference: &reference,
        labels,
        hash_label: HASH_LABEL,
        template: &set.spec.template,
        collisions,
    };
    let update = history::decide(&draft, revisions);
    let recorded = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
    let exists = |name: &&str| revisions.iter().any(|revision| history::name_of(revision) == *name);
    let current = recorded.filter(exists).unwrap_or_else(|| update.name()).to_owned();
    Decision { update, current }
}

/// The revisions beyond `spec.revisionHistoryLimit` that nothing uses any more, oldest first. A negative limit keeps all.
#[must_use]
pub fn superfluous(
    set: &StatefulSet,
    revisions: &[Arc<ControllerRevision>],
    pods: &[Arc<Pod>],
    decision: &Decision,
) -> Vec<String> {
    let limit = set.spec.revision_history_limit.unwrap_or(HISTORY_DEFAULT);
    let of_pods = LazyCell::new(|| pods.iter().filter_map(|pod| revision_of(pod)).collect::<HashSet<&str>>());
    history::superfluous(limit, revisions, |revision| {
        let name = history::name_of(revision);
        [decision.current.as_str(), decision.update.name()].contains(&name) || of_pods.contains(&*revision_label(name))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::template;

    fn set(image: &str, current: Option<&str>, limit: i32) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "set", "annotations": {"why": "because"}},
            "spec": {
                "selector": {}, "revisionHistoryLimit": limit,
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": image}]},
                },
            },
            "status": {"replicas": 0, "currentRevision": current},
        }))
        .expect("a set")
    }

    fn made(image: &str, number: i64) -> Arc<ControllerRevision> {
        let Update::Create(mut revision) = decide(&set(image, None, 10), &[], 0).update else { panic!("no history") };
        revision.revision = Some(number);
        Arc::new(*revision)
    }

    fn named(revision: &ControllerRevision) -> &str {
        revision.metadata.name.as_deref().expect("a name")
    }

    #[test]
    fn a_new_template_makes_a_new_revision_with_the_next_number() {
        let one = made("one", 4);
        let decision = decide(&set("two", Some(named(&one)), 10), std::slice::from_ref(&one), 0);
        let Update::Create(two) = &decision.update else { panic!("{decision:?}") };
        assert_eq!((two.revision, decision.current.as_str()), (Some(5), named(&one)));
        let meta = &two.metadata;
        assert_eq!(meta.annotations.as_ref().expect("copied")["why"], "because");
        let labels = meta.labels.as_ref().expect("labels");
        assert_eq!((labels["app"].as_str(), format!("web-{}", labels[HASH_LABEL])), ("web", named(two).into()));
        assert_eq!(template(two), Some(set("two", None, 10).spec.template));
    }

    #[test]
    fn the_same_template_makes_no_new_revision() {
        let one = made("one", 1);
        let decision = decide(&set("one", None, 10), std::slice::from_ref(&one), 0);
        assert_eq!(decision.update, Update::Newest(named(&one).into()));
        assert_eq!(decision.current, named(&one), "a set without a status comes from where it goes");
    }

    #[test]
    fn rolling_back_gives_the_old_revision_the_next_number() {
        let (one, two) = (made("one", 1), made("two", 2));
        let decision = decide(&set("one", Some(named(&two)), 10), &[two.clone(), one.clone()], 0);
        assert_eq!(decision.update, Update::Bump { name: named(&one).into(), number: 3 });
        assert_eq!(decision.current, named(&two));
    }

    #[test]
    fn the_typed_template_keeps_what_the_server_stored() {
        let stored = json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "containers": [{
                    "image": "nginx:1.21", "imagePullPolicy": "IfNotPresent", "name": "nginx",
                    "ports": [{"containerPort": 80, "name": "web", "protocol": "TCP"}],
                    "readinessProbe": {
                        "failureThreshold": 3, "periodSeconds": 1, "successThreshold": 1,
                        "tcpSocket": {"port": 80}, "timeoutSeconds": 1,
                    },
                    "resources": {}, "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "volumeMounts": [{"mountPath": "/usr/share/nginx/html", "name": "www"}],
                }],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 10,
            },
        });
        let typed = serde_json::from_value(stored.clone()).expect("a template");
        let mut patch = stored;
        patch["$patch"] = "replace".into();
        assert_eq!(history::data(&typed), json!({"spec": {"template": patch}}));
    }

    /// Names that Kubernetes gave to this template: 1.34, and 1.33, which wrote a null down.
    #[test]
    fn names_are_those_of_upstream_and_revisions_of_older_versions_are_still_known() {
        let template = json!({
            "metadata": {"annotations": {"test": "value"}, "labels": {"app": "foo"}},
            "spec": {
                "containers": [{
                    "image": "test", "imagePullPolicy": "Always", "name": "test", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30,
            },
        });
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "test", "uid": "set"}, "spec": {"selector": {}, "template": template},
        }))
        .expect("a set");
        let Update::Create(new) = decide(&set, &[], 0).update else { panic!("no history") };
        assert_eq!(named(&new), "test-776999688b");
        let mut old = (*new).clone();
        old.data.0["spec"]["template"]["metadata"]["creationTimestamp"] = serde_json::Value::Null;
        assert_eq!(history::hash(&old.data.0, 0), "c77f6d978");
        old.metadata.name = Some("test-c77f6d978".to_owned());
        assert_eq!(decide(&set, &[Arc::new(old)], 0).update, Update::Newest("test-c77f6d978".to_owned()));
    }

    #[test]
    fn a_collision_gives_another_name() {
        let first = decide(&set("one", None, 10), &[], 0);
        let second = decide(&set("one", None, 10), &[], 1);
        assert_ne!(first.update.name(), second.update.name());
    }

    #[test]
    fn history_keeps_what_is_in_use_and_as_many_more_as_asked() {
        let revisions: Vec<_> = (1..=6).map(|n| made(&format!("image-{n}"), n)).collect();
        let names: Vec<&str> = revisions.iter().map(|revision| named(revision)).collect();
        let pod: Pod = serde_json::from_value(json!({"metadata": {"labels": {"controller-revision-hash": names[0]}}}))
            .expect("a pod");
        let pods = [Arc::new(pod)];
        for (limit, expected) in [(10, vec![]), (1, vec![names[1], names[2]]), (0, names[1..4].to_vec()), (-1, vec![])]
        {
            let set = set("image-6", Some(names[4]), limit);
            let decision = decide(&set, &revisions, 0);
            assert_eq!(superfluous(&set, &revisions, &pods, &decision), expected, "limit {limit}");
        }
    }
}
