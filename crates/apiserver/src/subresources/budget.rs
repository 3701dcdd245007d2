//! Disruption budgets: an eviction takes one disruption from the budget that covers the pod, or is refused.
//!
//! Source of the rules and texts: `k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go`.

use serde_json::{Value, json};
use stead_admission::Lookup as _;
use stead_api::{Subresource, kinds};
use stead_machinery::ApiError;
use stead_machinery::selector::Selector;
use stead_machinery::status::Reason;

use crate::chain::Identity;
use crate::server::ApiServer;
use crate::verbs::Target;
use crate::verbs::update::Change;
use crate::verbs::write::seconds;

/// Pods that a budget remembers as being disrupted, at most (upstream's limit).
const DISRUPTED_PODS_MAX: usize = 2000;

/// Why a pod may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// No budget has anything against it, or one gave a disruption for it.
    Given,
    /// It does not work, so it is no loss: as long as that is so.
    NoLoss,
}

/// Takes one disruption for the pod.
///
/// # Errors
/// Too many requests (429) when the budget has none left, or has not seen the newest change yet.
pub(super) async fn spend(
    server: &ApiServer,
    target: &Target,
    pod: &Value,
    dry_run: bool,
    user: &Identity,
) -> Result<Leave, ApiError> {
    match pod["status"]["phase"].as_str() {
        _ if pod["metadata"]["deletionTimestamp"].is_string() => return Ok(Leave::Given),
        Some("Succeeded" | "Failed") => return Ok(Leave::Given),
        Some("Pending") => return Ok(Leave::NoLoss),
        _ => {}
    }
    let labels = &pod["metadata"]["labels"];
    let budgets = server.lookup().list("policy", "poddisruptionbudgets", Some(&target.namespace));
    let covers = |budget: &Value| {
        Selector::from_object(&budget["spec"]["selector"]).is_ok_and(|selector| selector.matches_labels(labels))
    };
    let mut covering = budgets.iter().filter(|budget| covers(budget));
    let Some(budget) = covering.next() else { return Ok(Leave::Given) };
    if covering.next().is_some() {
        let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(ApiError::internal(why));
    }
    if unhealthy_may_go(pod, budget) {
        return Ok(Leave::NoLoss);
    }
    let name = budget["metadata"]["name"].as_str().unwrap_or("").to_owned();
    let kind = kinds::by_resource("policy", "v1", "poddisruptionbudgets")
        .ok_or_else(|| ApiError::internal("there are no disruption budgets"))?;
    let of_budget = Target { kind, namespace: target.namespace.clone(), name };
    let change = Change { target: &of_budget, sub: Some(Subresource::Status), user, dry_run };
    change.run(server, &mut |budget| taken(budget, &target.name)).await?;
    Ok(Leave::Given)
}

/// A pod that is not ready may go without a disruption, when the budget says so or enough others are healthy.
fn unhealthy_may_go(pod: &Value, budget: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
    let number = |key: &str| budget["status"][key].as_i64().unwrap_or(0);
    let enough = number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
    !ready && (budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || enough)
}

/// The budget with one disruption less.
fn taken(budget: &Value, pod: &str) -> Result<Value, ApiError> {
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let status = &budget["status"];
    let name = budget["metadata"]["name"].as_str().unwrap_or("");
    let allowed = number(&status["disruptionsAllowed"]);
    if number(&status["observedGeneration"]) < number(&budget["metadata"]["generation"]) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(&why, Some(10)));
    }
    if allowed < 0 {
        return Err(forbidden(name, "pdb disruptions allowed is negative"));
    }
    if allowed == 0 {
        return Err(refused(&why_none(name, status), None));
    }
    if status["disruptedPods"].as_object().map_or(0, serde_json::Map::len) > DISRUPTED_PODS_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(forbidden(name, why));
    }
    let mut budget = budget.clone();
    budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
    budget["status"]["disruptedPods"][pod] = seconds(crate::source::now()).into();
    Ok(budget)
}

/// Why the budget has nothing left. When it could not be counted its numbers mean nothing.
fn why_none(name: &str, status: &Value) -> String {
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let allowed = conditions.into_iter().find(|condition| condition["type"] == "DisruptionAllowed");
    let told = allowed.filter(|c| c["status"] == "False").map(|c| (c["reason"].as_str(), c["message"].as_str()));
    let told = told.map(|(reason, message)| (reason.unwrap_or(""), message.unwrap_or("")));
    let none = format!("The disruption budget {name} does not allow evicting pods currently");
    let (needs, healthy) = (number("desiredHealthy"), number("currentHealthy"));
    match told.filter(|(_, message)| !message.is_empty()) {
        Some(("SyncFailed", message)) => format!("{none} because it failed sync: {message}"),
        _ if healthy <= needs => {
            format!("The disruption budget {name} needs {needs} healthy pods and has {healthy} currently")
        }
        Some((reason, message)) => format!("{none} ({reason}): {message}"),
        None => none,
    }
}

fn forbidden(name: &str, why: &str) -> ApiError {
    let mut error =
        ApiError::new(Reason::Forbidden, format!("poddisruptionbudget.policy {name:?} is forbidden: {why}"));
    let message = format!("The disruption budget {name} does not allow evicting pods currently: {why}");
    error.details = json!({
        "name": name, "group": "policy", "kind": "poddisruptionbudget",
        "causes": [{"reason": "DisruptionBudget", "message": message}],
    });
    error
}

fn refused(why: &str, retry_after: Option<u64>) -> ApiError {
    let mut error =
        ApiError::new(Reason::TooManyRequests, "Cannot evict pod as it would violate the pod's disruption budget.");
    error.details = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
    if let Some(seconds) = retry_after {
        error.details["retryAfterSeconds"] = seconds.into();
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_why() {
        let condition = |reason: &str, message: &str| json!([{"type": "DisruptionAllowed", "status": "False", "reason": reason, "message": message}]);
        for (healthy, needs, conditions, expected) in [
            (2, 2, json!(null), "needs 2 healthy pods and has 2 currently"),
            (1, 2, condition("InsufficientPods", ""), "needs 2 healthy pods and has 1 currently"),
            (1, 2, condition("SyncFailed", "x"), "does not allow evicting pods currently because it failed sync: x"),
            (3, 2, condition("Odd", "y"), "does not allow evicting pods currently (Odd): y"),
            (3, 2, json!(null), "does not allow evicting pods currently"),
        ] {
            let status = json!({"currentHealthy": healthy, "desiredHealthy": needs, "conditions": conditions});
            assert_eq!(why_none("b", &status), format!("The disruption budget b {expected}"));
        }
    }
}
