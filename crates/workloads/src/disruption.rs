//! How many pods of a disruption budget may be evicted now.
//!
//! Source: `pkg/controller/disruption/disruption.go`. The eviction sub-resource spends what this grants.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::owner::{controller_of, selects};
use crate::pod::{condition, is_finished, is_ready};

/// How long an evicted pod is believed to be about to go.
pub const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
/// How long a pod may be marked as a target of disruption without being deleted.
pub const STALE_AFTER: SignedDuration = SignedDuration::from_mins(2);
/// Whether disruptions are allowed, as a condition.
const CONDITION: &str = "DisruptionAllowed";
/// The condition on pods that are about to be disrupted.
const TARGET: &str = "DisruptionTarget";
/// Conditions that the node itself sets may take any time.
const BY_NODE: &str = "TerminationByKubelet";

/// How many pods the controller of a pod wants: the UID of what sets the number, and the number; nothing when that
/// controller does not exist. Or why it has no such number.
pub type Scale = Result<Option<(String, i32)>, String>;

/// What the decision may look at.
pub struct Observed<'a> {
    pub budget: &'a PodDisruptionBudget,
    /// All pods that the budget selects.
    pub pods: &'a [Arc<Pod>],
    /// The scale behind a pod's controller, and why there is none.
    pub scale: &'a dyn Fn(&OwnerReference) -> Scale,
    /// UID and wanted pods of each StatefulSet whose pods the budget selects. One may have none at the moment, because its
    /// only pod was evicted: that is a loss, which upstream does not count.
    pub sets: &'a [(String, i32)],
    pub now: Timestamp,
}

impl std::fmt::Debug for Observed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observed").field("budget", &self.budget.metadata.name).field("pods", &self.pods.len()).finish()
    }
}

/// What happened, for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

/// The status to publish, what to tell, and when to look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub status: PodDisruptionBudgetStatus,
    pub happenings: Vec<Happening>,
    /// Names of pods that were evicted long ago and are still there.
    pub not_deleted: Vec<String>,
    pub wake_at: Option<Timestamp>,
}

/// How many pods there should be, and how many of them healthy.
struct Wanted {
    expected: i32,
    healthy: i32,
    unmanaged: bool,
}

/// Whether the budget selects the pod. A budget without a selector selects none, an empty one all.
#[must_use]
pub fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    covers_labels(budget, pod.metadata.labels.as_ref().unwrap_or(&BTreeMap::new()))
}

/// Whether the budget selects pods with these labels.
#[must_use]
pub fn covers_labels(budget: &PodDisruptionBudget, labels: &BTreeMap<String, String>) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selects(selector, labels))
}

#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let mut happenings = Vec::new();
    if observed.pods.is_empty() {
        happenings.push(told(false, "NoPods", "No matching pods found"));
    }
    let before = observed.budget.status.clone().unwrap_or_default();
    let wanted = match wanted(observed) {
        Ok(wanted) => wanted,
        Err(why) => {
            let text = format!("Failed to calculate the number of expected pods: {why}");
            happenings.push(told(true, "CalculateExpectedPodCountFailed", text));
            let status = fail_safe(before, why, observed.now);
            return Plan { status, happenings, not_deleted: vec![], wake_at: None };
        }
    };
    if wanted.unmanaged {
        happenings.push(told(true, "UnmanagedPods", unmanaged(observed.budget)));
    }
    let disrupted = Disrupted::of(observed, before.disrupted_pods.as_ref());
    let healthy = observed.pods.iter().filter(|pod| disrupted.counts(pod)).count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    // Without any pod the number that is allowed stays none, so that the first ones are not evicted unseen.
    let allowed = if wanted.expected > 0 { healthy.saturating_sub(wanted.healthy).max(0) } else { 0 };
    let generation = observed.budget.metadata.generation;
    let status = PodDisruptionBudgetStatus {
        conditions: Some(conditions(before.conditions.as_ref(), verdict(allowed), generation, observed.now)),
        current_healthy: Some(healthy),
        desired_healthy: Some(wanted.healthy),
        disrupted_pods: (!disrupted.pods.is_empty()).then_some(disrupted.pods),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(wanted.expected),
        observed_generation: generation,
    };
    Plan { status, happenings, not_deleted: disrupted.not_deleted, wake_at: disrupted.wake_at }
}

