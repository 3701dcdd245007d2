//! What the node does next with one pod. Follows upstream's `computePodActions` and pod workers
//! (`pkg/kubelet/kuberuntime/kuberuntime_manager.go`, `pkg/kubelet/pod_workers.go`) in effect, not in form.
//!
//! A plan says everything that may be begun now; work that is under way (in [`crate::Memory`]) is not begun twice.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, Pod};

use crate::backoff::{self, later};
use crate::memory::Work;
use crate::probe::ProbeKind;
use crate::spec::{self, Role};
use crate::view::{Container, Snapshot, State};

/// Least time that a container gets between its stop signal and SIGKILL (upstream's `minimumGracePeriodInSeconds`).
pub const GRACE_SECONDS_MIN: i64 = 2;
/// Ended attempts of one container that are kept: the newest and the one for `logs --previous`.
const ATTEMPTS_KEPT: usize = 2;
/// The same for sandboxes.
const SANDBOXES_KEPT: usize = 2;
/// How long `ErrImagePull` is shown before `ImagePullBackOff` (upstream: until its next look at the pod).
const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(1);

/// One thing to do. Everything in it is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    MountVolumes,
    RunSandbox {
        attempt: u32,
    },
    /// Image, container, process, postStart hook.
    StartContainer {
        name: String,
        attempt: u32,
        /// When the attempt before ended, if this is a restart.
        restart_of: Option<Timestamp>,
    },
    /// preStop hook, stop signal, SIGKILL; all within `grace`.
    StopContainer {
        id: String,
        name: String,
        grace: SignedDuration,
        why: StopWhy,
    },
    /// Runs the command by which the pod hands over, in a container; it is killed after `limit`.
    HandOver {
        /// The request that it answers.
        request: String,
        id: String,
        name: String,
        command: Vec<String>,
        limit: SignedDuration,
    },
    /// Writes down on the pod how that went.
    AnswerHandOver {
        request: String,
        code: i32,
    },
    /// Gives up pulls and hooks that are under way.
    Cancel,
    RemoveContainer {
        id: String,
    },
    /// Removes a dead sandbox that newer ones have replaced.
    RemoveSandbox {
        id: String,
    },
    /// Ends every sandbox of the pod.
    StopSandboxes,
    /// Unmounts volumes and detaches the network.
    Teardown,
    /// Deletes the API object for good.
    DeleteObject,
    /// Removes every trace from this node: the object is gone.
    Forget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopWhy {
    /// The pod ends.
    PodEnds,
    Unhealthy(ProbeKind),
    /// The specification has changed.
    Changed,
}

/// A container that is not running, and why: `state.waiting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// A judgement on the pod as a whole: it fails, whatever its containers do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub reason: String,
    pub message: String,
}

/// The pod is being taken down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub since: Timestamp,
    /// For all containers together, preStop hooks included.
    pub grace: SignedDuration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodPlan {
    pub actions: Vec<Action>,
    /// By container name.
    pub waiting: BTreeMap<String, Waiting>,
    pub end: Option<End>,
    pub verdict: Option<Verdict>,
    /// When to look again though nothing has happened.
    pub wake_at: Option<Timestamp>,
}

/// What to do next. See the module.
#[must_use]
pub fn plan(s: &Snapshot) -> PodPlan {
    let mut planner = Planner { s, plan: PodPlan { verdict: s.memory.verdict.clone(), ..PodPlan::default() } };
    planner.judge_deadline();
    match planner.end() {
        Some(end) => {
            planner.plan.end = Some(end.clone());
            planner.take_down(&end);
        }
        None => planner.bring_up(),
    }
    planner.plan
}

struct Planner<'a, 'b> {
    s: &'b Snapshot<'a>,
    plan: PodPlan,
}

