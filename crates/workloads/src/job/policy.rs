//! `spec.podFailurePolicy`: what a failed pod means.
//!
//! Source: `pkg/controller/job/pod_failure_policy.go`.

use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::Pod;

/// What a failed pod means for its Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts towards the back-off limit.
    Count,
    /// It does not count.
    Ignore,
    /// Its index has failed for good.
    FailIndex,
    /// The whole Job has failed; why.
    FailJob(String),
}

/// The first rule that matches decides; without one the pod counts.
pub(super) fn judge(spec: &JobSpec, pod: &Pod) -> Verdict {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules).enumerate();
    for (n, rule) in rules {
        let Some(what) = matched(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" if spec.backoff_limit_per_index.is_some() => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{what} matching FailJob rule at index {n}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// What of the pod meets the rule, in upstream's words.
fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let name = format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name));
    if let Some(codes) = &rule.on_exit_codes {
        let (container, code) = exit_code(codes, pod)?;
        return Some(format!("Container {container} for pod {name} failed with exit code {code}"));
    }
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let patterns = rule.on_pod_conditions.iter().flatten();
    let meets = |kind: &str, state: &str| {
        let pattern = |p: &&k8s_openapi::api::batch::v1::PodFailurePolicyOnPodConditionsPattern| {
            p.type_ == kind && p.status.as_deref().unwrap_or("True") == state
        };
        patterns.clone().any(|p| pattern(&p))
    };
    let condition = conditions.into_iter().find(|condition| meets(&condition.type_, &condition.status))?;
    Some(format!("Pod {name} has condition {}", condition.type_))
}

/// The first container that ended with a code the rule speaks of. Success never matches.
fn exit_code<'a>(rule: &PodFailurePolicyOnExitCodesRequirement, pod: &'a Pod) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let named = all.filter(|status| rule.container_name.as_ref().is_none_or(|name| *name == status.name));
    let mut ended = named.filter_map(|status| {
        let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
        Some((status.name.as_str(), code)).filter(|_| code != 0)
    });
    ended.find(|(_, code)| rule.values.contains(code) == (rule.operator == "In"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn verdict(rules: Value) -> Verdict {
        let spec: JobSpec = serde_json::from_value(json!({
            "template": {}, "backoffLimitPerIndex": 1, "podFailurePolicy": {"rules": rules},
        }))
        .expect("a spec");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "p"},
            "status": {
                "conditions": [{"type": "DisruptionTarget", "status": "True"}],
                "containerStatuses": [
                    {"name": "side", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0}}},
                    {"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 42}}},
                ],
            },
        }))
        .expect("a pod");
        judge(&spec, &pod)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let codes = |action: &str, operator: &str, values: &[i32]| json!({"action": action, "onExitCodes": {"operator": operator, "values": values}});
        let disrupted = |action: &str| json!({"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
        assert_eq!(verdict(json!([])), Verdict::Count);
        assert_eq!(verdict(json!([codes("Ignore", "In", &[1]), disrupted("FailIndex")])), Verdict::FailIndex);
        assert_eq!(verdict(json!([disrupted("Ignore"), codes("FailJob", "In", &[42])])), Verdict::Ignore);
        assert_eq!(
            verdict(json!([codes("Count", "NotIn", &[42]), codes("FailJob", "In", &[42])])),
            Verdict::FailJob(
                "Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 1".to_owned()
            )
        );
        assert_eq!(
            verdict(json!([disrupted("FailJob")])),
            Verdict::FailJob("Pod ns/p has condition DisruptionTarget matching FailJob rule at index 0".to_owned())
        );
    }
}
