//! `PodStatus` as upstream's kubelet reports it (`generateAPIPodStatus`, `convertToAPIContainerStatuses`).

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, HostIP, LinuxContainerUser, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::cgroup;
use crate::conditions::{self, Facts, whole_seconds};
use crate::memory::Work;
use crate::phase::{self, FAILED, PENDING, RUNNING, SUCCEEDED};
use crate::plan::{PodPlan, Waiting, is_initialized};
use crate::spec::{self, Role};
use crate::view::{Container, Exit, Snapshot, State};

/// Where the pod is.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    pub host: Vec<IpAddr>,
    /// Empty before the network is there.
    pub pod: Vec<IpAddr>,
    /// Scheme of container ids: `stead`.
    pub engine: String,
}

/// What the API is to know. Fields and conditions that others own are kept as they are.
#[must_use]
pub fn status(s: &Snapshot, plan: &PodPlan, addresses: &Addresses) -> PodStatus {
    let known = s.pod.status.clone().unwrap_or_default();
    let teller = Teller { s, plan, known: &known, engine: &addresses.engine, initialized: is_initialized(s) };
    let down = plan.end.is_some() && s.running().next().is_none() && !teller.is_working();
    let mut init: Vec<_> =
        spec::init_containers(s.pod).iter().map(|one| teller.container(one, init_role(one))).collect();
    let mut main: Vec<_> = spec::main_containers(s.pod).iter().map(|one| teller.container(one, Role::Main)).collect();
    let ephemeral: Vec<_> = spec::ephemeral_containers(s.pod)
        .iter()
        .map(|one| teller.container(&spec::from_ephemeral(one), Role::Ephemeral))
        .collect();
    let phase = teller.phase(&init, &main, down);
    if down && s.memory.torn_down {
        settle(&mut init);
        settle(&mut main);
    }
    // Nothing was ever made for a pod that the node did not take.
    let refused = phase == FAILED && s.containers.is_empty() && known.container_statuses.is_none();
    let facts = Facts { pod: s.pod, phase, init: &init, main: &main, has_sandbox: s.sandbox().is_some(), now: s.now };
    let conditions = conditions::conditions(facts);
    let verdict = plan.verdict.as_ref().filter(|_| phase == FAILED);
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: if refused { known.conditions.clone() } else { Some(conditions) },
        reason: verdict.map(|verdict| verdict.reason.clone()).or_else(|| known.reason.clone()),
        message: verdict.map(|verdict| verdict.message.clone()).or_else(|| known.message.clone()),
        observed_generation: s.pod.metadata.generation,
        qos_class: Some(known.qos_class.clone().unwrap_or_else(|| cgroup::qos(s.pod).name().to_owned())),
        start_time: Some(known.start_time.clone().unwrap_or(Time(whole_seconds(s.now)))),
        container_statuses: (!refused).then_some(main),
        init_container_statuses: (!refused && !init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        ..with_addresses(known.clone(), addresses)
    }
}

fn init_role(init: &Spec) -> Role {
    if spec::is_sidecar(init) { Role::Sidecar } else { Role::Init }
}