fn told(warning: bool, reason: &'static str, message: impl Into<String>) -> Happening {
    Happening { warning, reason, message: message.into() }
}

fn wanted(observed: &Observed<'_>) -> Result<Wanted, String> {
    let spec = observed.budget.spec.clone().unwrap_or_default();
    if let Some(most) = &spec.max_unavailable {
        let (expected, unmanaged) = scale(observed)?;
        let healthy = expected.saturating_sub(part(most, expected)?).max(0);
        return Ok(Wanted { expected, healthy, unmanaged });
    }
    match &spec.min_available {
        None => Ok(Wanted { expected: 0, healthy: 0, unmanaged: false }),
        Some(IntOrString::Int(healthy)) => {
            let expected = i32::try_from(observed.pods.len()).unwrap_or(i32::MAX);
            Ok(Wanted { expected, healthy: *healthy, unmanaged: false })
        }
        Some(percent) => {
            let (expected, unmanaged) = scale(observed)?;
            Ok(Wanted { expected, healthy: part(percent, expected)?, unmanaged })
        }
    }
}

/// The sum of what all controllers of the pods want, and whether some pods have none.
fn scale(observed: &Observed<'_>) -> Result<(i32, bool), String> {
    let sets = if observed.pods.is_empty() { &[] } else { observed.sets };
    let mut scales: BTreeMap<String, i32> = sets.iter().cloned().collect();
    let mut asked: Vec<&str> = Vec::new();
    let mut unmanaged = false;
    for pod in observed.pods {
        let Some(owner) = controller_of(&pod.metadata) else {
            unmanaged = true;
            continue;
        };
        if asked.contains(&owner.uid.as_str()) {
            continue;
        }
        asked.push(&owner.uid);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let (uid, count) = (observed.scale)(owner)?.ok_or_else(|| format!("found no controllers for pod {name:?}"))?;
        scales.insert(uid, count);
    }
    Ok((scales.into_values().fold(0, i32::saturating_add), unmanaged))
}

/// A number, or a percentage of `total`, rounded up.
fn part(value: &IntOrString, total: i32) -> Result<i32, String> {
    match value {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let percent: Option<i64> = text.strip_suffix('%').and_then(|number| number.parse().ok());
            let percent = percent.ok_or_else(|| format!("invalid value for IntOrString: invalid type: {text:?}"))?;
            Ok(i32::try_from((i64::from(total) * percent + 99) / 100).unwrap_or(i32::MAX))
        }
    }
}

/// The pods that were evicted and are about to go.
struct Disrupted {
    pods: BTreeMap<String, Time>,
    not_deleted: Vec<String>,
    wake_at: Option<Timestamp>,
}

impl Disrupted {
    fn of(observed: &Observed<'_>, before: Option<&BTreeMap<String, Time>>) -> Self {
        let mut disrupted = Self { pods: BTreeMap::new(), not_deleted: Vec::new(), wake_at: None };
        for pod in observed.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let Some(since) = before.and_then(|pods| pods.get(name)) else { continue };
            let end = since.0.checked_add(DELETION_TIMEOUT).unwrap_or(Timestamp::MAX);
            // At its very end the time is over: a plan that is due when it is made would be made again and again.
            if end <= observed.now {
                disrupted.not_deleted.push(name.to_owned());
            } else {
                disrupted.pods.insert(name.to_owned(), since.clone());
                disrupted.wake_at = Some(disrupted.wake_at.map_or(end, |at| at.min(end)));
            }
        }
        disrupted
    }

    /// Whether a pod counts as healthy.
    fn counts(&self, pod: &Pod) -> bool {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        pod.metadata.deletion_timestamp.is_none() && !self.pods.contains_key(name) && is_ready(pod)
    }
}

