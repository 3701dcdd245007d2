//! The metrics of an autoscaler, one by one: what each asks for, or why it cannot be had.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, ContainerResourceMetricStatus, ExternalMetricSource, MetricSpec, MetricStatus,
    MetricTarget, MetricValueStatus, ObjectMetricSource, PodsMetricSource, ResourceMetricSource, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use stead_machinery::quantity::{Format, Quantity};

use super::replicas::{Answer, Question, Tolerances};
use super::{Observed, Scale};

/// There is no adapter for metrics of other kinds: upstream's words for a cluster without one.
const NO_CUSTOM_METRICS: &str =
    "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered";
const NO_EXTERNAL_METRICS: &str =
    "unable to fetch metrics from external metrics API: the server could not find the requested resource";

/// What a metric asks for.
pub(super) struct Proposal {
    pub replicas: i32,
    /// As reasons and conditions name it.
    pub name: String,
    pub status: MetricStatus,
}

/// Why a metric says nothing.
pub(super) struct Failure {
    /// Of the event and the condition.
    pub reason: &'static str,
    /// In the event and the condition.
    pub cause: String,
    /// In the error of the whole.
    pub message: String,
}

impl Failure {
    fn of(reason: &'static str, what: &str, cause: String) -> Self {
        let message = format!("failed to get {what} value: {cause}");
        Self { reason, cause, message }
    }
}

pub(super) fn judge(o: &Observed<'_>, scale: &Scale, spec: &MetricSpec) -> Result<Proposal, Failure> {
    match (spec.type_.as_str(), spec) {
        ("Resource", MetricSpec { resource: Some(source), .. }) => resource(o, scale, source),
        ("ContainerResource", MetricSpec { container_resource: Some(source), .. }) => {
            container_resource(o, scale, source)
        }
        ("Pods", MetricSpec { pods: Some(source), .. }) => Err(of_pods(source)),
        ("Object", MetricSpec { object: Some(source), .. }) => Err(of_object(o, source)),
        ("External", MetricSpec { external: Some(source), .. }) => Err(external(o, source)),
        (other, _) => {
            let cause = format!("unknown metric source type {other:?}");
            Err(Failure { reason: "InvalidMetricSourceType", message: cause.clone(), cause })
        }
    }
}

fn resource(o: &Observed<'_>, scale: &Scale, source: &ResourceMetricSource) -> Result<Proposal, Failure> {
    let name = &source.name;
    let failed = |cause| Failure::of("FailedGetResourceMetric", &format!("{name} resource metric"), cause);
    let (replicas, name, current) = use_of(o, scale, name, None, &source.target).map_err(failed)?;
    let resource = Some(ResourceMetricStatus { name: source.name.clone(), current });
    let status = MetricStatus { type_: "Resource".to_owned(), resource, ..MetricStatus::default() };
    Ok(Proposal { replicas, name, status })
}

fn container_resource(
    o: &Observed<'_>,
    scale: &Scale,
    source: &ContainerResourceMetricSource,
) -> Result<Proposal, Failure> {
    let ContainerResourceMetricSource { container, name, target } = source;
    let failed = |cause| Failure::of("FailedGetContainerResourceMetric", &format!("{name} container metric"), cause);
    let (replicas, told, current) = use_of(o, scale, name, Some(container), target).map_err(failed)?;
    let status = ContainerResourceMetricStatus { container: container.clone(), name: name.clone(), current };
    let type_ = "ContainerResource".to_owned();
    let status = MetricStatus { type_, container_resource: Some(status), ..MetricStatus::default() };
    Ok(Proposal { replicas, name: told, status })
}

/// Replicas, name of the metric, and the present value, by how much of a resource is in use.
fn use_of(
    o: &Observed<'_>,
    scale: &Scale,
    resource: &str,
    container: Option<&str>,
    target: &MetricTarget,
) -> Result<(i32, String, MetricValueStatus), String> {
    let question =
        Question { observed: o, current: scale.spec_replicas, resource, container, tolerances: tolerances(o) };
    if let Some(wanted) = &target.average_value {
        let answer =
            question.by_average(milli(wanted)).map_err(|why| format!("failed to get {resource} usage: {why}"))?;
        let current = MetricValueStatus { average_value: Some(average(&answer)), ..MetricValueStatus::default() };
        return Ok((answer.replicas, format!("{resource} resource"), current));
    }
    let Some(percent) = target.average_utilization else {
        return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned());
    };
    let answer =
        question.by_utilization(percent).map_err(|why| format!("failed to get {resource} utilization: {why}"))?;
    let current = MetricValueStatus {
        average_utilization: Some(answer.utilization),
        average_value: Some(average(&answer)),
        ..MetricValueStatus::default()
    };
    let kind = if container.is_some() { "container resource" } else { "resource" };
    Ok((answer.replicas, format!("{resource} {kind} utilization (percentage of request)"), current))
}

fn average(answer: &Answer) -> Amount {
    Amount(Quantity::from_milli(answer.average, Format::DecimalSi).to_string())
}

fn milli(amount: &Amount) -> i64 {
    amount.0.parse::<Quantity>().map_or(0, |quantity| quantity.milli_value())
}

/// Those of the autoscaler's behavior, or those of all.
fn tolerances(o: &Observed<'_>) -> Tolerances {
    let behavior = o.autoscaler.spec.behavior.as_ref();
    let of = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
        let own = rules.and_then(|rules| rules.tolerance.as_ref()?.0.parse::<Quantity>().ok());
        own.map_or(o.settings.tolerance, |own| own.to_f64())
    };
    Tolerances {
        up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
    }
}

fn of_pods(source: &PodsMetricSource) -> Failure {
    let cause = format!("unable to get metric {}: {NO_CUSTOM_METRICS}", source.metric.name);
    Failure::of("FailedGetPodsMetric", "pods metric", cause)
}

fn of_object(o: &Observed<'_>, source: &ObjectMetricSource) -> Failure {
    let namespace = o.autoscaler.metadata.namespace.as_deref().unwrap_or_default();
    let of = &source.described_object;
    // Upstream fills this sentence in the wrong order; so does its text here.
    let cause = format!(
        "unable to get metric {}: {} on {namespace} {}/{NO_CUSTOM_METRICS}",
        source.metric.name, of.kind, of.name
    );
    Failure::of("FailedGetObjectMetric", "object metric", cause)
}

fn external(o: &Observed<'_>, source: &ExternalMetricSource) -> Failure {
    let namespace = o.autoscaler.metadata.namespace.as_deref().unwrap_or_default();
    let name = &source.metric.name;
    let reason = "FailedGetExternalMetric";
    if source.target.average_value.is_none() && source.target.value.is_none() {
        let cause =
            "invalid external metric source: neither a value target nor an average value target was set".to_owned();
        return Failure::of(reason, &format!("{name} external metric"), cause);
    }
    let selector = go_selector(source.metric.selector.as_ref());
    let cause = format!(
        "unable to get external metric {namespace}/{name}/{selector}: {NO_EXTERNAL_METRICS} (get {name}.external.metrics.k8s.io)"
    );
    let message = format!("failed to get {name} external metric value: failed to get {name} external metric: {cause}");
    Failure { reason, cause, message }
}

/// As Go shows a label selector.
fn go_selector(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels: String =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},")).collect();
    let expressions: String = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|one| {
            let values = one.values.clone().unwrap_or_default().join(" ");
            format!("{{{} {} [{values}]}},", one.key, one.operator)
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}
