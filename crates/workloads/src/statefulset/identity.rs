//! What makes a pod the n-th of its set: name, labels, host name and volumes.
//!
//! Source: `pkg/controller/statefulset/stateful_set_utils.go`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodSpec, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use stead_api::typed;
use stead_machinery::overrides::{self, Overrides};

use super::wishes;
use crate::owner::controller_ref;

pub const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
pub const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
/// On a pod: the revision that it was made from, see [`revision_label`].
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// Longest value of a label.
const LABEL_MAX: usize = 63;
/// `spec.replicas`.
#[must_use]
pub fn replicas(set: &StatefulSet) -> u32 {
    let replicas = set.spec.replicas.unwrap_or(1);
    u32::try_from(replicas).unwrap_or(0)
}

/// `spec.ordinals.start`.
#[must_use]
pub fn start(set: &StatefulSet) -> u32 {
    let start = set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    u32::try_from(start).unwrap_or(0)
}

/// The ordinals that are wanted, ascending: without gaps but for those that are reserved.
#[must_use]
pub fn ordinals(set: &StatefulSet) -> Vec<u32> {
    wishes::ordinals(set, start(set), replicas(set))
}

#[must_use]
pub fn claim_templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.volume_claim_templates.as_deref().unwrap_or_default()
}

/// `web-0`.
#[must_use]
pub fn pod_name(set: &StatefulSet, ordinal: u32) -> String {
    format!("{}-{ordinal}", name(&set.metadata))
}

/// `data-web-0`.
#[must_use]
pub fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: u32) -> String {
    format!("{}-{}-{ordinal}", name(&template.metadata), name(&set.metadata))
}

/// The ordinal of a pod that has the name of a pod of this set. Zeros may lead: upstream counts `web-012` as its twelfth pod,
/// so that it is adopted, and taken away where nobody wants a twelfth.
#[must_use]
pub fn ordinal_of(set: &StatefulSet, pod: &Pod) -> Option<u32> {
    let digits = name(&pod.metadata).strip_prefix(name(&set.metadata))?.strip_prefix('-')?;
    let ordinal: i32 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    u32::try_from(ordinal).ok()
}

/// Those of the pods that have an ordinal. Where both `web-12` and `web-012` are there, the first one is it.
#[must_use]
pub fn by_ordinal<P: Deref<Target = Pod>>(set: &StatefulSet, pods: impl IntoIterator<Item = P>) -> BTreeMap<u32, P> {
    let mut all = BTreeMap::new();
    for pod in pods {
        let Some(ordinal) = ordinal_of(set, &pod) else { continue };
        if is_named(&pod) || !all.contains_key(&ordinal) {
            all.insert(ordinal, pod);
        }
    }
    all
}

/// What pods of the revision of that name carry as label: the name itself.
///
/// A name that is too long for a label loses the end of its set's part, never the hash, by which revisions of one set
/// differ. Upstream leaves it as it is, so that every pod of a set with a name of more than 52 characters is refused.
#[must_use]
pub fn revision_label(revision: &str) -> Cow<'_, str> {
    if revision.len() <= LABEL_MAX {
        return revision.into();
    }
    let (prefix, hash) = revision.rsplit_once('-').unwrap_or(("", revision));
    let room = LABEL_MAX.saturating_sub(hash.len() + 1);
    let cut = prefix.char_indices().map(|(at, _)| at).take_while(|at| *at <= room).last().unwrap_or(0);
    format!("{}-{hash}", prefix[..cut].trim_end_matches(['-', '.'])).into()
}

/// The label of the revision that a pod was made from.
#[must_use]
pub fn revision_of(pod: &Pod) -> Option<&str> {
    label(pod, REVISION_LABEL)
}

/// Whether the labels of a pod name it right.
#[must_use]
pub fn matches(set: &StatefulSet, pod: &Pod, ordinal: u32) -> bool {
    ordinal_of(set, pod) == Some(ordinal) && is_named(pod) && label(pod, POD_NAME_LABEL) == Some(name(&pod.metadata))
}

/// Whether the name of a pod of a set is that of its ordinal, without zeros that lead.
pub(super) fn is_named(pod: &Pod) -> bool {
    let name = name(&pod.metadata);
    let digits = name.rsplit_once('-').map_or(name, |(_, digits)| digits);
    digits.len() <= 1 || !digits.starts_with('0')
}

/// Whether a pod mounts the claims of its ordinal.
#[must_use]
pub fn storage_matches(set: &StatefulSet, pod: &Pod, ordinal: u32) -> bool {
    claim_templates(set).iter().all(|template| {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        let volume = volumes.iter().find(|volume| volume.name == name(&template.metadata));
        let claim = volume.and_then(|volume| volume.persistent_volume_claim.as_ref());
        claim.is_some_and(|claim| claim.claim_name == claim_name(set, template, ordinal))
    })
}

/// The reference that pods, claims and revisions have to their set.
#[must_use]
pub fn set_ref(set: &StatefulSet) -> OwnerReference {
    controller_ref("apps/v1", "StatefulSet", &set.metadata)
}

