//! Why a HorizontalPodAutoscaler does not scale: its conditions, and what mends their causes.

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition};

use crate::finding::{Finding, Report};
use crate::mend::quoted;
use crate::snapshot::{Snapshot, name};

pub(crate) fn report(snapshot: &Snapshot, autoscaler: &HorizontalPodAutoscaler) -> Report {
    let object = format!("horizontalpodautoscaler/{}", name(&autoscaler.metadata));
    let status = autoscaler.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let mut findings: Vec<Finding> =
        conditions.iter().filter_map(|condition| told(snapshot, autoscaler, &object, condition)).collect();
    if conditions.is_empty() {
        let what = "it has not been looked at yet: that happens every 15 seconds";
        findings.push(Finding::new("NotLookedAt", &object, what).waiting());
    }
    let (has, most) = (status.current_replicas.unwrap_or(0), autoscaler.spec.max_replicas);
    let least = autoscaler.spec.min_replicas.unwrap_or(1);
    let headline = format!("{} has {has} replicas, of {least} to {most}", target(autoscaler));
    Report { object, headline, findings }
}

/// `statefulset/web`.
fn target(autoscaler: &HorizontalPodAutoscaler) -> String {
    let of = &autoscaler.spec.scale_target_ref;
    format!("{}/{}", of.kind.to_lowercase(), of.name)
}

fn told(
    snapshot: &Snapshot,
    autoscaler: &HorizontalPodAutoscaler,
    object: &str,
    condition: &HorizontalPodAutoscalerCondition,
) -> Option<Finding> {
    let reason = condition.reason.as_deref().unwrap_or_default();
    let message = condition.message.as_deref().unwrap_or_default();
    let source = format!("condition {} {reason}", condition.type_);
    match (condition.type_.as_str(), condition.status.as_str()) {
        ("AbleToScale", "False") => Some(
            Finding::new("CannotScale", object, format!("{} cannot be scaled", target(autoscaler)))
                .seen(source, message)
                .advice("name what is there in spec.scaleTargetRef: apiVersion, kind and name"),
        ),
        ("ScalingActive", "False") if reason == "ScalingDisabled" => Some(
            Finding::new("ScalingDisabled", object, "its target has no replicas: that turns it off")
                .note()
                .seen(source, message)
                .mended_by(
                    "to turn it on, give the target a replica",
                    format!("{} scale {} --replicas=1", snapshot.kubectl(), quoted(&target(autoscaler))),
                ),
        ),
        ("ScalingActive", "False") => Some(inactive(snapshot, autoscaler, object, message).seen(source, message)),
        ("ScalingLimited", "True") if reason == "TooManyReplicas" => Some(
            Finding::new("AtMaximum", object, "its metrics ask for more replicas than it may have")
                .note()
                .seen(source, message),
        ),
        _ => None,
    }
}

/// No metric says anything.
fn inactive(snapshot: &Snapshot, autoscaler: &HorizontalPodAutoscaler, object: &str, message: &str) -> Finding {
    let finding = |rule, what: &str| Finding::new(rule, object, what);
    if let Some(rest) = message.split("missing request for ").nth(1)
        && let Some((resource, rest)) = rest.split_once(" in container ")
        && let Some((container, _)) = rest.split_once(" of Pod ")
    {
        let set = format!(
            "{} set resources {} -c {} --requests={}=AMOUNT",
            snapshot.kubectl(),
            quoted(&target(autoscaler)),
            quoted(container),
            quoted(resource)
        );
        let what =
            format!("a share of what is requested is asked for, and container {container} requests no {resource}");
        return finding("NoRequest", &what).mended_by(format!("say how much {resource} it requests"), set);
    }
    if message.contains("controlled by multiple HPAs") {
        return finding("Ambiguous", "its pods belong to more than one autoscaler, so none of them acts")
            .advice("delete all but one of them, or give their targets selectors that do not overlap");
    }
    if message.contains("no pods returned")
        || message.contains("did not receive metrics")
        || message.contains("no metrics returned")
    {
        return finding(
            "NoFigures",
            "there are no figures of its pods: they are not ready, or younger than a window of measurement",
        )
        .waiting();
    }
    finding("NoMetric", "none of its metrics can be had")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Listed, Severity, Target, explain};

    /// Type, status, reason, message of a condition | rule and how bad it is | the mend.
    #[test]
    fn conditions_are_followed_to_their_mend() {
        for (condition, rule, severity, mend) in [
            (None, Some("NotLookedAt"), Severity::Waiting, ""),
            (Some(("AbleToScale", "True", "ReadyForNewScale", "fine")), None, Severity::Note, ""),
            (
                Some(("AbleToScale", "False", "FailedGetScale", "statefulsets.apps \"web\" not found")),
                Some("CannotScale"),
                Severity::Fault,
                "",
            ),
            (
                Some((
                    "ScalingActive",
                    "False",
                    "FailedGetResourceMetric",
                    "failed to get cpu utilization: missing request for cpu in container main of Pod web-0",
                )),
                Some("NoRequest"),
                Severity::Fault,
                "kubectl -n ns set resources statefulset/web -c main --requests=cpu=AMOUNT",
            ),
            (
                Some((
                    "ScalingActive",
                    "False",
                    "FailedGetResourceMetric",
                    "did not receive metrics for targeted pods (pods might be unready)",
                )),
                Some("NoFigures"),
                Severity::Waiting,
                "",
            ),
            (
                Some(("ScalingActive", "False", "ScalingDisabled", "scaling is disabled")),
                Some("ScalingDisabled"),
                Severity::Note,
                "kubectl -n ns scale statefulset/web --replicas=1",
            ),
            (Some(("ScalingLimited", "True", "TooManyReplicas", "more")), Some("AtMaximum"), Severity::Note, ""),
            (
                Some(("ScalingActive", "False", "FailedGetPodsMetric", "no adapter")),
                Some("NoMetric"),
                Severity::Fault,
                "",
            ),
        ] {
            let conditions: Vec<Value> = condition
                .iter()
                .map(|(kind, status, reason, message)| json!({"type": kind, "status": status, "reason": reason, "message": message}))
                .collect();
            let object = json!({
                "metadata": {"name": "web"},
                "spec": {"maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web"}},
                "status": {"currentReplicas": 2, "desiredReplicas": 2, "conditions": conditions},
            });
            let object = serde_json::from_value(object).expect("an autoscaler");
            let autoscalers = Listed(Some([("web".to_owned(), object)].into()));
            let snapshot = Snapshot { namespace: "ns".to_owned(), autoscalers, ..Snapshot::default() };
            let report = explain(&snapshot, &Target::Autoscaler("web".to_owned())).expect("a report");
            assert_eq!(report.headline, "statefulset/web has 2 replicas, of 1 to 5");
            let first = report.findings.first();
            assert_eq!(first.map(|finding| finding.rule), rule, "{condition:?}");
            assert_eq!(first.map_or(Severity::Note, |finding| finding.severity), severity, "{condition:?}");
            let command = first.and_then(|finding| finding.mend.first()?.command.clone()).unwrap_or_default();
            assert_eq!(command, mend, "{condition:?}");
        }
    }
}
