//! What a HorizontalPodAutoscaler should do next: how many replicas its target gets, and what its status says.
//!
//! Behaviour and texts are those of upstream's `pkg/controller/podautoscaler` at Kubernetes 1.37. Upstream remembers
//! recommendations and scalings in the controller; here that memory is data that goes into a plan and comes out of it.

mod behavior;
mod figures;
mod metrics;
mod replicas;
mod status;
#[cfg(test)]
mod stories;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use stead_machinery::selector::Selector;

pub use behavior::History;
pub use figures::{Figures, read_figures};
use metrics::{Failure, Proposal};
use status::Conditions;

/// How often each autoscaler looks (`--horizontal-pod-autoscaler-sync-period`).
pub const SYNC_PERIOD: SignedDuration = SignedDuration::from_secs(15);
const FAILED_GET_SCALE: &str = "FailedGetScale";

/// What holds for all autoscalers; the defaults are upstream's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// A change below this share is left undone (`--horizontal-pod-autoscaler-tolerance`).
    pub tolerance: f64,
    /// CPU of a pod this young may be that of its start (`--horizontal-pod-autoscaler-cpu-initialization-period`).
    pub cpu_initialization: SignedDuration,
    /// A pod that is not ready and has not been since this long after its start never was
    /// (`--horizontal-pod-autoscaler-initial-readiness-delay`).
    pub initial_readiness: SignedDuration,
    /// How long the highest recommendation holds (`--horizontal-pod-autoscaler-downscale-stabilization`).
    pub downscale_stabilization: SignedDuration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tolerance: 0.1,
            cpu_initialization: SignedDuration::from_mins(5),
            initial_readiness: SignedDuration::from_secs(30),
            downscale_stabilization: SignedDuration::from_mins(5),
        }
    }
}

/// The scale of the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    pub spec_replicas: i32,
    pub status_replicas: i32,
    /// As text; empty when there is none.
    pub selector: String,
}

/// What the decision may look at.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    pub autoscaler: &'a HorizontalPodAutoscaler,
    /// Or why it could not be read.
    pub scale: Result<&'a Scale, &'a str>,
    /// The pods that the scale's selector matches.
    pub pods: &'a [Arc<Pod>],
    /// What those pods use; or why the Metrics API does not say.
    pub figures: Result<&'a [Figures], &'a str>,
    /// Names of the autoscalers of this namespace that these pods belong to, this one among them.
    pub claimants: &'a [String],
    pub history: &'a History,
    pub settings: &'a Settings,
    pub now: Timestamp,
}

/// What happened, for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Happening {
    fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, message: message.into() }
    }
}

/// A new number of replicas for the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescale {
    pub from: i32,
    pub to: i32,
    pub why: String,
}

/// What to do, in this order: tell, rescale (then [`Plan::rescaled`] or [`Plan::failed`]), publish the status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub happenings: Vec<Happening>,
    pub rescale: Option<Rescale>,
    pub status: HorizontalPodAutoscalerStatus,
    /// To be kept for the next plan.
    pub history: History,
    /// The reconciliation counts as failed.
    pub error: Option<String>,
}

impl Plan {
    /// The target was rescaled.
    pub fn rescaled(&mut self, autoscaler: &HorizontalPodAutoscaler, now: Timestamp) {
        let Some(Rescale { from, to, why }) = self.rescale.take() else { return };
        let text = format!("the HPA controller was able to update the target scale to {to}");
        let mut conditions = Conditions::of(&self.status, now);
        conditions.set("AbleToScale", true, "SucceededRescale", text);
        self.status.conditions = conditions.done();
        self.status.last_scale_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(status::whole(now)));
        let message = format!("New size: {to}; reason: {why}");
        self.happenings.push(Happening { warning: false, reason: "SuccessfulRescale", message });
        self.history.scaled(autoscaler.spec.behavior.as_ref(), from, to, now);
    }

    /// The target could not be rescaled.
    pub fn failed(&mut self, autoscaler: &HorizontalPodAutoscaler, error: &str, now: Timestamp) {
        let Some(Rescale { from, to, why }) = self.rescale.take() else { return };
        let message = format!("New size: {to}; reason: {why}; error: {error}");
        self.happenings.push(Happening::warning("FailedRescale", message));
        let mut conditions = Conditions::of(&self.status, now);
        let text = format!("the HPA controller was unable to update the target scale: {error}");
        conditions.set("AbleToScale", false, "FailedUpdateScale", text);
        let before = autoscaler.status.clone().unwrap_or_default();
        self.status = HorizontalPodAutoscalerStatus {
            conditions: conditions.done(),
            current_replicas: status::count(from),
            ..before
        };
        self.error = Some(format!("failed to rescale: {error}"));
    }
}

/// What the metrics come to.
struct Outcome {
    replicas: i32,
    /// The metric that asks for the most.
    metric: String,
    statuses: Vec<MetricStatus>,
}