/// `template` with the patch of that ordinal, and the hash of the patch as an annotation.
///
/// # Errors
/// The set's overrides cannot be understood, or that of the ordinal does not fit the template.
pub fn overridden<'a>(
    set: &StatefulSet,
    template: &'a PodTemplateSpec,
    ordinal: u32,
) -> Result<Cow<'a, PodTemplateSpec>, String> {
    let overrides = wishes::overrides(set)?;
    let Some(patch) = overrides.of(ordinal) else { return Ok(Cow::Borrowed(template)) };
    let misfit = |why: String| format!("annotation {}: the patch of {ordinal} does not fit: {why}", wishes::OVERRIDES);
    let plain = serde_json::to_value(template).map_err(|error| misfit(error.to_string()))?;
    let patched = overrides::patched(&plain, patch).map_err(misfit)?;
    let mut template: PodTemplateSpec = typed::from_value(&patched).map_err(|error| misfit(error.to_string()))?;
    let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
    annotations.insert(wishes::OVERRIDE_HASH.to_owned(), overrides::hash(patch));
    Ok(Cow::Owned(template))
}

/// Whether a pod was made with the patch that its ordinal has now. One that would not fit is nobody's.
#[must_use]
pub fn override_matches(set: &StatefulSet, overrides: &Overrides, pod: &Pod, ordinal: u32) -> bool {
    let made_with = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(wishes::OVERRIDE_HASH));
    match overrides.of(ordinal) {
        None => made_with.is_none(),
        Some(patch) => {
            made_with.is_some_and(|hash| *hash == overrides::hash(patch))
                || overridden(set, &set.spec.template, ordinal).is_err()
        }
    }
}

