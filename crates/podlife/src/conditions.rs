//! The five conditions that the node owns, in upstream's order and words (`pkg/kubelet/status/generate.go`).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::phase::{FAILED, SUCCEEDED};
use crate::spec;

/// Types that only the node writes, in the order in which they are listed.
pub const OWNED: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// What the conditions are made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub pod: &'a Pod,
    pub phase: &'a str,
    pub init: &'a [ContainerStatus],
    pub main: &'a [ContainerStatus],
    /// There is a sandbox with a network.
    pub has_sandbox: bool,
    pub now: Timestamp,
}

struct Verdict {
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    const fn new(status: bool, reason: Option<&'static str>, message: Option<String>) -> Self {
        Verdict { status, reason, message }
    }
}

/// All conditions of the pod: first those of others, in their order, then the owned ones in theirs. A condition whose status
/// is as it was keeps its time of transition.
#[must_use]
pub fn conditions(facts: Facts) -> Vec<PodCondition> {
    let known: &[PodCondition] =
        facts.pod.status.as_ref().and_then(|status: &PodStatus| status.conditions.as_deref()).unwrap_or_default();
    let containers = containers_ready(facts);
    let ready = ready(facts, &containers, known);
    let verdicts = [
        Verdict::new(facts.has_sandbox, None, None),
        initialized(facts),
        ready,
        containers,
        Verdict::new(true, None, None),
    ];
    let owned = OWNED.into_iter().zip(verdicts).map(|(kind, verdict)| {
        let before = known.iter().find(|condition| condition.type_ == kind);
        condition(facts, kind, verdict, before)
    });
    let foreign = known.iter().filter(|condition| !OWNED.contains(&condition.type_.as_str())).cloned();
    foreign.chain(owned).collect()
}

fn condition(facts: Facts, kind: &str, verdict: Verdict, before: Option<&PodCondition>) -> PodCondition {
    let status = if verdict.status { "True" } else { "False" };
    let since = before.filter(|before| before.status == status).and_then(|before| before.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_transition_time: Some(since.unwrap_or(Time(whole_seconds(facts.now)))),
        last_probe_time: None,
        observed_generation: facts.pod.metadata.generation,
    }
}

/// API times have whole seconds.
#[must_use]
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn terminal(phase: &str) -> Option<&'static str> {
    match phase {
        SUCCEEDED => Some("PodCompleted"),
        FAILED => Some("PodFailed"),
        _ => None,
    }
}

fn containers_ready(facts: Facts) -> Verdict {
    if let Some(reason) = terminal(facts.phase) {
        return Verdict::new(false, Some(reason), None);
    }
    let sidecars = spec::init_containers(facts.pod).iter().filter(|init| spec::is_sidecar(init));
    let wanted = sidecars.chain(spec::main_containers(facts.pod));
    let status = |name: &str| facts.init.iter().chain(facts.main).find(|status| status.name == name);
    let names: Vec<&str> = wanted.map(|container| container.name.as_str()).collect();
    let unknown: Vec<&str> = names.iter().copied().filter(|name| status(name).is_none()).collect();
    let unready: Vec<&str> =
        names.iter().copied().filter(|name| status(name).is_some_and(|status| !status.ready)).collect();
    match messages(&[("unknown", unknown), ("unready", unready)]) {
        None => Verdict::new(true, None, None),
        message => Verdict::new(false, Some("ContainersNotReady"), message),
    }
}

fn ready(facts: Facts, containers: &Verdict, known: &[PodCondition]) -> Verdict {
    if !containers.status {
        return Verdict::new(false, containers.reason, containers.message.clone());
    }
    let gates = spec::pod_spec(facts.pod).readiness_gates.as_deref().unwrap_or_default();
    let closed: Vec<String> = gates.iter().filter_map(|gate| closed_gate(&gate.condition_type, known)).collect();
    if closed.is_empty() {
        Verdict::new(true, None, None)
    } else {
        Verdict::new(false, Some("ReadinessGatesNotReady"), Some(closed.join(", ")))
    }
}

fn closed_gate(gate: &str, known: &[PodCondition]) -> Option<String> {
    match known.iter().find(|condition| condition.type_ == gate) {
        None => Some(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
        Some(condition) if condition.status == "True" => None,
        Some(condition) => {
            Some(format!("the status of pod readiness gate \"{gate}\" is not \"True\", but {}", condition.status))
        }
    }
}

fn initialized(facts: Facts) -> Verdict {
    let status = |name: &str| facts.init.iter().find(|status| status.name == name);
    let inits = spec::init_containers(facts.pod);
    let unknown: Vec<&str> =
        inits.iter().map(|init| init.name.as_str()).filter(|name| status(name).is_none()).collect();
    if facts.phase == SUCCEEDED && unknown.is_empty() {
        return Verdict::new(true, Some("PodCompleted"), None);
    }
    if facts.main.iter().any(has_started) {
        return Verdict::new(true, None, None);
    }
    let is_done = |init: &k8s_openapi::api::core::v1::Container, status: &ContainerStatus| {
        if spec::is_sidecar(init) { status.started == Some(true) } else { status.ready }
    };
    let incomplete = inits.iter().filter(|init| status(&init.name).is_some_and(|status| !is_done(init, status)));
    let incomplete: Vec<&str> = incomplete.map(|init| init.name.as_str()).collect();
    match messages(&[("unknown", unknown), ("incomplete", incomplete)]) {
        None => Verdict::new(true, None, None),
        message => Verdict::new(false, Some("ContainersNotInitialized"), message),
    }
}

fn has_started(status: &ContainerStatus) -> bool {
    let begun = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    begun(&status.state) || begun(&status.last_state)
}

/// `containers with unready status: [a b]`, joined by commas.
fn messages(groups: &[(&str, Vec<&str>)]) -> Option<String> {
    let texts: Vec<String> = groups
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(word, names)| format!("containers with {word} status: [{}]", names.join(" ")))
        .collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_keep_the_places_that_the_server_gave_them() {
        let mut pod: Pod = serde_json::from_value(json!({
            "spec": {"containers": []},
            "status": {"conditions": [
                {"type": "DisruptionTarget", "status": "True"}, {"type": "PodScheduled", "status": "True"},
            ]},
        }))
        .expect("a pod");
        let tell = |pod: &Pod| {
            let facts =
                Facts { pod, phase: "Running", init: &[], main: &[], has_sandbox: true, now: Timestamp::UNIX_EPOCH };
            conditions(facts)
        };
        let told = tell(&pod);
        let kinds: Vec<&str> = told.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(kinds[0], "DisruptionTarget");
        assert_eq!(kinds[1..], OWNED);
        pod.status.as_mut().expect("a status").conditions = Some(told.clone());
        assert_eq!(tell(&pod), told, "what is stored is not told again");
    }
}
