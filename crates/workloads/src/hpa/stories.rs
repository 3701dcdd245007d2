//! Stories of autoscalers: second | replicas: pods | what the plan says.
//!
//! A pod is its use in percent of its request (which is one core): `80`. A letter behind it: `u` not ready, `n` ready since a
//! moment, `p` pending, `x` on its way out. `?` is a pod that nothing is known of. What the plan says: `stay` or `to N`, then
//! the reason of `ScalingLimited` where it holds, that of `AbleToScale` where it is a stabilization, and the reasons of warnings.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Figures, History, Observed, Plan, Scale, Settings, plan};

const START: i64 = 1_700_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).expect("in range")
}

fn autoscaler(more: &Value) -> HorizontalPodAutoscaler {
    let mut spec = json!({
        "minReplicas": 1, "maxReplicas": 10, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let object = json!({"metadata": {"name": "web", "namespace": "a", "uid": "u"}, "spec": spec});
    serde_json::from_value(object).expect("an autoscaler")
}

/// A pod of an hour, but for the letters.
fn pod(name: &str, letter: &str, now: i64) -> Pod {
    let (phase, ready) = match letter {
        "p" => ("Pending", "False"),
        "u" => ("Running", "False"),
        _ => ("Running", "True"),
    };
    let started = if letter == "n" { now - 20 } else { now - 3600 };
    let changed = if letter == "n" { now - 5 } else { started + 1 };
    let containers = json!([{"name": "main", "resources": {"requests": {"cpu": "1", "memory": "100"}}}]);
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "a", "deletionTimestamp": (letter == "x").then(|| at(now).to_string())},
        "spec": {"containers": containers},
        "status": {
            "phase": phase, "startTime": at(started).to_string(),
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": at(changed).to_string()}],
        },
    }))
    .expect("a pod")
}

fn figures(name: &str, percent: i64, now: i64) -> Figures {
    let usage = [("cpu".to_owned(), percent * 10), ("memory".to_owned(), percent * 1000)].into();
    Figures {
        namespace: "a".to_owned(),
        pod: name.to_owned(),
        timestamp: at(now),
        window: SignedDuration::from_secs(15),
        containers: [("main".to_owned(), usage)].into(),
    }
}

struct World {
    autoscaler: HorizontalPodAutoscaler,
    history: History,
    settings: Settings,
}

impl World {
    fn new(spec: &Value) -> Self {
        Self { autoscaler: autoscaler(spec), history: History::default(), settings: Settings::default() }
    }

    fn step(&mut self, now: i64, replicas: i32, words: &str) -> Plan {
        let (mut pods, mut used) = (Vec::new(), Vec::new());
        for (number, word) in words.split_whitespace().enumerate() {
            let name = format!("web-{number}");
            let letter = word.trim_start_matches(|c: char| c.is_ascii_digit());
            if let Ok(percent) = word.trim_end_matches(letter).parse() {
                used.push(figures(&name, percent, now));
            }
            pods.push(Arc::new(pod(&name, letter, now)));
        }
        let scale = Scale { spec_replicas: replicas, status_replicas: replicas, selector: "app=web".to_owned() };
        let observed = Observed {
            autoscaler: &self.autoscaler,
            scale: Ok(&scale),
            pods: &pods,
            figures: Ok(&used),
            claimants: &["web".to_owned()],
            history: &self.history,
            settings: &self.settings,
            now: at(now),
        };
        let mut plan = plan(&observed);
        let told = plan.clone();
        plan.rescaled(&self.autoscaler, at(now));
        self.history = plan.history.clone();
        self.autoscaler.status = Some(plan.status);
        told
    }
}

fn condition(status: &HorizontalPodAutoscalerStatus, kind: &str) -> Option<(bool, String)> {
    let found = status.conditions.iter().flatten().find(|condition| condition.type_ == kind)?;
    Some((found.status == "True", found.reason.clone().unwrap_or_default()))
}

fn told(plan: &Plan) -> String {
    let mut words = vec![plan.rescale.as_ref().map_or("stay".to_owned(), |rescale| format!("to {}", rescale.to))];
    words.extend(
        condition(&plan.status, "ScalingLimited")
            .filter(|(holds, _)| *holds && plan.error.is_none())
            .map(|(_, why)| why),
    );
    words.extend(condition(&plan.status, "AbleToScale").map(|(_, why)| why).filter(|why| why.ends_with("Stabilized")));
    words.extend(plan.happenings.iter().map(|one| one.reason.to_owned()));
    words.join(" ")
}

