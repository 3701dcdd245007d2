//! PodDisruptionBudget.

use serde_json::Value;
use stead_machinery::Path;

use super::{Judge, Raw, at_most_all, one_of, positive_int_or_percent, selector};
use crate::view::View;

pub(super) fn budget(object: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    let spec = object.at("spec");
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        // Upstream shows its internal type, whose fields have their Go names.
        let shown = format!(
            "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
            spec.at("minAvailable"),
            spec.at("selector"),
            spec.at("maxUnavailable"),
            spec.at("unhealthyPodEvictionPolicy")
        );
        judge.errors.invalid(&path, &Raw(shown), "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        positive_int_or_percent(spec.at(field), &path.child(field), judge);
        at_most_all(spec.at(field), &path.child(field), judge);
    }
    if spec.has("unhealthyPodEvictionPolicy") {
        let policies = ["AlwaysAllow", "IfHealthyBudget"];
        one_of(spec.text("unhealthyPodEvictionPolicy"), &policies, &path.child("unhealthyPodEvictionPolicy"), judge);
    }
    selector::selector(spec.at("selector"), &path.child("selector"), judge);
}