impl<'a> Planner<'a, '_> {
    // --- is it to end? ---

    fn judge_deadline(&mut self) {
        let seconds = spec::pod_spec(self.s.pod).active_deadline_seconds;
        let started = self.s.pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let (Some(seconds), Some(started)) = (seconds, started) else { return };
        if self.plan.verdict.is_some() || spec::is_terminal(self.s.pod) {
            return;
        }
        let deadline = later(started.0, SignedDuration::from_secs(seconds));
        if self.s.now >= deadline {
            self.plan.verdict = Some(Verdict {
                reason: "DeadlineExceeded".to_owned(),
                message: "Pod was active on the node longer than the specified deadline".to_owned(),
            });
        } else {
            self.wake(deadline);
        }
    }

    fn end(&self) -> Option<End> {
        let deleted = self.s.gone || self.s.pod.metadata.deletion_timestamp.is_some();
        let ends = deleted || self.plan.verdict.is_some() || spec::is_terminal(self.s.pod) || is_complete(self.s);
        let since = self.s.memory.ending.as_ref().map_or(self.s.now, |ending| ending.since);
        let known = self.s.memory.ending.as_ref().map(|ending| ending.grace);
        ends.then(|| {
            let grace = grace(self.s.pod);
            // A grace is only ever shortened, as in the API.
            End { since, grace: known.map_or(grace, |known| known.min(grace)) }
        })
    }

    // --- down ---

    fn take_down(&mut self, end: &End) {
        if self.starting() {
            if !self.s.memory.cancelled {
                self.act(Action::Cancel);
            }
            // What is running already need not wait for what is still starting.
            self.stop_running(end);
            return;
        }
        if self.stop_running(end) || self.busy() || self.waits_for_start(end) {
            return;
        }
        if let Some(action) = self.last_steps()
            && !self.rests_after_failure()
        {
            self.act(action);
        }
    }

    /// Whether a start that nobody can cancel may still succeed: what it starts has its grace as well, as far as there is
    /// any left.
    fn waits_for_start(&mut self, end: &End) -> bool {
        let until = later(end.since, end.grace);
        let waits = self.s.containers.iter().any(|one| one.state == State::Starting) && self.s.now < until;
        if waits {
            self.wake(until);
        }
        waits
    }

    /// Whether the last try to take something down has failed just now.
    fn rests_after_failure(&mut self) -> bool {
        let due = self.s.memory.down_backoff.map(|backoff| backoff.due()).filter(|due| *due > self.s.now);
        if let Some(due) = due {
            self.wake(due);
        }
        due.is_some()
    }

    /// What is left to do when no container runs any more.
    fn last_steps(&self) -> Option<Action> {
        let deleted = self.s.pod.metadata.deletion_timestamp.is_some();
        if self.s.sandboxes.iter().any(|sandbox| sandbox.ready) {
            Some(Action::StopSandboxes)
        } else if !self.s.memory.torn_down {
            Some(Action::Teardown)
        } else if self.s.gone {
            Some(Action::Forget)
        } else {
            (deleted && !self.s.memory.delete_sent).then_some(Action::DeleteObject)
        }
    }

    /// Asks what still runs to stop: sidecars only after all others, the last one first. Whether anything still runs.
    fn stop_running(&mut self, end: &End) -> bool {
        let until = later(end.since, end.grace);
        let sidecars: Vec<&str> = spec::init_containers(self.s.pod)
            .iter()
            .filter(|init| spec::is_sidecar(init))
            .map(|init| init.name.as_str())
            .collect();
        let (last, first): (Vec<_>, Vec<_>) =
            self.s.running().partition(|container| sidecars.contains(&container.name.as_str()));
        for container in &first {
            self.stop_until(container, until);
        }
        if first.is_empty() {
            let newest = |name: &&str| last.iter().find(|container| container.name == **name);
            if let Some(container) = sidecars.iter().rev().find_map(newest) {
                self.stop_until(container, until);
            }
        }
        !(first.is_empty() && last.is_empty())
    }

    fn stop_until(&mut self, container: &Container, until: Timestamp) {
        let least = later(self.s.now, SignedDuration::from_secs(GRACE_SECONDS_MIN));
        if let Some(Work::Stop { until: known, .. }) = self.stopping(&container.id) {
            // Only a shorter grace is news. Graces are whole seconds; less is the time between plan and deed.
            let news = later(until, SignedDuration::from_secs(1));
            if *known <= news || *known <= least {
                return;
            }
        }
        if self.rests_after_failure() {
            return;
        }
        let grace = until.max(least).duration_since(self.s.now);
        self.act(Action::StopContainer {
            id: container.id.clone(),
            name: container.name.clone(),
            grace,
            why: StopWhy::PodEnds,
        });
    }

    // --- up ---

    fn bring_up(&mut self) {
        self.prune();
        if !self.s.memory.mounted {
            let due = self.s.memory.mount_backoff.map(|backoff| backoff.due());
            return self.begin_when(due, &Work::Mount, Action::MountVolumes);
        }
        if self.s.sandbox().is_none() {
            let due = self.s.memory.sandbox_backoff.map(|backoff| backoff.due());
            let attempt = self.s.sandboxes.iter().map(|sandbox| sandbox.attempt + 1).max().unwrap_or(0);
            return self.begin_when(due, &Work::Sandbox, Action::RunSandbox { attempt });
        }
        for one in spec::ephemeral_containers(self.s.pod) {
            self.tend(&spec::from_ephemeral(one), Role::Ephemeral);
        }
        if self.bring_up_init() {
            for container in spec::main_containers(self.s.pod) {
                self.tend(container, Role::Main);
            }
        }
        self.hand_over();
        self.wake_for_probes();
    }

    fn begin_when(&mut self, due: Option<Timestamp>, work: &Work, action: Action) {
        if self.s.memory.working.contains(work) {
            return;
        }
        match due.filter(|due| *due > self.s.now) {
            Some(due) => self.wake(due),
            None => self.act(action),
        }
    }

    /// Init containers in order; whether all that main containers wait for is done.
    fn bring_up_init(&mut self) -> bool {
        let initialized = is_initialized(self.s);
        for init in spec::init_containers(self.s.pod) {
            let sidecar = spec::is_sidecar(init);
            let role = if sidecar { Role::Sidecar } else { Role::Init };
            if initialized && !sidecar {
                continue;
            }
            self.tend(init, role);
            if !initialized && !self.is_past(init, role) {
                return false;
            }
        }
        true
    }

    /// Whether the next init container may start.
    fn is_past(&self, init: &Spec, role: Role) -> bool {
        let Some(current) = self.s.current(&init.name) else { return false };
        match (role, &current.state) {
            (Role::Sidecar, State::Running { .. }) => {
                !self.is_starting(&init.name) && self.s.memory.probes.started(&init.name, &current.id)
            }
            (Role::Init, State::Exited(exit)) => exit.code == 0,
            _ => false,
        }
    }

    /// Starts, restarts or stops one container as its state asks.
    fn tend(&mut self, container: &Spec, role: Role) {
        if self.is_starting(&container.name) {
            return self.wait_for_failure(container);
        }
        let newest = self.s.newest(&container.name);
        if newest.is_some_and(|newest| matches!(newest.state, State::Created | State::Starting)) {
            // The one is removed first: there are never two of one attempt. The other will run, or tell that it could not.
            return;
        }
        let Some(current) = self.s.current(&container.name) else {
            return self.start(container, None);
        };
        match &current.state {
            State::Created | State::Starting => {}
            State::Running { .. } => self.tend_running(container, role, current),
            State::Exited(exit) if spec::restarts(self.s.pod, container, role, exit) => {
                self.restart(container, exit.finished, exit.start_error.as_deref());
            }
            State::Exited(_) => {}
        }
    }

    fn tend_running(&mut self, container: &Spec, role: Role, current: &Container) {
        let unhealthy = self.s.memory.probes.unhealthy(&container.name, &current.id);
        let why = match unhealthy {
            _ if role == Role::Ephemeral => return,
            Some(kind) => StopWhy::Unhealthy(kind),
            None if current.hash != spec::hash(container) => StopWhy::Changed,
            None => return,
        };
        if self.stopping(&current.id).is_some() || self.rests_after_failure() {
            return;
        }
        let own =
            unhealthy.and_then(|kind| kind.of(container)).and_then(|probe| probe.termination_grace_period_seconds);
        let seconds = own.unwrap_or_else(|| spec_grace(self.s.pod)).max(GRACE_SECONDS_MIN);
        self.act(Action::StopContainer {
            id: current.id.clone(),
            name: container.name.clone(),
            grace: SignedDuration::from_secs(seconds),
            why,
        });
    }

    fn restart(&mut self, container: &Spec, finished: Timestamp, start_error: Option<&str>) {
        let entry = self.s.memory.restarts.get(&container.name);
        let delay = entry.filter(|entry| !entry.expired(backoff::RESTART, finished)).map(|entry| entry.delay);
        let due = delay.map_or(self.s.now, |delay| later(finished, delay));
        if due <= self.s.now {
            if let Some(error) = start_error {
                self.wait(&container.name, "RunContainerError", error);
            }
            return self.start(container, Some(finished));
        }
        let pod = spec::full_name(self.s.pod);
        let delay = go_duration(delay.unwrap_or_default());
        let message = format!("back-off {delay} restarting failed container={} pod={pod}", container.name);
        self.wait(&container.name, "CrashLoopBackOff", &message);
        self.wake(due);
    }

    fn start(&mut self, container: &Spec, restart_of: Option<Timestamp>) {
        let name = &container.name;
        if let Some(failure) = self.s.memory.start_failures.get(name) {
            self.wait_for_failure(container);
            let due = failure.backoff.due();
            if due > self.s.now {
                return self.wake(due);
            }
        }
        // One container at a time, in the order of the specification, as upstream.
        if !self.starting() && !self.plan.actions.iter().any(|action| matches!(action, Action::StartContainer { .. })) {
            self.act(Action::StartContainer { name: name.clone(), attempt: self.attempt(name), restart_of });
        }
    }

    /// Runs the command of a request to hand over once, then answers until the pod shows it.
    fn hand_over(&mut self) {
        let Some(asked) = spec::hand_over(self.s.pod) else { return };
        if self.s.memory.is_working(|work| matches!(work, Work::HandOver { .. } | Work::Answer)) {
            return;
        }
        let request = asked.request.to_owned();
        if let Some((_, code)) = self.s.memory.handed_over.as_ref().filter(|(done, _)| *done == request) {
            let due = self.s.memory.answer_backoff.map(|backoff| backoff.due()).filter(|due| *due > self.s.now);
            return match due {
                Some(due) => self.wake(due),
                None => self.act(Action::AnswerHandOver { request, code: *code }),
            };
        }
        let running = self.s.current(&asked.container).filter(|container| container.running_since().is_some());
        let Some(container) = running.filter(|_| !self.is_starting(&asked.container)) else { return };
        self.act(Action::HandOver {
            request,
            id: container.id.clone(),
            name: asked.container,
            command: asked.command,
            limit: SignedDuration::from_secs(asked.seconds.into()),
        });
    }

    fn wait_for_failure(&mut self, container: &Spec) {
        let Some(failure) = self.s.memory.start_failures.get(&container.name) else { return };
        let shown_until = later(failure.at, PULL_ERROR_SHOWN);
        if failure.reason != "ErrImagePull" || self.s.now < shown_until {
            self.wait(&container.name, &failure.reason, &failure.message);
            if failure.reason == "ErrImagePull" {
                self.wake(shown_until);
            }
            return;
        }
        let image = container.image.as_deref().unwrap_or_default();
        let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", failure.message);
        self.wait(&container.name, "ImagePullBackOff", &message);
    }

    /// The number of the next attempt: one more than any that was seen here or reported to the API.
    fn attempt(&self, name: &str) -> u32 {
        let seen = self.s.newest(name).map(|container| match container.state {
            State::Created | State::Starting => container.attempt,
            State::Running { .. } | State::Exited(_) => container.attempt + 1,
        });
        seen.max(reported_attempt(self.s.pod, name)).unwrap_or(0)
    }

    /// Removes ended attempts and dead sandboxes that nobody can ask for any more, and what a process left that was
    /// killed between create and start.
    fn prune(&mut self) {
        let mut sandboxes: Vec<_> = self.s.sandboxes.iter().collect();
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.attempt));
        for old in sandboxes.iter().skip(SANDBOXES_KEPT).filter(|old| !old.ready) {
            if !self.s.memory.working.contains(&Work::Remove { id: old.id.clone() }) {
                self.act(Action::RemoveSandbox { id: old.id.clone() });
            }
        }
        let mut ended: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
        for container in self.s.containers {
            ended.entry(&container.name).or_default().push(container);
        }
        for attempts in ended.values_mut() {
            attempts.sort_by_key(|container| std::cmp::Reverse(container.attempt));
            let ended = |old: &&&Container| matches!(old.state, State::Exited(_));
            attempts.iter().skip(ATTEMPTS_KEPT).filter(ended).for_each(|old| self.remove(&old.id));
        }
        let left = |one: &&Container| one.state == State::Created && !self.is_starting(&one.name);
        let left: Vec<_> = self.s.containers.iter().filter(left).collect();
        left.iter().for_each(|one| self.remove(&one.id));
    }

    fn remove(&mut self, id: &str) {
        if !self.s.memory.working.contains(&Work::Remove { id: id.to_owned() }) {
            self.act(Action::RemoveContainer { id: id.to_owned() });
        }
    }

    // --- small words ---

    fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    fn wait(&mut self, name: &str, reason: &str, message: &str) {
        let waiting = Waiting { reason: reason.to_owned(), message: message.to_owned() };
        self.plan.waiting.insert(name.to_owned(), waiting);
    }

    fn wake(&mut self, at: Timestamp) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |known| known.min(at)));
    }

    fn wake_for_probes(&mut self) {
        if let Some(at) = self.s.memory.probes.next_due() {
            self.wake(at);
        }
    }

    fn is_starting(&self, name: &str) -> bool {
        self.s.memory.is_working(|work| matches!(work, Work::Start { name: other } if other == name))
    }

    /// Whether anything is being brought up.
    fn starting(&self) -> bool {
        self.s.memory.is_working(|work| matches!(work, Work::Start { .. } | Work::Mount | Work::Sandbox))
    }

    fn busy(&self) -> bool {
        self.s.memory.is_working(|work| !matches!(work, Work::Remove { .. } | Work::HandOver { .. } | Work::Answer))
    }

    fn stopping(&self, id: &str) -> Option<&'a Work> {
        self.s.memory.working.iter().find(|work| matches!(work, Work::Stop { id: other, .. } if other == id))
    }
}