#[track_caller]
fn check_in(mut world: World, table: &str) {
    let (mut actual, mut expected) = (String::new(), String::new());
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [second, state, answer] = cells[..] else { panic!("three cells: {line}") };
        let (replicas, pods) = state.split_once(':').expect("replicas: pods");
        let plan = world.step(second.parse().expect("a second"), replicas.parse().expect("a number"), pods);
        actual += &format!("{second:>4} | {state:<24} | {}\n", told(&plan));
        expected += &format!("{second:>4} | {state:<24} | {answer}\n");
    }
    assert!(actual == expected, "\n--- expected ---\n{expected}\n--- actual ---\n{actual}");
}

#[track_caller]
fn check(spec: &Value, table: &str) {
    check_in(World::new(spec), table);
}

#[test]
fn grows_with_use_and_leaves_small_changes_undone() {
    check(
        &json!({}),
        "0  | 2: 50 50    | stay
         15 | 2: 55 55    | stay
         30 | 2: 57 57    | to 3
         45 | 3: 80 80 80 | to 5
         60 | 5: 44 46 45 45 46 | stay",
    );
}

#[test]
fn at_most_doubles_without_a_behavior_and_stays_within_its_bounds() {
    check(
        &json!({"maxReplicas": 9, "minReplicas": 2}),
        "0  | 1: 10                | to 2
         15 | 3: 500 500 500       | to 6 ScaleUpLimit
         30 | 5: 100 100 100 100 100 | to 9 TooManyReplicas ScaleDownStabilized
         45 | 12: 1                | to 9 TooManyReplicas
         60 | 0:                   | stay TooManyReplicas",
    );
}

#[test]
fn shrinks_to_the_highest_recommendation_of_five_minutes() {
    check(
        &json!({}),
        "0   | 4: 50 50 50 50 | stay
         15  | 4: 10 10 10 10 | stay ScaleDownStabilized
         299 | 4: 20 20 20 20 | stay ScaleDownStabilized
         301 | 4: 10 10 10 10 | to 2 ScaleDownStabilized
         620 | 2: 10 10       | to 1",
    );
}

#[test]
fn what_is_not_known_argues_against_every_change() {
    check(
        &json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}, "scaleUp": {
            "stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 900, "periodSeconds": 15}]}}}),
        // Missing pods count as fully used when shrinking, as idle when growing.
        "0   | 3: 10 10 ?     | stay
         15  | 4: 10 10 10 ?  | to 3
         30  | 3: 150 150 ?   | to 6
         45  | 3: 60 60 ?     | stay
         60  | 2: 75 75u      | stay
         75  | 2: 150 90p     | to 3
         90  | 2: 150 150x    | to 3
         105 | 2: 20 99u      | to 1
         120 | 2: 20u 20p     | stay FailedGetResourceMetric FailedComputeMetricsReplicas
         135 | 2: ? ?         | stay FailedGetResourceMetric FailedComputeMetricsReplicas
         150 | 2:             | stay FailedGetResourceMetric FailedComputeMetricsReplicas",
    );
}

#[test]
fn cpu_of_a_pod_that_starts_does_not_count_until_a_window_has_passed() {
    check(
        &json!({}),
        "0 | 2: 50 300n | stay
         9 | 2: 80 300n | stay",
    );
    let memory = json!({"metrics": [{"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "Utilization", "averageUtilization": 50}}}]});
    check(&memory, "0 | 2: 50 300n | to 4 ScaleUpLimit");
}

#[test]
fn policies_pace_growth_and_shrinking() {
    let behavior = json!({"behavior": {
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
            {"type": "Pods", "value": 2, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}]},
        "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [
            {"type": "Pods", "value": 1, "periodSeconds": 30}, {"type": "Percent", "value": 50, "periodSeconds": 30}]},
    }});
    check(
        &behavior,
        "0   | 2: 200 200             | to 4 ScaleUpLimit
         15  | 4: 200 200 200 200     | stay ScaleUpLimit
         61  | 4: 200 200 200 200     | to 6 ScaleUpLimit
         76  | 6: 10 10 10 10 10 10   | to 3 ScaleDownLimit
         80  | 3: 10 10 10            | stay ScaleDownLimit
         200 | 3: 10 10 10            | to 2 ScaleDownLimit",
    );
}

#[test]
fn a_direction_can_be_disabled() {
    let behavior = json!({"behavior": {
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Disabled", "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15}]},
    }});
    check(&behavior, "0 | 4: 1 1 1 1 | stay ScaleDownLimit\n15 | 2: 90 90 | to 4");
}

#[test]
fn growth_waits_for_its_window() {
    let behavior = json!({"behavior": {
        "scaleUp": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 300, "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
    }});
    check(
        &behavior,
        "0   | 2: 50 50   | stay
         30  | 2: 100 100 | stay ScaleUpStabilized
         59  | 2: 100 100 | stay ScaleUpStabilized
         61  | 2: 100 100 | to 4",
    );
}

