//! One set, twice: as its annotations ask the companion for it, and what of that is left to the built-in controller.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetCondition, StatefulSetUpdateStrategy,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stead_machinery::hand_over;
use stead_machinery::quantity::Quantity;

use super::{CLAIM_SIZES, GOOD_REVISION, MAX_UNAVAILABLE, PARTITION, PROGRESS, Share};
use crate::statefulset::{progress, wishes};

const PREFIX: &str = "stead.dev/";

/// An annotation that does nothing here, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    pub annotation: String,
    pub why: String,
}

/// A set as the companion treats it.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The set with what its annotations ask for in the fields that our own controller reads. It is only to be looked at,
    /// never to be written.
    pub set: StatefulSet,
    /// What of it cannot be done.
    pub ignored: Vec<Ignored>,
}

/// The set as it would be where one controller did all.
#[must_use]
pub fn asked(set: &StatefulSet, share: Share) -> Asked {
    let mut asked = Asked { set: set.clone(), ignored: Vec::new() };
    match share {
        Share::RollOuts => asked.roll_outs(),
        Share::Healing => asked.healing_only(),
        Share::Rest => asked.nothing_more(),
    }
    if share != Share::Rest {
        asked.impossible();
        asked.claim_sizes();
    }
    asked.progress();
    asked
}

/// The set as the built-in controller is to see it where that is stead's own: upstream's set, none of our annotations,
/// and no finalizer that would be its to take away.
#[must_use]
pub fn left(set: &StatefulSet) -> StatefulSet {
    let mut left = set.clone();
    let annotations = left.metadata.annotations.get_or_insert_default();
    annotations.retain(|key, _| !key.starts_with(PREFIX));
    annotations.insert(wishes::HEAL.to_owned(), "false".to_owned());
    left.metadata.finalizers = Some(wishes::finalizers(set, false)).filter(|others| !others.is_empty());
    left
}

impl Asked {
    fn get(&self, key: &str) -> Option<String> {
        self.set.metadata.annotations.as_ref()?.get(key).cloned()
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.set.metadata.annotations.as_mut()?.remove(key)
    }

    fn put(&mut self, key: &str, value: &str) {
        self.set.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
    }

    fn ignore(&mut self, annotation: &str, why: impl Into<String>) {
        self.ignored.push(Ignored { annotation: annotation.to_owned(), why: why.into() });
    }

    /// The strategy is that of the annotations.
    fn roll_outs(&mut self) {
        let partition = self.take(PARTITION).map(|text| text.trim().parse::<i32>().ok().filter(|n| *n >= 0));
        if partition == Some(None) {
            self.ignore(PARTITION, "it has to be a number, 0 or more");
        }
        let max_unavailable = self.take(MAX_UNAVAILABLE).map(|text| at_most(text.trim()));
        if max_unavailable == Some(None) {
            self.ignore(MAX_UNAVAILABLE, r#"it has to be a number like "2", 1 or more, or a percentage like "25%""#);
        }
        self.set.spec.update_strategy = Some(StatefulSetUpdateStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateStatefulSetStrategy {
                partition: partition.flatten(),
                max_unavailable: max_unavailable.flatten(),
            }),
        });
        if let Some(good) = self.get(GOOD_REVISION) {
            self.set.status.get_or_insert_default().current_revision = Some(good);
        }
    }

    /// Roll-outs are the built-in controller's.
    fn healing_only(&mut self) {
        for key in [PARTITION, MAX_UNAVAILABLE, wishes::PAUSED, wishes::UPDATE_LAST] {
            if self.take(key).is_some() {
                self.ignore(
                    key,
                    "the cluster's own controller rolls out; with updateStrategy OnDelete the companion does",
                );
            }
        }
    }

    /// Nobody asks for anything any more.
    fn nothing_more(&mut self) {
        self.set.metadata.annotations.get_or_insert_default().retain(|key, _| !key.starts_with(PREFIX));
        self.put(wishes::HEAL, "false");
    }

    /// What the built-in controller would undo, or does before a companion could say anything.
    fn impossible(&mut self) {
        for (key, why) in [
            (wishes::RESERVED, "the cluster's own controller makes these pods again"),
            (wishes::STOPPED, "the cluster's own controller makes these pods again"),
            (wishes::OVERRIDES, "the cluster's own controller makes pods from the template alone"),
            (hand_over::HAND_OVER, "only a stead's own controller asks pods, and its nodes run the command"),
            (wishes::EVICT, "only a stead's own controller asks disruption budgets"),
            (wishes::DEPENDS_ON, "the cluster's own controller makes the first pod without asking"),
            (
                wishes::GROW_CLAIMS,
                "claim templates cannot change in this cluster; say the size with stead.dev/claim-sizes",
            ),
        ] {
            if self.take(key).is_some() {
                self.ignore(key, why);
            }
        }
    }

    /// Templates that ask for what [`CLAIM_SIZES`] says, where that is more.
    fn claim_sizes(&mut self) {
        let Some(text) = self.take(CLAIM_SIZES) else { return };
        let Ok(sizes) = serde_json::from_str::<BTreeMap<String, String>>(&text) else {
            return self.ignore(
                CLAIM_SIZES,
                r#"it has to be a JSON object of sizes by claim template, like {"data": "20Gi"}"#,
            );
        };
        for (template, size) in sizes {
            if let Err(why) = self.claim_size(&template, &size) {
                self.ignore(CLAIM_SIZES, why);
            }
        }
        self.put(wishes::GROW_CLAIMS, "true");
    }

    fn claim_size(&mut self, template: &str, size: &str) -> Result<(), String> {
        let wanted: Quantity = size.parse().map_err(|_| format!("{template}: {size:?} is not a size like 20Gi"))?;
        let templates = self.set.spec.volume_claim_templates.iter_mut().flatten();
        let found = templates.into_iter().find(|found| found.metadata.name.as_deref() == Some(template));
        let found = found.ok_or_else(|| format!("the set has no claim template {template:?}"))?;
        let resources = found.spec.get_or_insert_default().resources.get_or_insert_default();
        let request = resources.requests.get_or_insert_default().entry("storage".to_owned()).or_default();
        if request.0.parse::<Quantity>().is_ok_and(|present| wanted < present) {
            return Err(format!(
                "{template}: {size} is less than the {} of its template, and claims never shrink",
                request.0
            ));
        }
        *request = Text(size.to_owned());
        Ok(())
    }

    /// The condition that the companion remembers stands where our own controller would look for it.
    fn progress(&mut self) {
        let remembered = self.take(PROGRESS);
        let condition = remembered.and_then(|text| serde_json::from_str::<StatefulSetCondition>(&text).ok());
        let status = self.set.status.get_or_insert_default();
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_.as_deref() != Some(progress::CONDITION));
        conditions.extend(condition.filter(|condition| condition.type_.as_deref() == Some(progress::CONDITION)));
    }
}

