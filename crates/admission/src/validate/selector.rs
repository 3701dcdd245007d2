//! Label selectors: their form, and whether they match.

use serde_json::Value;
use stead_machinery::Path;

use super::Judge;
use super::meta::invalid_all;
use crate::names;
use crate::view::View;

/// The form of a `LabelSelector`.
pub(super) fn selector(selector: &Value, path: &Path, judge: &mut Judge<'_>) {
    super::meta::labels(selector.at("matchLabels"), &path.child("matchLabels"), judge.errors);
    for (i, expression) in selector.items("matchExpressions").iter().enumerate() {
        requirement(expression, &path.child("matchExpressions").index(i), judge);
    }
}

fn requirement(expression: &Value, path: &Path, judge: &mut Judge<'_>) {
    let values = expression.items("values");
    match expression.text("operator") {
        "In" | "NotIn" if values.is_empty() => {
            judge.errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            judge.errors.forbidden(&path.child("values"), why);
        }
        "Exists" | "DoesNotExist" => {}
        other => judge.errors.invalid(&path.child("operator"), &other, "not a valid selector operator"),
    }
    let key = expression.text("key");
    invalid_all(&path.child("key"), key, names::qualified_name(key), judge.errors);
    for (i, value) in values.iter().filter_map(Value::as_str).enumerate() {
        invalid_all(&path.child("values").index(i), value, names::label_value(value), judge.errors);
    }
}

/// Neither labels nor expressions: it would select everything.
pub(super) fn is_empty(selector: &Value) -> bool {
    selector.entries("matchLabels").is_empty() && selector.items("matchExpressions").is_empty()
}

/// Whether labels (a JSON object or nothing) are selected.
pub(crate) fn matches(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    selector.entries("matchLabels").iter().all(|(key, value)| label(key) == value.as_str())
        && selector.items("matchExpressions").iter().all(|expression| {
            let here = label(expression.text("key"));
            let listed = || expression.items("values").iter().any(|v| v.as_str() == here);
            match expression.text("operator") {
                "In" => here.is_some() && listed(),
                "NotIn" => here.is_none() || !listed(),
                "Exists" => here.is_some(),
                "DoesNotExist" => here.is_none(),
                _ => false,
            }
        })
}