/// Decides.
#[must_use]
pub fn plan(o: &Observed<'_>) -> Plan {
    let before = o.autoscaler.status.clone().unwrap_or_default();
    let mut plan = Plan { history: o.history.clone(), ..Plan::default() };
    let mut conditions = Conditions::of(&before, o.now);
    let scale = match o.scale {
        Ok(scale) => scale,
        Err(why) => {
            plan.happenings.push(Happening::warning(FAILED_GET_SCALE, why));
            let text = format!("the HPA controller was unable to get the target's current scale: {why}");
            conditions.set("AbleToScale", false, FAILED_GET_SCALE, text);
            plan.status = HorizontalPodAutoscalerStatus { conditions: conditions.done(), ..before };
            plan.error = Some(why.to_owned());
            return plan;
        }
    };
    let text = "the HPA controller was able to get the target's current scale";
    conditions.set("AbleToScale", true, "SucceededGetScale", text);
    let current = scale.spec_replicas;
    plan.history.begin(current, o.now);
    let (least, most) = (o.autoscaler.spec.min_replicas.unwrap_or(1), o.autoscaler.spec.max_replicas);
    let mut statuses = Vec::new();
    let (wanted, why) = if current == 0 && least != 0 {
        let text = "scaling is disabled since the replica count of the target is zero";
        conditions.set("ScalingActive", false, "ScalingDisabled", text);
        (current, String::new())
    } else if current > most {
        (most, "Current number of replicas above Spec.MaxReplicas".to_owned())
    } else if current < least {
        (least, "Current number of replicas below Spec.MinReplicas".to_owned())
    } else {
        let proposed = match judge_metrics(o, scale, &mut conditions, &mut plan) {
            Ok(outcome) => outcome,
            Err((statuses, error)) => {
                plan.happenings.push(Happening::warning("FailedComputeMetricsReplicas", error.clone()));
                plan.status = HorizontalPodAutoscalerStatus {
                    conditions: conditions.done(),
                    current_replicas: status::count(current),
                    current_metrics: status::metrics(statuses),
                    ..before
                };
                plan.error = Some(error);
                return plan;
            }
        };
        statuses = proposed.statuses;
        let why = match proposed.replicas.cmp(&current) {
            std::cmp::Ordering::Greater => format!("{} above target", proposed.metric),
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            std::cmp::Ordering::Equal => String::new(),
        };
        let bounds = behavior::Bounds { current, least, most };
        (behavior::normalize(o, bounds, proposed.replicas, &mut plan.history, &mut conditions), why)
    };
    plan.status = HorizontalPodAutoscalerStatus {
        conditions: conditions.done(),
        current_metrics: status::metrics(statuses),
        current_replicas: status::count(current),
        desired_replicas: wanted,
        last_scale_time: before.last_scale_time,
        observed_generation: before.observed_generation,
    };
    plan.rescale = (wanted != current).then_some(Rescale { from: current, to: wanted, why });
    plan
}

/// The most that any metric asks for. When some cannot be had the others may still scale up, but not down.
fn judge_metrics(
    o: &Observed<'_>,
    scale: &Scale,
    conditions: &mut Conditions,
    plan: &mut Plan,
) -> Result<Outcome, (Vec<MetricStatus>, String)> {
    check_selector(o, scale, conditions, plan).map_err(|error| (Vec::new(), error))?;
    let specs: &[MetricSpec] = o.autoscaler.spec.metrics.as_deref().unwrap_or_default();
    let mut statuses = Vec::new();
    let mut best: Option<(i32, String)> = None;
    let mut failures: Vec<Failure> = Vec::new();
    for spec in specs {
        match metrics::judge(o, scale, spec) {
            Ok(Proposal { replicas, name, status }) => {
                if best.as_ref().is_none_or(|(most, _)| replicas > *most) {
                    best = Some((replicas, name));
                }
                statuses.push(status);
            }
            Err(failure) => {
                plan.happenings.push(Happening::warning(failure.reason, failure.cause.clone()));
                // A metric that says nothing keeps its place.
                statuses.push(MetricStatus::default());
                failures.push(failure);
            }
        }
    }
    let replicas = best.as_ref().map_or(0, |(replicas, _)| *replicas);
    if let Some(first) = failures.first()
        && (failures.len() >= specs.len() || replicas < scale.spec_replicas)
    {
        let text = format!("the HPA was unable to compute the replica count: {}", first.cause);
        conditions.set("ScalingActive", false, first.reason, text);
        let (bad, all) = (failures.len(), specs.len());
        return Err((
            statuses,
            format!("invalid metrics ({bad} invalid out of {all}), first error is: {}", first.message),
        ));
    }
    let metric = best.map(|(_, name)| name).unwrap_or_default();
    let text = format!("the HPA was able to successfully calculate a replica count from {metric}");
    conditions.set("ScalingActive", true, "ValidMetricFound", text);
    Ok(Outcome { replicas, metric, statuses })
}

fn check_selector(o: &Observed<'_>, scale: &Scale, conditions: &mut Conditions, plan: &mut Plan) -> Result<(), String> {
    if scale.selector.is_empty() {
        let text = "selector is required";
        plan.happenings.push(Happening::warning("SelectorRequired", text));
        conditions.set("ScalingActive", false, "InvalidSelector", "the HPA target's scale is missing a selector");
        return Err(text.to_owned());
    }
    if let Err(why) = Selector::parse(&scale.selector) {
        let text = format!("couldn't convert selector into a corresponding internal selector object: {why}");
        plan.happenings.push(Happening::warning("InvalidSelector", text.clone()));
        conditions.set("ScalingActive", false, "InvalidSelector", text.clone());
        return Err(text);
    }
    if o.claimants.len() > 1 {
        let namespace = o.autoscaler.metadata.namespace.as_deref().unwrap_or_default();
        // As Go shows the list.
        let all: Vec<String> = o.claimants.iter().map(|name| format!("{{{name} {namespace}}}")).collect();
        let text = format!("pods by selector {} are controlled by multiple HPAs: [{}]", scale.selector, all.join(" "));
        plan.happenings.push(Happening::warning("AmbiguousSelector", text.clone()));
        conditions.set("ScalingActive", false, "AmbiguousSelector", text.clone());
        return Err(text);
    }
    Ok(())
}
