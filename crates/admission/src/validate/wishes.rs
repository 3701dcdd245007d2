//! What a StatefulSet wishes beyond upstream's API: annotations whose values cannot be understood are told in warnings.
//!
//! Nothing is refused: an annotation is no field, and the same manifest is valid everywhere else.

use serde_json::Value;
use stead_machinery::hand_over;
use stead_machinery::ordinals::Ordinals;
use stead_machinery::overrides::{self, Overrides};
use stead_machinery::selector::Selector;
use stead_machinery::{FieldErrors, Path};

use super::Judge;
use super::pod::{self, Rules};
use crate::view::View;

const PREFIX: &str = "stead.dev/";
/// What is put on a set by its controller, or is a companion's to judge.
const OTHERS: &[&str] =
    &["rolled-back-from", "managed", "partition", "max-unavailable", "claim-sizes", "good-revision", "progress"];
/// Labels by which pods of any set are known, whatever its selector is.
const FIXED_LABELS: &[&str] =
    &["statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "controller-revision-hash"];

/// Warns of every annotation of the set that cannot be understood.
pub(super) fn warn(set: &Value, judge: &mut Judge<'_>) {
    let Some(annotations) = set.at("metadata.annotations").as_object() else { return };
    for (key, value) in annotations {
        let (Some(wish), Some(value)) = (key.strip_prefix(PREFIX), value.as_str()) else { continue };
        if let Err(expected) = judged(set, wish, value) {
            judge.warnings.push(format!("metadata.annotations[{key}]: {expected}"));
        }
    }
}

/// Whether the value of a wish can be understood; what is expected otherwise.
fn judged(set: &Value, wish: &str, value: &str) -> Result<(), String> {
    let counts = |good: bool, expected: &str| {
        if good { Ok(()) } else { Err(format!("{value:?} counts as not given: {expected} is expected")) }
    };
    match wish {
        "heal" | "paused" | "ordered-delete" | "grow-claims" | "evict" => {
            counts(matches!(value, "true" | "false"), "\"true\" or \"false\"")
        }
        "progress-deadline-seconds" => {
            counts(value.trim().parse::<u32>().is_ok_and(|seconds| seconds > 0), "a number of seconds above 0")
        }
        "reserve-ordinals" | "stop-ordinals" => {
            counts(Ordinals::understands(value), "a list of ordinals and ranges such as \"1,4-6\"")
        }
        "depends-on" => {
            let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
            let good = |name: &str| stead_machinery::names::dns_subdomain(name).is_empty();
            counts(names.into_iter().all(good), "a list of names of StatefulSets, separated by commas,")
        }
        "update-last" => {
            counts(Selector::parse(value).is_ok_and(|s| !s.is_everything()), "a label selector such as \"role=leader\"")
        }
        "hand-over" => counts(
            hand_over::how(value).is_some(),
            "a command as a JSON list such as [\"redis-cli\", \"failover\"], or \"wait\",",
        ),
        "hand-over-seconds" => {
            let expected = format!("a number of seconds from 1 to {}", hand_over::SECONDS_MAX);
            counts(hand_over::seconds(value).is_some(), &expected)
        }
        "hand-over-container" => {
            let containers = set.items("spec.template.spec.containers");
            counts(
                containers.iter().any(|container| container.text("name") == value),
                "the name of a container of the template",
            )
        }
        "overrides" => overrides(set, value),
        other if OTHERS.contains(&other) => Ok(()),
        _ => Err("there is no such annotation for StatefulSets, and it does nothing".to_owned()),
    }
}

/// The patches have to be readable, to fit the template, and to make a template that is valid.
fn overrides(set: &Value, text: &str) -> Result<(), String> {
    let selector = set.at("spec.selector");
    let by_expression: Vec<&str> = selector.items("matchExpressions").iter().map(|one| one.text("key")).collect();
    let by_label = selector.at("matchLabels").as_object();
    let is_fixed = |label: &str| {
        FIXED_LABELS.contains(&label)
            || by_expression.contains(&label)
            || by_label.is_some_and(|labels| labels.contains_key(label))
    };
    let unusable = |why: String| format!("pods are neither made nor replaced with these overrides: {why}");
    let template = set.at("spec.template");
    for (ordinals, patch) in Overrides::parse(text, &is_fixed).map_err(unusable)?.all() {
        let patched = overrides::patched(template, patch).map_err(|why| unusable(format!("{ordinals:?}: {why}")))?;
        if let Some(fault) = first_fault(set, &patched) {
            return Err(format!("the pods of {ordinals:?} will be refused: {fault}"));
        }
    }
    Ok(())
}

/// What validation says to a template.
fn first_fault(set: &Value, template: &Value) -> Option<String> {
    let claims: Vec<&str> =
        set.items("spec.volumeClaimTemplates").iter().map(|claim| claim.text("metadata.name")).collect();
    let (mut errors, mut warnings) = (FieldErrors::default(), Vec::new());
    let rules = Rules { more_volumes: &claims, ..Rules::default() };
    let path = Path::new("spec").child("template");
    pod::template(template, rules, &path, &mut Judge { errors: &mut errors, warnings: &mut warnings });
    errors.0.first().map(ToString::to_string)
}