/// Status, reason and message of the condition.
type Verdict = (&'static str, &'static str, String);

fn verdict(allowed: i32) -> Verdict {
    match allowed {
        0 => ("False", "InsufficientPods", String::new()),
        _ => ("True", "SufficientPods", String::new()),
    }
}

fn conditions(
    before: Option<&Vec<Condition>>,
    (status, reason, message): Verdict,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = before.cloned().unwrap_or_default();
    let known = all.iter().find(|condition| condition.type_ == CONDITION);
    let since = known.filter(|known| known.status == status).map(|known| known.last_transition_time.clone());
    let new = Condition {
        type_: CONDITION.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(now)),
    };
    match all.iter_mut().find(|condition| condition.type_ == CONDITION) {
        Some(known) => *known = new,
        None => all.push(new),
    }
    all
}

/// When nothing can be known, nothing may be evicted.
fn fail_safe(before: PodDisruptionBudgetStatus, why: String, now: Timestamp) -> PodDisruptionBudgetStatus {
    let seen = before.observed_generation;
    PodDisruptionBudgetStatus {
        disruptions_allowed: Some(0),
        conditions: Some(conditions(before.conditions.as_ref(), ("False", "SyncFailed", why), seen, now)),
        // What the API requires also of a status that was never counted.
        current_healthy: Some(before.current_healthy.unwrap_or(0)),
        desired_healthy: Some(before.desired_healthy.unwrap_or(0)),
        expected_pods: Some(before.expected_pods.unwrap_or(0)),
        ..before
    }
}

fn unmanaged(budget: &PodDisruptionBudget) -> String {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of \
         the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please \
         set \".spec.minAvailable\" field of the PDB to an integer value.",
        selector.map_or_else(|| "nil".to_owned(), go_text),
    )
}

/// A selector as upstream's language prints it.
fn go_text(selector: &LabelSelector) -> String {
    let labels: String =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},")).collect();
    let terms = selector.match_expressions.iter().flatten().map(|term| {
        let values = term.values.as_deref().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", term.key, term.operator)
    });
    let labels = format!("map[string]string{{{labels}}}");
    let terms: String = terms.collect();
    format!("&LabelSelector{{MatchLabels:{labels},MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}")
}

/// What becomes of a mark that says that a pod is about to be disrupted.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// There is none, or it is right.
    Fine,
    /// Look again then.
    Wait(Timestamp),
    /// Nothing came of it: this is the condition to write instead.
    Stale(PodCondition),
}