/// The pod of `ordinal`, made from `template` of the revision named `revision`.
#[must_use]
pub fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: u32) -> Pod {
    let pod_name = pod_name(set, ordinal);
    let from = template.metadata.clone().unwrap_or_default();
    let mut pod = Pod {
        metadata: ObjectMeta {
            name: Some(pod_name.clone()),
            generate_name: Some(format!("{}-", name(&set.metadata))),
            namespace: set.metadata.namespace.clone(),
            labels: from.labels,
            annotations: from.annotations,
            finalizers: from.finalizers,
            owner_references: Some(vec![set_ref(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            hostname: Some(pod_name),
            subdomain: set.spec.service_name.clone().filter(|service| !service.is_empty()),
            ..template.spec.clone().unwrap_or_default()
        }),
        status: None,
    };
    put_labels(&mut pod, set, ordinal);
    put_storage(&mut pod, set, ordinal);
    labels_of(&mut pod).insert(REVISION_LABEL.to_owned(), revision_label(revision).into_owned());
    pod
}

/// The same pod with the name and the labels of its ordinal. Its volumes cannot be changed.
#[must_use]
pub fn repaired(set: &StatefulSet, pod: &Pod, ordinal: u32) -> Pod {
    let mut pod = pod.clone();
    pod.metadata.name = Some(pod_name(set, ordinal));
    put_labels(&mut pod, set, ordinal);
    pod
}

fn put_labels(pod: &mut Pod, set: &StatefulSet, ordinal: u32) {
    let labels = labels_of(pod);
    labels.insert(POD_NAME_LABEL.to_owned(), pod_name(set, ordinal));
    labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
}

/// One volume per claim template comes first; it wins over a volume of that name in the template.
fn put_storage(pod: &mut Pod, set: &StatefulSet, ordinal: u32) {
    let templates = claim_templates(set);
    if templates.is_empty() {
        return;
    }
    let mut volumes: Vec<Volume> = templates
        .iter()
        .map(|template| Volume {
            name: name(&template.metadata).to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, template, ordinal),
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    let spec = pod.spec.get_or_insert_default();
    let own = spec.volumes.take().unwrap_or_default();
    volumes.extend(own.into_iter().filter(|v| templates.iter().all(|t| name(&t.metadata) != v.name)));
    spec.volumes = Some(volumes);
}

fn labels_of(pod: &mut Pod) -> &mut BTreeMap<String, String> {
    pod.metadata.labels.get_or_insert_default()
}

fn label<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn web() -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "set-uid"},
            "spec": {
                "serviceName": "nginx", "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}},
                    "spec": {"containers": [], "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]},
                },
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}, {"metadata": {"name": "log"}}],
            },
        }))
        .expect("a set")
    }

    fn pod(set: &StatefulSet, ordinal: u32) -> Pod {
        new_pod(set, &set.spec.template, "web-abc", ordinal)
    }

    #[test]
    fn a_pod_has_the_identity_that_upstream_gives_it() {
        let set = web();
        assert_eq!(
            serde_json::to_value(pod(&set, 7)).expect("json"),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": "web-7", "generateName": "web-", "namespace": "ns", "annotations": {"a": "b"},
                    "labels": {
                        "app": "web", "controller-revision-hash": "web-abc", "apps.kubernetes.io/pod-index": "7",
                        "statefulset.kubernetes.io/pod-name": "web-7",
                    },
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "set-uid",
                        "controller": true, "blockOwnerDeletion": true,
                    }],
                },
                "spec": {
                    "containers": [], "hostname": "web-7", "subdomain": "nginx",
                    "volumes": [
                        {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-7"}},
                        {"name": "log", "persistentVolumeClaim": {"claimName": "log-web-7"}},
                        {"name": "tmp", "emptyDir": {}},
                    ],
                },
            })
        );
    }

    #[test]
    fn an_override_changes_what_a_pod_runs_and_is_known_by_its_hash() {
        let mut set = web();
        let text = r#"{"1": {"metadata": {"labels": {"zone": "b"}}, "spec": {"nodeSelector": {"disk": "fast"}}}, "2": {"spec": {"nodeSelektor": {}}}}"#;
        set.metadata.annotations = Some([(wishes::OVERRIDES.to_owned(), text.to_owned())].into());
        let make = |ordinal| {
            let template = overridden(&set, &set.spec.template, ordinal)?;
            Ok::<_, String>(new_pod(&set, &template, "web-abc", ordinal))
        };
        let overrides = wishes::overrides(&set).expect("good ones");
        let (plain, patched) = (make(0).expect("none"), make(1).expect("fits"));
        assert_eq!(plain, pod(&set, 0));
        let labels = patched.metadata.labels.as_ref().expect("labels");
        assert_eq!(
            (labels["app"].as_str(), labels["zone"].as_str(), labels[POD_INDEX_LABEL].as_str()),
            ("web", "b", "1")
        );
        assert_eq!(patched.metadata.annotations.as_ref().expect("annotations")["a"], "b");
        let spec = patched.spec.as_ref().expect("a spec");
        assert_eq!(spec.node_selector.as_ref().expect("patched")["disk"], "fast");
        assert_eq!(spec.hostname.as_deref(), Some("web-1"));
        let refused = make(2).expect_err("no such field");
        assert!(refused.starts_with("annotation stead.dev/overrides: the patch of 2 does not fit: "), "{refused}");
        for (made, ordinal, expected) in
            [(&plain, 0, true), (&patched, 1, true), (&plain, 1, false), (&patched, 0, false), (&plain, 2, true)]
        {
            assert_eq!(override_matches(&set, &overrides, made, ordinal), expected, "{ordinal}");
        }
    }

    #[test]
    fn only_names_of_this_set_have_an_ordinal() {
        let mut set = web();
        for (name, expected) in [
            ("web-0", Some(0)),
            ("web-12", Some(12)),
            ("web-012", Some(12)),
            ("web-000", Some(0)),
            ("web--1", None),
            ("web-+1", None),
            ("web-", None),
            ("web", None),
            ("web-x-1", None),
            ("other-1", None),
            ("web-99999999999", None),
        ] {
            let pod =
                Pod { metadata: ObjectMeta { name: Some(name.into()), ..Default::default() }, ..Default::default() };
            assert_eq!(ordinal_of(&set, &pod), expected, "{name}");
        }
        set.metadata.name = Some("web-1".into());
        let pod =
            Pod { metadata: ObjectMeta { name: Some("web-1-3".into()), ..Default::default() }, ..Default::default() };
        assert_eq!(ordinal_of(&set, &pod), Some(3), "a set may itself be named like a pod");
    }

    #[test]
    fn one_pod_has_an_ordinal() {
        let set = web();
        let named = |name: &str| Pod {
            metadata: ObjectMeta { name: Some(name.into()), ..Default::default() },
            ..Default::default()
        };
        let names = ["web-012", "web-1", "other-3", "web-12", "web-0012", "web-02"];
        let pods: Vec<Pod> = names.into_iter().map(named).collect();
        let found = by_ordinal(&set, &pods);
        let found: Vec<_> = found.iter().map(|(ordinal, pod)| (*ordinal, name(&pod.metadata))).collect();
        assert_eq!(found, [(1, "web-1"), (2, "web-02"), (12, "web-12")]);
    }

    #[test]
    fn the_label_of_a_revision_fits_and_keeps_the_hash() {
        assert_eq!(revision_label("web-5999d5b47d"), "web-5999d5b47d");
        let set = "x".repeat(61);
        let label = revision_label(&format!("{set}-5999d5b47d")).into_owned();
        assert_eq!(label, format!("{}-5999d5b47d", "x".repeat(52)));
        let dashed = revision_label(&format!("{}-{}-5999d5b47d", "x".repeat(51), "y".repeat(9))).into_owned();
        assert_eq!(dashed, format!("{}-5999d5b47d", "x".repeat(51)), "no dash before the dash");
    }

    #[test]
    fn a_damaged_pod_is_seen_and_repaired() {
        let set = web();
        let good = pod(&set, 1);
        assert!(matches(&set, &good, 1) && storage_matches(&set, &good, 1));
        let mut bad = good.clone();
        labels_of(&mut bad).remove(POD_NAME_LABEL);
        bad.spec.as_mut().expect("spec").volumes = None;
        assert!(!matches(&set, &bad, 1) && !storage_matches(&set, &bad, 1));
        let mended = repaired(&set, &bad, 1);
        assert!(matches(&set, &mended, 1) && mended.spec == bad.spec, "labels only");
    }
}