#[test]
fn a_behavior_may_have_tolerances_of_its_own() {
    let behavior = json!({"behavior": {
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "tolerance": "20m",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "tolerance": "500m",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
    }});
    check(&behavior, "0 | 2: 52 52 | to 3\n15 | 4: 26 26 26 26 | stay\n30 | 4: 24 24 24 24 | to 2");
}

fn metric(kind: &str, source: Value) -> Value {
    let key = format!("{}{}", kind[..1].to_lowercase(), &kind[1..]);
    let mut metric = json!({"type": kind});
    metric[key] = source;
    metric
}

#[test]
fn averages_and_single_containers() {
    let average =
        metric("Resource", json!({"name": "cpu", "target": {"type": "AverageValue", "averageValue": "500m"}}));
    check(&json!({"metrics": [average]}), "0 | 2: 100 60 | to 4");
    check(&json!({"metrics": [average]}), "0 | 2: 100 ? | stay");
    let target = json!({"type": "Utilization", "averageUtilization": 50});
    let container =
        |name: &str| metric("ContainerResource", json!({"name": "cpu", "container": name, "target": target}));
    check(&json!({"metrics": [container("main")]}), "0 | 2: 100 100 | to 4");
    check(
        &json!({"metrics": [container("nothere")]}),
        "0 | 2: 100 100 | stay FailedGetContainerResourceMetric FailedComputeMetricsReplicas",
    );
}

#[test]
fn a_metric_that_cannot_be_had_forbids_shrinking_only() {
    let target = json!({"type": "Utilization", "averageUtilization": 50});
    let cpu = metric("Resource", json!({"name": "cpu", "target": target}));
    let requests = json!({"metric": {"name": "requests"}, "target": {"type": "AverageValue", "averageValue": "10"}});
    let both = json!({"metrics": [cpu, metric("Pods", requests)]});
    check(
        &both,
        "0  | 2: 90 90 | to 4 FailedGetPodsMetric
         15 | 4: 10 10 10 10 | stay FailedGetPodsMetric FailedComputeMetricsReplicas",
    );
}

/// The text of the first warning, and that of the condition and of the last warning.
fn texts(spec: &Value) -> [String; 3] {
    let plan = World::new(spec).step(0, 2, "60 60");
    let active = plan.status.conditions.iter().flatten().find(|condition| condition.type_ == "ScalingActive");
    let message = |at: Option<&super::Happening>| at.map(|one| one.message.clone()).unwrap_or_default();
    [
        message(plan.happenings.first()),
        active.and_then(|condition| condition.message.clone()).unwrap_or_default(),
        message(plan.happenings.last()),
    ]
}