/// Judges the mark on a pod.
#[must_use]
pub fn mark(pod: &Pod, now: Timestamp) -> Mark {
    let Some(target) = condition(pod, TARGET).filter(|target| target.status == "True") else { return Mark::Fine };
    if pod.metadata.deletion_timestamp.is_some() || is_finished(pod) || target.reason.as_deref() == Some(BY_NODE) {
        return Mark::Fine;
    }
    let since = target.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    match since.checked_add(STALE_AFTER) {
        Ok(end) if now < end => Mark::Wait(end),
        _ => Mark::Stale(PodCondition {
            type_: TARGET.to_owned(),
            status: "False".to_owned(),
            last_transition_time: Some(Time(now)),
            ..PodCondition::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({
            "metadata": {"name": "b", "namespace": "ns", "generation": 3}, "spec": spec, "status": status,
        }))
        .expect("a budget")
    }

    /// `r` ready, `n` not ready, `x` ready and terminating; capital letters have no controller.
    fn pods(letters: &str) -> Vec<Arc<Pod>> {
        let pod = |(n, letter): (usize, char)| {
            let ready = if letter.eq_ignore_ascii_case(&'n') { "False" } else { "True" };
            let mut pod = json!({
                "metadata": {"name": format!("p{n}"), "labels": {"app": "web"}},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            });
            if letter.is_lowercase() {
                pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "w", "controller": true}]);
            }
            if letter == 'x' {
                pod["metadata"]["deletionTimestamp"] = "2026-11-20T14:00:00Z".into();
            }
            Arc::new(serde_json::from_value(pod).expect("a pod"))
        };
        letters.chars().enumerate().map(pod).collect()
    }

    fn look(spec: Value, letters: &str, replicas: i32) -> (String, Plan) {
        let budget = budget(spec, json!({}));
        let pods = pods(letters);
        let scale = |_: &OwnerReference| Ok(Some(("w".to_owned(), replicas)));
        let plan = plan(&Observed { budget: &budget, pods: &pods, scale: &scale, sets: &[], now: at(100) });
        let s = &plan.status;
        let n = |number: Option<i32>| number.expect("a number");
        let text = format!(
            "allowed {} healthy {}/{} expected {}",
            n(s.disruptions_allowed),
            n(s.current_healthy),
            n(s.desired_healthy),
            n(s.expected_pods)
        );
        (text, plan)
    }

    #[test]
    fn what_is_allowed() {
        for (spec, pods, replicas, expected) in [
            (json!({"minAvailable": 2}), "rrr", 3, "allowed 1 healthy 3/2 expected 3"),
            (json!({"minAvailable": 2}), "rrn", 3, "allowed 0 healthy 2/2 expected 3"),
            (json!({"minAvailable": 2}), "rrx", 3, "allowed 0 healthy 2/2 expected 3"),
            (json!({"minAvailable": 2}), "n", 3, "allowed 0 healthy 0/2 expected 1"),
            (json!({"minAvailable": 0}), "", 3, "allowed 0 healthy 0/0 expected 0"),
            (json!({"minAvailable": 1}), "RRr", 1, "allowed 2 healthy 3/1 expected 3"),
            (json!({"minAvailable": "50%"}), "rrr", 3, "allowed 1 healthy 3/2 expected 3"),
            (json!({"minAvailable": "100%"}), "rrr", 3, "allowed 0 healthy 3/3 expected 3"),
            (json!({"maxUnavailable": 1}), "rrr", 3, "allowed 1 healthy 3/2 expected 3"),
            (json!({"maxUnavailable": 1}), "rr", 3, "allowed 0 healthy 2/2 expected 3"),
            (json!({"maxUnavailable": "30%"}), "rrr", 3, "allowed 1 healthy 3/2 expected 3"),
            (json!({"maxUnavailable": 9}), "rn", 2, "allowed 1 healthy 1/0 expected 2"),
        ] {
            let (text, plan) = look(spec.clone(), pods, replicas);
            assert_eq!(text, expected, "{spec} {pods}");
            let condition = &plan.status.conditions.as_ref().expect("a condition")[0];
            let (status, reason) =
                if text.starts_with("allowed 0") { ("False", "InsufficientPods") } else { ("True", "SufficientPods") };
            assert_eq!((condition.status.as_str(), condition.reason.as_str()), (status, reason), "{spec} {pods}");
            assert_eq!((condition.observed_generation, plan.status.observed_generation), (Some(3), Some(3)));
        }
    }

    #[test]
    fn a_set_whose_only_pod_is_gone_still_wants_it() {
        let budget = budget(json!({"maxUnavailable": 1}), json!({}));
        let scale = |_: &OwnerReference| Ok(Some(("w".to_owned(), 3)));
        let sets = [("w".to_owned(), 3), ("db".to_owned(), 1)];
        let look = |letters: &str| {
            let pods = pods(letters);
            let status =
                plan(&Observed { budget: &budget, pods: &pods, scale: &scale, sets: &sets, now: at(100) }).status;
            (status.disruptions_allowed, status.current_healthy, status.expected_pods)
        };
        assert_eq!(look("rrr"), (Some(0), Some(3), Some(4)));
        assert_eq!(look(""), (Some(0), Some(0), Some(0)), "without any pod as upstream");
    }

    #[test]
    fn events_are_upstreams() {
        let (_, plan) = look(json!({"minAvailable": 1}), "", 0);
        assert_eq!(plan.happenings, [told(false, "NoPods", "No matching pods found")]);
        let selector = json!({"matchLabels": {"app": "web"}});
        let (_, plan) = look(json!({"maxUnavailable": 1, "selector": selector}), "rR", 1);
        assert_eq!(plan.happenings[0].reason, "UnmanagedPods");
        let shown = "(selector: &LabelSelector{MatchLabels:map[string]string{app: web,},\
                     MatchExpressions:[]LabelSelectorRequirement{},})";
        assert!(plan.happenings[0].message.contains(shown), "{}", plan.happenings[0].message);
    }

    #[test]
    fn when_the_scale_cannot_be_known_nothing_may_go() {
        let budget = budget(
            json!({"maxUnavailable": 1}),
            json!({"disruptionsAllowed": 2, "currentHealthy": 3, "desiredHealthy": 1, "expectedPods": 3, "observedGeneration": 2}),
        );
        let pods = pods("r");
        let scale = |_: &OwnerReference| Err("jobs.batch does not implement the scale subresource".to_owned());
        let plan = plan(&Observed { budget: &budget, pods: &pods, scale: &scale, sets: &[], now: at(100) });
        assert_eq!(plan.status.disruptions_allowed, Some(0));
        let condition = &plan.status.conditions.as_ref().expect("a condition")[0];
        assert_eq!((condition.reason.as_str(), condition.observed_generation), ("SyncFailed", Some(2)));
        let text =
            "Failed to calculate the number of expected pods: jobs.batch does not implement the scale subresource";
        assert_eq!(plan.happenings, [told(true, "CalculateExpectedPodCountFailed", text)]);
    }

    #[test]
    fn an_evicted_pod_does_not_count_until_it_is_gone_or_its_time_is_over() {
        let status = json!({"disruptedPods": {"p0": at(0).to_string(), "gone": at(0).to_string()}});
        let budget = budget(json!({"minAvailable": 1}), status);
        let pods = pods("rr");
        let scale = |_: &OwnerReference| Ok(Some(("w".to_owned(), 2)));
        let look = |now| plan(&Observed { budget: &budget, pods: &pods, scale: &scale, sets: &[], now: at(now) });
        let soon = look(119);
        assert_eq!((soon.status.current_healthy, soon.wake_at), (Some(1), Some(at(120))));
        assert_eq!(soon.status.disrupted_pods.as_ref().map(BTreeMap::len), Some(1));
        let late = look(120);
        assert_eq!((late.status.current_healthy, late.not_deleted), (Some(2), vec!["p0".to_owned()]));
        assert_eq!(late.status.disrupted_pods, None);
    }

    #[test]
    fn a_mark_of_disruption_that_nothing_came_of_is_taken_back() {
        let pod = |reason: &str, status: &str| -> Pod {
            let condition =
                json!({"type": TARGET, "status": status, "reason": reason, "lastTransitionTime": at(0).to_string()});
            serde_json::from_value(json!({"status": {"phase": "Running", "conditions": [condition]}})).expect("a pod")
        };
        assert_eq!(mark(&pod("EvictionByEvictionAPI", "True"), at(119)), Mark::Wait(at(120)));
        let Mark::Stale(condition) = mark(&pod("EvictionByEvictionAPI", "True"), at(120)) else { panic!("is stale") };
        assert_eq!(condition.status, "False");
        assert_eq!(mark(&pod(BY_NODE, "True"), at(999)), Mark::Fine);
        assert_eq!(mark(&pod("EvictionByEvictionAPI", "False"), at(999)), Mark::Fine);
    }
}