/// Whether all init containers of this sandbox are behind: a main container exists in it.
#[must_use]
pub fn is_initialized(s: &Snapshot) -> bool {
    spec::main_containers(s.pod).iter().any(|container| s.current(&container.name).is_some())
}

/// Whether the pod has done all that it will ever do: every main container ended for good, or an init container failed
/// for good.
#[must_use]
pub fn is_complete(s: &Snapshot) -> bool {
    let ended_for_good = |container: &Spec, role: Role| {
        let newest = s.newest(&container.name);
        newest.and_then(Container::exit).is_some_and(|exit| !spec::restarts(s.pod, container, role, exit))
    };
    let init_failed = spec::init_containers(s.pod).iter().filter(|init| !spec::is_sidecar(init)).any(|init| {
        let failed = s.newest(&init.name).and_then(Container::exit).is_some_and(|exit| exit.code != 0);
        failed && ended_for_good(init, Role::Init)
    });
    let mains = spec::main_containers(s.pod);
    init_failed || (!mains.is_empty() && mains.iter().all(|container| ended_for_good(container, Role::Main)))
}

/// The number after the last attempt that was reported to the API.
///
/// One that was reported as waiting is counted as one that ran only if its end was reported too: a node that was killed
/// before it started it does not count a restart.
fn reported_attempt(pod: &Pod, name: &str) -> Option<u32> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let one = lists.into_iter().flatten().flatten().find(|one| one.name == name)?;
    let id = one.container_id.as_deref().filter(|id| !id.is_empty())?;
    let waits = one.state.as_ref().is_none_or(|state| state.running.is_none() && state.terminated.is_none());
    let last = one.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let never_ran = waits && last.and_then(|last| last.container_id.as_deref()) != Some(id);
    u32::try_from(one.restart_count).ok().map(|count| count + u32::from(!never_ran))
}

fn spec_grace(pod: &Pod) -> i64 {
    spec::pod_spec(pod).termination_grace_period_seconds.unwrap_or(30)
}

/// Seconds that the pod's containers have from now on, never less than the least.
fn grace(pod: &Pod) -> SignedDuration {
    let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| spec_grace(pod));
    SignedDuration::from_secs(seconds.max(GRACE_SECONDS_MIN))
}

/// Whole seconds as Go prints a duration: `10s`, `1m20s`, `5m0s`.
#[must_use]
pub fn go_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