#[test]
fn metrics_without_an_adapter_are_told_in_upstreams_words() {
    let none =
        "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered";
    let target = json!({"type": "Value", "value": "10"});
    let object = json!({"metric": {"name": "r"}, "target": target,
        "describedObject": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"}});
    let external = json!({"metric": {"name": "queue", "selector": {"matchLabels": {"q": "w"}}}, "target": target});
    for (spec, cause, error) in [
        (
            metric("Pods", json!({"metric": {"name": "r"}, "target": target})),
            format!("unable to get metric r: {none}"),
            "failed to get pods metric value: ",
        ),
        (
            metric("Object", object),
            format!("unable to get metric r: Ingress on a main/{none}"),
            "failed to get object metric value: ",
        ),
        (
            metric("External", external),
            "unable to get external metric a/queue/&LabelSelector{MatchLabels:map[string]string{q: w,},MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: the server could not find the requested resource (get queue.external.metrics.k8s.io)".to_owned(),
            "failed to get queue external metric value: failed to get queue external metric: ",
        ),
    ] {
        let [event, condition, last] = texts(&json!({"metrics": [spec]}));
        assert_eq!(event, cause);
        assert_eq!(condition, format!("the HPA was unable to compute the replica count: {cause}"));
        assert_eq!(last, format!("invalid metrics (1 invalid out of 1), first error is: {error}{cause}"));
    }
}

fn observed_plan(scale: Result<&Scale, &str>, figures: Result<&[Figures], &str>, claimants: &[String]) -> Plan {
    let world = World::new(&json!({}));
    plan(&Observed {
        autoscaler: &world.autoscaler,
        scale,
        pods: &[],
        figures,
        claimants,
        history: &world.history,
        settings: &world.settings,
        now: at(0),
    })
}

#[test]
fn a_target_that_cannot_be_read_or_selects_nothing_is_told() {
    let told = |plan: &Plan, kind: &str| {
        let found = plan.status.conditions.iter().flatten().find(|condition| condition.type_ == kind).expect("told");
        format!(
            "{} {} {}",
            found.status,
            found.reason.as_deref().unwrap_or_default(),
            found.message.as_deref().unwrap_or_default()
        )
    };
    let gone = observed_plan(Err("statefulsets.apps \"web\" not found"), Ok(&[]), &[]);
    assert_eq!(gone.happenings[0].reason, "FailedGetScale");
    assert_eq!(
        told(&gone, "AbleToScale"),
        "False FailedGetScale the HPA controller was unable to get the target's current scale: statefulsets.apps \"web\" not found"
    );
    let scale = |selector: &str| Scale { spec_replicas: 2, status_replicas: 2, selector: selector.to_owned() };
    let bare = observed_plan(Ok(&scale("")), Ok(&[]), &[]);
    assert_eq!(told(&bare, "ScalingActive"), "False InvalidSelector the HPA target's scale is missing a selector");
    assert_eq!(bare.status.current_replicas, Some(2));
    let two = ["web".to_owned(), "web2".to_owned()];
    let shared = observed_plan(Ok(&scale("app=web")), Ok(&[]), &two);
    assert_eq!(
        told(&shared, "ScalingActive"),
        "False AmbiguousSelector pods by selector app=web are controlled by multiple HPAs: [{web a} {web2 a}]"
    );
    let refused = observed_plan(Ok(&scale("app=web")), Err("it is down"), &[]);
    assert_eq!(
        told(&refused, "ScalingActive"),
        "False FailedGetResourceMetric the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: it is down"
    );
}

#[test]
fn a_rescale_is_noted_or_its_failure_told() {
    let mut world = World::new(&json!({}));
    let plan = world.step(0, 2, "100 100");
    let status = world.autoscaler.status.clone().expect("a status");
    assert_eq!(condition(&status, "AbleToScale"), Some((true, "SucceededRescale".to_owned())));
    assert_eq!((status.current_replicas, status.desired_replicas), (Some(2), 4));
    assert!(status.last_scale_time.is_some());
    let current = serde_json::to_value(&status.current_metrics).expect("json");
    assert_eq!(current[0]["resource"]["current"], json!({"averageUtilization": 100, "averageValue": "1"}));
    let mut done = plan.clone();
    done.rescaled(&world.autoscaler, at(0));
    let last = done.happenings.last().expect("an event");
    assert_eq!(
        (last.reason, last.message.as_str()),
        ("SuccessfulRescale", "New size: 4; reason: cpu resource utilization (percentage of request) above target")
    );
    let mut failed = plan;
    failed.failed(&autoscaler(&json!({})), "conflict", at(0));
    assert_eq!(condition(&failed.status, "AbleToScale"), Some((false, "FailedUpdateScale".to_owned())));
    assert_eq!(
        failed.happenings.last().map(|one| one.message.as_str()),
        Some("New size: 4; reason: cpu resource utilization (percentage of request) above target; error: conflict")
    );
    assert_eq!(failed.status.desired_replicas, 0);
}

#[test]
fn requests_are_those_of_containers_and_sidecars_or_of_the_pod() {
    let mut world = World::new(&json!({}));
    let mut bare = pod("web-0", "", 0);
    bare.spec.as_mut().expect("a spec").containers[0].resources = None;
    let scale = Scale { spec_replicas: 1, status_replicas: 1, selector: "app=web".to_owned() };
    let used = [figures("web-0", 60, 0)];
    let of = |pod: &Pod, world: &World| {
        plan(&Observed {
            autoscaler: &world.autoscaler,
            scale: Ok(&scale),
            pods: &[Arc::new(pod.clone())],
            figures: Ok(&used),
            claimants: &[],
            history: &world.history,
            settings: &world.settings,
            now: at(0),
        })
    };
    assert_eq!(
        of(&bare, &world).happenings[0].message,
        "failed to get cpu utilization: missing request for cpu in container main of Pod web-0"
    );
    bare.spec.as_mut().expect("a spec").resources =
        Some(serde_json::from_value(json!({"requests": {"cpu": "400m"}})).expect("resources"));
    assert_eq!(of(&bare, &world).rescale.map(|rescale| rescale.to), Some(3));
    let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
    let mut both = pod("web-0", "", 0);
    both.spec.as_mut().expect("a spec").init_containers = Some(vec![serde_json::from_value(sidecar).expect("one")]);
    world.settings.tolerance = 0.0;
    assert_eq!(of(&both, &world).rescale, None, "30 percent of two cores need no second pod");
}