fn with_addresses(known: PodStatus, addresses: &Addresses) -> PodStatus {
    let texts = |list: &[IpAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (host, pod) = (texts(&addresses.host), texts(&addresses.pod));
    let mut status = known;
    if let Some(first) = host.first() {
        status.host_ip = Some(first.clone());
        status.host_ips = Some(host.into_iter().map(|ip| HostIP { ip }).collect());
    }
    if let Some(first) = pod.first() {
        status.pod_ip = Some(first.clone());
        status.pod_ips = Some(pod.into_iter().map(|ip| PodIP { ip }).collect());
    }
    status
}

struct Teller<'a, 'b> {
    s: &'b Snapshot<'a>,
    plan: &'b PodPlan,
    known: &'b PodStatus,
    engine: &'b str,
    initialized: bool,
}

impl Teller<'_, '_> {
    fn is_working(&self) -> bool {
        self.s
            .memory
            .is_working(|work| matches!(work, Work::Start { .. } | Work::Mount | Work::Sandbox | Work::Stop { .. }))
    }

    /// A terminal phase is kept for ever, and is not reported while anything still runs.
    fn phase(&self, init: &[ContainerStatus], main: &[ContainerStatus], down: bool) -> &'static str {
        match self.known.phase.as_deref() {
            Some(SUCCEEDED) => return SUCCEEDED,
            Some(FAILED) => return FAILED,
            _ => {}
        }
        let known = if self.known.phase.as_deref() == Some(RUNNING) { RUNNING } else { PENDING };
        let told = phase::phase(self.s.pod, init, main, down);
        let terminal = matches!(told, SUCCEEDED | FAILED);
        match (self.plan.verdict.is_some(), down) {
            (true, true) => FAILED,
            (false, true) if self.s.memory.torn_down && !terminal => FAILED,
            (_, false) if terminal => {
                if self.plan.end.is_some() {
                    known
                } else {
                    told
                }
            }
            (_, _) => told,
        }
    }

    fn container(&self, container: &Spec, role: Role) -> ContainerStatus {
        let base = ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            started: Some(false),
            last_state: Some(ContainerState::default()),
            volume_mounts: volume_mounts(container),
            ..ContainerStatus::default()
        };
        match self.s.newest(&container.name) {
            Some(newest) => self.observed(base, container, role, newest),
            None => self.unobserved(base, container, role),
        }
    }

    fn observed(&self, base: ContainerStatus, spec: &Spec, role: Role, newest: &Container) -> ContainerStatus {
        let current = state(&newest.state, &self.container_id(newest));
        let waiting = self.plan.waiting.get(&spec.name).filter(|_| newest.running_since().is_none());
        let previous = self.s.previous(&spec.name);
        let before = previous
            .map(|one| state(&one.state, &self.container_id(one)))
            .or_else(|| self.known_last(&spec.name, newest));
        let (state, last_state) = match (waiting, &newest.state) {
            (Some(waiting), State::Exited(_)) => (waiting_state(waiting), Some(current)),
            (Some(waiting), _) => (waiting_state(waiting), before),
            (None, State::Created | State::Starting) => (self.default_waiting(role), before),
            (None, State::Running { .. } | State::Exited(_)) => (current, before),
        };
        let probes = &self.s.memory.probes;
        let succeeded = newest.exit().is_some_and(|exit| exit.code == 0);
        let resources = spec.resources.clone().unwrap_or_default();
        ContainerStatus {
            state: Some(state),
            last_state: Some(last_state.unwrap_or_default()),
            ready: if role == Role::Init {
                succeeded
            } else {
                probes.ready(&spec.name, &newest.id) && role != Role::Ephemeral
            },
            started: Some(probes.started(&spec.name, &newest.id)),
            restart_count: i32::try_from(newest.attempt).unwrap_or(i32::MAX),
            image: newest.image.clone(),
            image_id: newest.image_id.clone(),
            container_id: Some(self.container_id(newest)),
            allocated_resources: resources.requests.clone().filter(|requests| !requests.is_empty()),
            resources: (role != Role::Ephemeral).then_some(resources),
            user: user(self.s, spec),
            ..base
        }
    }

    /// Nothing of it is on this node: it was never made, or it is lost.
    fn unobserved(&self, base: ContainerStatus, spec: &Spec, role: Role) -> ContainerStatus {
        let waiting = self.plan.waiting.get(&spec.name).map(waiting_state);
        let known = self.known_status(&spec.name);
        let existed = known.filter(|known| known.container_id.as_deref().is_some_and(|id| !id.is_empty()));
        let Some(known) = existed else {
            return ContainerStatus { state: Some(waiting.unwrap_or_else(|| self.default_waiting(role))), ..base };
        };
        let state = known.state.clone().unwrap_or_default();
        let down = self.plan.end.is_some() || spec::is_terminal(self.s.pod);
        match (state.running, state.terminated) {
            (None, Some(_)) if down => known.clone(),
            (None, ended) => ContainerStatus {
                state: Some(waiting.unwrap_or_else(|| self.default_waiting(role))),
                last_state: ended
                    .map(|ended| ContainerState { terminated: Some(ended), ..ContainerState::default() })
                    .or_else(|| known.last_state.clone()),
                ready: false,
                started: Some(false),
                ..known.clone()
            },
            (Some(_), _) => {
                let lost = lost(
                    "The container could not be located when the pod was deleted.  The container used to be Running",
                );
                let (state, last) = if down {
                    (lost, known.last_state.clone())
                } else {
                    (waiting.unwrap_or_else(|| self.default_waiting(role)), Some(lost))
                };
                ContainerStatus {
                    state: Some(state),
                    last_state: last,
                    ready: false,
                    started: Some(false),
                    ..known.clone()
                }
            }
        }
    }

    fn known_status(&self, name: &str) -> Option<&ContainerStatus> {
        let known = self.known;
        let lists = [&known.container_statuses, &known.init_container_statuses, &known.ephemeral_container_statuses];
        lists.into_iter().flatten().flatten().find(|status| status.name == name)
    }

    /// The last state as it was reported, when this node no longer has the attempt itself.
    fn known_last(&self, name: &str, newest: &Container) -> Option<ContainerState> {
        let known = self.known_status(name).filter(|_| newest.attempt > 0)?;
        let same = known.container_id.as_deref().is_some_and(|id| id.ends_with(&newest.id));
        let ended = known.state.clone().filter(|state| state.terminated.is_some() && !same);
        ended.or_else(|| known.last_state.clone())
    }

    fn default_waiting(&self, role: Role) -> ContainerState {
        let initializing = role == Role::Init || role == Role::Sidecar || (!self.initialized && self.has_init());
        let reason = if initializing && role != Role::Ephemeral { "PodInitializing" } else { "ContainerCreating" };
        ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message: None }),
            ..ContainerState::default()
        }
    }

    fn has_init(&self) -> bool {
        !spec::init_containers(self.s.pod).is_empty()
    }

    fn container_id(&self, container: &Container) -> String {
        format!("{}://{}", self.engine, container.id)
    }
}