/// A number of pods from 1 on, or a percentage from 1 to 100.
fn at_most(text: &str) -> Option<IntOrString> {
    match text.strip_suffix('%') {
        Some(percent) => {
            let plain = percent.parse::<u8>().is_ok_and(|percent| (1..=100).contains(&percent));
            plain.then(|| IntOrString::String(text.to_owned()))
        }
        None => text.parse().ok().filter(|number| *number >= 1).map(IntOrString::Int),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::MANAGED;
    use super::*;
    use crate::statefulset::identity;

    fn set(strategy: &str, annotations: Value) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "annotations": annotations, "finalizers": ["theirs", "stead.dev/ordered-delete"]},
            "spec": {
                "replicas": 3, "selector": {}, "template": {}, "updateStrategy": {"type": strategy},
                "volumeClaimTemplates": [
                    {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "10Gi"}}}},
                    {"metadata": {"name": "logs"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}},
                ],
            },
            "status": {"replicas": 3, "currentRevision": "web-old"},
        }))
        .expect("a set")
    }

    fn why(asked: &Asked) -> Vec<String> {
        asked.ignored.iter().map(|ignored| format!("{}: {}", ignored.annotation, ignored.why)).collect()
    }

    #[test]
    fn with_on_delete_the_strategy_is_that_of_the_annotations() {
        for (annotations, expected) in [
            (json!({}), json!({})),
            (json!({PARTITION: "2", MAX_UNAVAILABLE: "3"}), json!({"partition": 2, "maxUnavailable": 3})),
            (json!({PARTITION: " 0 ", MAX_UNAVAILABLE: "25%"}), json!({"partition": 0, "maxUnavailable": "25%"})),
        ] {
            let asked = asked(&set("OnDelete", annotations), Share::RollOuts);
            let strategy = serde_json::to_value(asked.set.spec.update_strategy).expect("a strategy");
            assert_eq!(strategy, json!({"type": "RollingUpdate", "rollingUpdate": expected}));
            assert_eq!(asked.ignored, []);
        }
        for (partition, most) in [("-1", "0"), ("some", "0%"), ("1.5", "101%"), ("", "x%"), ("1%", "-2")] {
            let asked = asked(&set("OnDelete", json!({PARTITION: partition, MAX_UNAVAILABLE: most})), Share::RollOuts);
            let named: Vec<_> = asked.ignored.iter().map(|ignored| ignored.annotation.as_str()).collect();
            assert_eq!(named, [PARTITION, MAX_UNAVAILABLE], "{partition:?} {most:?}");
        }
    }

    #[test]
    fn what_it_remembers_stands_in_the_status_that_it_looks_at() {
        let condition = json!({"type": "Progressing", "status": "True", "reason": "RevisionUpdated"});
        let set = set("OnDelete", json!({GOOD_REVISION: "web-good", PROGRESS: condition.to_string()}));
        let status = asked(&set, Share::RollOuts).set.status.expect("a status");
        assert_eq!(status.current_revision.as_deref(), Some("web-good"));
        assert_eq!(serde_json::to_value(status.conditions).expect("conditions"), json!([condition]));
        let status = asked(&set, Share::Healing).set.status.expect("a status");
        assert_eq!(status.current_revision.as_deref(), Some("web-old"), "the built-in controller keeps it");
        let spoilt = asked(&self::set("OnDelete", json!({PROGRESS: "rubbish"})), Share::RollOuts);
        assert_eq!(spoilt.set.status.expect("a status").conditions, Some(vec![]));
    }

    #[test]
    fn claims_grow_to_the_size_that_is_asked_for_and_never_shrink() {
        let sizes = |text: &str| asked(&set("OnDelete", json!({CLAIM_SIZES: text})), Share::RollOuts);
        let grown = sizes(r#"{"data": "20Gi"}"#);
        let requests: Vec<String> = identity::claim_templates(&grown.set)
            .iter()
            .map(|template| {
                template.spec.clone().unwrap_or_default().resources.unwrap_or_default().requests.unwrap_or_default()
            })
            .map(|requests| requests["storage"].0.clone())
            .collect();
        assert_eq!(requests, ["20Gi", "1Gi"]);
        assert!(wishes::grows_claims(&grown.set) && grown.ignored.is_empty());
        for (text, expected) in [
            ("20Gi", r#"it has to be a JSON object of sizes by claim template, like {"data": "20Gi"}"#),
            (r#"{"data": "much"}"#, r#"data: "much" is not a size like 20Gi"#),
            (r#"{"date": "1Gi"}"#, r#"the set has no claim template "date""#),
            (r#"{"data": "1Gi"}"#, "data: 1Gi is less than the 10Gi of its template, and claims never shrink"),
        ] {
            assert_eq!(why(&sizes(text)), [format!("{CLAIM_SIZES}: {expected}")]);
        }
    }

    #[test]
    fn what_cannot_be_done_is_named_and_taken_out() {
        let all = json!({
            wishes::RESERVED: "1", wishes::DEPENDS_ON: "db", wishes::GROW_CLAIMS: "true", wishes::PAUSED: "true",
            wishes::UPDATE_LAST: "role=leader", PARTITION: "1", wishes::ORDERED_DELETE: "true",
        });
        let named = |asked: &Asked| asked.ignored.iter().map(|ignored| ignored.annotation.clone()).collect::<Vec<_>>();
        let rolls = asked(&set("OnDelete", all.clone()), Share::RollOuts);
        assert_eq!(named(&rolls), [wishes::RESERVED, wishes::DEPENDS_ON, wishes::GROW_CLAIMS]);
        assert_eq!(identity::ordinals(&rolls.set), [0, 1, 2]);
        assert!(wishes::is_paused(&rolls.set) && wishes::wants_ordered_delete(&rolls.set));
        let heals = asked(&set("RollingUpdate", all), Share::Healing);
        let more =
            [PARTITION, wishes::PAUSED, wishes::UPDATE_LAST, wishes::RESERVED, wishes::DEPENDS_ON, wishes::GROW_CLAIMS];
        assert_eq!(named(&heals), more);
        assert!(!wishes::is_paused(&heals.set) && wishes::wants_ordered_delete(&heals.set));
    }

    #[test]
    fn the_built_in_controller_sees_upstreams_set() {
        let set = set("OnDelete", json!({MANAGED: "true", wishes::ORDERED_DELETE: "true", "theirs": "x"}));
        let left = left(&set);
        assert_eq!(
            serde_json::to_value(&left.metadata.annotations).expect("annotations"),
            json!({"theirs": "x", wishes::HEAL: "false"})
        );
        assert_eq!(left.metadata.finalizers.as_deref(), Some(&["theirs".to_owned()][..]));
        assert_eq!(left.spec, set.spec);
    }

    #[test]
    fn a_set_that_is_managed_no_longer_is_let_go() {
        let mut set = set("OnDelete", json!({wishes::ORDERED_DELETE: "true"}));
        assert_eq!((Share::of(&set, true), Share::of(&set, false)), (Some(Share::Rest), None));
        assert!(
            !wishes::wants_ordered_delete(&asked(&set, Share::Rest).set)
                && wishes::is_held(&asked(&set, Share::Rest).set)
        );
        set.metadata.finalizers = None;
        assert_eq!(Share::of(&set, true), None);
        set.metadata.annotations.get_or_insert_default().insert(MANAGED.to_owned(), "true".to_owned());
        assert_eq!(Share::of(&set, false), Some(Share::RollOuts));
    }
}