fn waiting_state(waiting: &Waiting) -> ContainerState {
    let message = Some(waiting.message.clone()).filter(|message| !message.is_empty());
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(waiting.reason.clone()), message }),
        ..ContainerState::default()
    }
}

fn state(state: &State, container_id: &str) -> ContainerState {
    match state {
        State::Created | State::Starting => ContainerState::default(),
        State::Running { started } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(whole_seconds(*started))) }),
            ..ContainerState::default()
        },
        State::Exited(exit) => {
            ContainerState { terminated: Some(terminated(exit, container_id)), ..ContainerState::default() }
        }
    }
}

fn terminated(exit: &Exit, container_id: &str) -> ContainerStateTerminated {
    let reason = match exit {
        Exit { start_error: Some(_), .. } => "StartError",
        Exit { oom_killed: true, .. } => "OOMKilled",
        Exit { code: 0, .. } => "Completed",
        Exit { .. } => "Error",
    };
    let started = if exit.start_error.is_some() { Timestamp::UNIX_EPOCH } else { exit.started };
    ContainerStateTerminated {
        reason: Some(reason.to_owned()),
        exit_code: if exit.start_error.is_some() { 128 } else { exit.code },
        message: exit.start_error.clone().or_else(|| exit.message.clone()).filter(|message| !message.is_empty()),
        started_at: Some(Time(whole_seconds(started))),
        finished_at: Some(Time(whole_seconds(exit.finished))),
        container_id: Some(container_id.to_owned()),
        signal: None,
    }
}

fn lost(message: &str) -> ContainerState {
    let ended = ContainerStateTerminated {
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some(message.to_owned()),
        exit_code: 137,
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(ended), ..ContainerState::default() }
}

/// A pod that is over has no container that is still about to run, unless it never ran at all.
fn settle(statuses: &mut [ContainerStatus]) {
    for status in statuses {
        let state = status.state.clone().unwrap_or_default();
        let ended_before = status.last_state.clone().filter(|last| last.terminated.is_some());
        if state.terminated.is_none()
            && let Some(before) = ended_before
        {
            status.state = Some(before);
            status.last_state = Some(ContainerState::default());
        } else if state.running.is_some() {
            status.state = Some(lost("The container could not be located when the pod was terminated"));
        }
        status.ready = status.ready && status.state.as_ref().is_some_and(|state| state.terminated.is_some());
        status.started = Some(false);
    }
}

fn volume_mounts(container: &Spec) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    let told = mounts.iter().map(|mount| VolumeMountStatus {
        mount_path: mount.mount_path.clone(),
        name: mount.name.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount.read_only.filter(|read_only| *read_only).map(|_| "Disabled".to_owned()),
        volume_status: None,
    });
    Some(told.collect())
}

/// The identity that the specification fixes; what an image says by name is not known here.
fn user(s: &Snapshot, container: &Spec) -> Option<ContainerUser> {
    let pod = spec::pod_spec(s.pod).security_context.as_ref();
    let own = container.security_context.as_ref();
    let uid = own.and_then(|own| own.run_as_user).or_else(|| pod.and_then(|pod| pod.run_as_user))?;
    let gid = own.and_then(|own| own.run_as_group).or_else(|| pod.and_then(|pod| pod.run_as_group)).unwrap_or(0);
    let mut groups = vec![gid];
    groups.extend(pod.and_then(|pod| pod.fs_group));
    groups.extend(pod.and_then(|pod| pod.supplemental_groups.clone()).unwrap_or_default());
    groups.sort_unstable();
    groups.dedup();
    Some(ContainerUser { linux: Some(LinuxContainerUser { uid, gid, supplemental_groups: Some(groups) }) })
}
