//! Walks every state that a small pod can get into: work ends late, fails or succeeds in any order, containers exit, sandboxes
//! die, the node forgets, the object is deleted or goes. Checks what must never happen in each step, and from each state
//! that the pod settles once the world is quiet.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::memory::Work;
use crate::plan::{PodPlan, is_initialized};
use crate::scenario::{World, pod};
use crate::spec::{self, RestartPolicy, Role};
use crate::{Action, Addresses, Container, Memory, State, plan, status};

/// Steps in which a quiet pod has to settle.
const QUIET_STEPS_MAX: usize = 200;

/// A world whose actions take their time.
#[derive(Clone)]
struct Node {
    world: World,
    /// Attempts of one container beyond which the walk goes no further.
    attempts_max: u32,
    pending: Vec<Action>,
    path: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    /// The `n`th pending action ends well.
    Done(usize),
    /// It fails.
    Fails(usize),
    Exit(String, i32),
    SandboxDies,
    Delete,
    Gone,
    Forgets,
    /// The node is killed while it starts a container, and forgets.
    Killed(Left),
    /// A start that was under way then has succeeded.
    Runs(String),
    Time,
}

/// How far the start was of which a killed node knows nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Created,
    Starting,
}

impl Node {
    /// Looks, begins what the plan says, and checks it.
    fn look(&mut self) -> PodPlan {
        let world = &mut self.world;
        let ending = world.memory.ending.is_some();
        world.memory.probes.observe(&world.pod, &world.containers, &std::collections::BTreeSet::new(), ending);
        let plan = plan(&world.snapshot());
        check_plan(world, &plan, &self.path);
        world.memory.keep(&plan);
        let before = world.pod.status.as_ref().and_then(|status| status.phase.clone());
        let told = status(&world.snapshot(), &plan, &Addresses::default());
        check_phase(world, before.as_deref(), told.phase.as_deref(), &self.path);
        if !world.gone {
            world.pod.status = Some(told);
        }
        world.wake_at = plan.wake_at;
        for action in &plan.actions {
            world.memory.begin(action, world.now);
            if *action != Action::Cancel {
                self.pending.retain(|known| !same_stop(known, action));
                self.pending.push(action.clone());
            }
        }
        plan
    }

    fn events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = (0..self.pending.len()).map(Event::Done).collect();
        for (at, action) in self.pending.iter().enumerate() {
            if matches!(
                action,
                Action::MountVolumes | Action::RunSandbox { .. } | Action::StartContainer { .. } | Action::Teardown
            ) {
                events.push(Event::Fails(at));
            }
        }
        let running = self.world.snapshot().running().map(|one| (one.name.clone(), one.attempt)).collect::<Vec<_>>();
        for (name, attempt) in running {
            if attempt < self.attempts_max {
                events.extend([Event::Exit(name.clone(), 0), Event::Exit(name, 1)]);
            }
        }
        let snapshot = self.world.snapshot();
        if snapshot.sandbox().is_some_and(|sandbox| sandbox.attempt == 0) {
            events.push(Event::SandboxDies);
        }
        let deleted = self.world.pod.metadata.deletion_timestamp.is_some();
        if !deleted && !self.world.gone {
            events.extend([Event::Delete, Event::Gone]);
        }
        if self.pending.is_empty() {
            events.push(Event::Forgets);
        }
        let starts = |action: &Action| matches!(action, Action::StartContainer { .. });
        if snapshot.sandbox().is_some() && self.pending.len() == 1 && starts(&self.pending[0]) {
            events.extend([Left::Created, Left::Starting].map(Event::Killed));
        }
        let starting = snapshot.containers.iter().filter(|one| one.state == State::Starting);
        events.extend(starting.map(|one| Event::Runs(one.name.clone())));
        events.push(Event::Time);
        events
    }

    fn happen(&mut self, event: &Event) {
        self.path.push(format!("{event:?}"));
        match event {
            Event::Done(at) => {
                let action = self.pending.remove(*at);
                self.complete(&action);
            }
            Event::Fails(at) => {
                let action = self.pending.remove(*at);
                self.fail(&action);
            }
            Event::Exit(name, code) => self.exit(name, *code),
            Event::SandboxDies => {
                self.world.sandboxes_die();
            }
            Event::Delete => self.world.delete(30),
            Event::Gone => self.world.gone = true,
            Event::Forgets => self.world.memory = Memory::default(),
            Event::Killed(left) => {
                let action = self.pending.remove(0);
                self.world.execute(&action);
                let made = self.world.containers.last_mut().expect("what was started comes last");
                made.state = match left {
                    Left::Created => State::Created,
                    Left::Starting => State::Starting,
                };
                self.world.memory = Memory::default();
            }
            Event::Runs(name) => self.world.runs(name),
            Event::Time => self.world.now = self.world.wake_at.unwrap_or(self.world.now).max(self.world.now),
        }
    }

    fn exit(&mut self, name: &str, code: i32) {
        let id = self.world.snapshot().running().find(|one| one.name == name).map(|one| one.id.clone());
        self.world.exit(name, code, false);
        // Whoever stops it learns of it at once.
        self.pending
            .retain(|action| !matches!(action, Action::StopContainer { id: other, .. } if Some(other) == id.as_ref()));
    }

    fn complete(&mut self, action: &Action) {
        match action {
            Action::StopContainer { name, .. } => {
                if self.world.snapshot().running().any(|one| one.name == *name) {
                    self.exit(name, 143);
                }
            }
            // The sandbox may have died under the start.
            Action::StartContainer { .. } if self.world.snapshot().sandbox().is_none() => self.fail(action),
            Action::DeleteObject => {
                self.world.memory.end(&Work::Delete);
                self.world.memory.delete_sent = true;
                self.world.gone = true;
            }
            action => self.world.execute(action),
        }
    }

    fn fail(&mut self, action: &Action) {
        let now = self.world.now;
        let world = &mut self.world;
        match action {
            Action::MountVolumes => {
                world.memory.end(&Work::Mount);
                world.memory.mount_done(false, now);
            }
            Action::RunSandbox { .. } => {
                world.memory.end(&Work::Sandbox);
                world.memory.sandbox_done(false, now);
            }
            Action::StartContainer { name, .. } => {
                world.memory.end(&Work::Start { name: name.clone() });
                world.memory.start_failed(name, "CreateContainerError", "no", now);
            }
            _ => {
                world.memory.end(&Work::Teardown);
                world.memory.down_done(false, now);
            }
        }
    }

    /// What makes two states the same for the plan, times apart.
    fn key(&self) -> String {
        let world = &self.world;
        let containers: BTreeMap<_, _> = world
            .containers
            .iter()
            .map(|one| {
                let state = match &one.state {
                    State::Created => -2,
                    State::Starting => -3,
                    State::Running { .. } => -1,
                    State::Exited(exit) => exit.code,
                };
                ((one.name.clone(), one.attempt.min(self.attempts_max)), (state, one.sandbox.clone()))
            })
            .collect();
        let sandboxes: Vec<_> = world.sandboxes.iter().map(|one| (one.ready, one.attempt)).collect();
        let memory = &world.memory;
        let waits: Vec<bool> = [memory.mount_backoff, memory.sandbox_backoff, memory.down_backoff]
            .into_iter()
            .map(|backoff| backoff.is_some_and(|backoff| backoff.due() > world.now))
            .collect();
        let failures: Vec<_> =
            memory.start_failures.iter().map(|(name, one)| (name, one.backoff.due() > world.now)).collect();
        let restarts: Vec<_> = memory.restarts.keys().collect();
        let flags = (memory.mounted, memory.torn_down, memory.delete_sent, memory.cancelled, memory.ending.is_some());
        let pending: Vec<String> = self.pending.iter().map(|action| short(action, self.attempts_max)).collect();
        let phase = world.pod.status.as_ref().and_then(|status| status.phase.clone());
        let deleted = (world.pod.metadata.deletion_timestamp.is_some(), world.gone, world.forgotten);
        format!(
            "{containers:?}{sandboxes:?}{waits:?}{failures:?}{restarts:?}{flags:?}{pending:?}{phase:?}{deleted:?}{}",
            world.wake_at.is_some_and(|at| at > world.now)
        )
    }

    /// Nothing goes wrong any more: does the pod come to rest where it should?
    fn settles(mut self) {
        let policy = spec::restart_policy(&self.world.pod);
        for _ in 0..QUIET_STEPS_MAX {
            self.look();
            if self.world.forgotten {
                return;
            }
            if !self.pending.is_empty() {
                self.happen(&Event::Done(0));
                continue;
            }
            if let Some(at) = self.world.wake_at.filter(|at| *at > self.world.now) {
                self.world.now = at;
                continue;
            }
            let starting = self.world.containers.iter().find(|one| one.state == State::Starting);
            if let Some(name) = starting.map(|one| one.name.clone()) {
                self.world.runs(&name);
                continue;
            }
            // Init containers and jobs end well; all others run on.
            let ends = |name: &str| {
                matches!(spec::role(&self.world.pod, name), Some(Role::Init)) || policy != RestartPolicy::Always
            };
            let next = self.world.snapshot().running().find(|one| ends(&one.name)).map(|one| one.name.clone());
            match next {
                Some(name) => self.exit(&name, 0),
                None => break,
            }
        }
        let phase = self.world.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let rests = match policy {
            RestartPolicy::Always => phase == Some("Running"),
            RestartPolicy::OnFailure | RestartPolicy::Never => matches!(phase, Some("Succeeded" | "Failed")),
        };
        assert!(
            rests && !self.world.gone,
            "does not settle: {phase:?} after {:?}; pending {:?}",
            self.path,
            self.pending
        );
    }
}

fn same_stop(known: &Action, action: &Action) -> bool {
    matches!((known, action), (Action::StopContainer { id: a, .. }, Action::StopContainer { id: b, .. }) if a == b)
}

fn short(action: &Action, attempts_max: u32) -> String {
    match action {
        Action::StartContainer { name, attempt, .. } => format!("start {name}{}", (*attempt).min(attempts_max)),
        Action::StopContainer { name, .. } => format!("stop {name}"),
        other => format!("{other:?}"),
    }
}

fn check_plan(world: &World, plan: &PodPlan, path: &[String]) {
    let snapshot = world.snapshot();
    for action in &plan.actions {
        match action {
            Action::StartContainer { name, attempt, .. } => {
                assert!(plan.end.is_none(), "{name} is started while the pod ends: {path:?}");
                let lives = |one: &Container| matches!(one.state, State::Running { .. } | State::Starting);
                let twice = snapshot.containers.iter().any(|one| one.name == *name && lives(one));
                assert!(!twice, "{name} is started twice: {path:?}");
                let newest = snapshot.newest(name).map(|one| one.attempt);
                assert!(
                    newest.is_none_or(|newest| newest < *attempt),
                    "attempt {attempt} of {name} is not new: {path:?}"
                );
                check_order(world, name, path);
            }
            Action::StopSandboxes | Action::Teardown | Action::DeleteObject | Action::Forget => {
                assert!(snapshot.running().next().is_none(), "{action:?} while something runs: {path:?}");
            }
            _ => {}
        }
        if matches!(action, Action::DeleteObject | Action::Forget) {
            assert!(world.memory.torn_down && snapshot.sandbox().is_none(), "{action:?} too early: {path:?}");
        }
    }
}

/// A main container starts only when every init container of its sandbox has succeeded and every sidecar has started.
fn check_order(world: &World, name: &str, path: &[String]) {
    let snapshot = world.snapshot();
    if spec::role(&world.pod, name) != Some(Role::Main) || is_initialized(&snapshot) {
        return;
    }
    for init in spec::init_containers(&world.pod) {
        let done = snapshot.current(&init.name).is_some_and(|one| match &one.state {
            State::Exited(exit) => exit.code == 0 && !spec::is_sidecar(init),
            State::Running { .. } => spec::is_sidecar(init),
            State::Created | State::Starting => false,
        });
        assert!(done, "{name} is started before {}: {path:?}", init.name);
    }
}

fn check_phase(world: &World, before: Option<&str>, told: Option<&str>, path: &[String]) {
    let is_terminal = |phase: Option<&str>| matches!(phase, Some("Succeeded" | "Failed"));
    if is_terminal(before) {
        assert_eq!(before, told, "a terminal phase changes: {path:?}");
    } else if is_terminal(told) {
        assert!(world.snapshot().running().next().is_none(), "{told:?} while something runs: {path:?}");
    }
}

/// Returns the number of states.
fn walk(words: &str, attempts_max: u32) -> usize {
    let mut first = Node { world: World::new(&pod(words)), attempts_max, pending: Vec::new(), path: Vec::new() };
    first.look();
    let mut seen = HashSet::from([first.key()]);
    let mut queue = VecDeque::from([first]);
    while let Some(node) = queue.pop_front() {
        node.clone().settles();
        for event in node.events() {
            let mut next = node.clone();
            next.happen(&event);
            if !next.world.forgotten {
                next.look();
            }
            if !next.world.forgotten && seen.insert(next.key()) {
                queue.push_back(next);
            }
        }
    }
    seen.len()
}

#[test]
fn a_pod_with_one_container_always_settles() {
    for policy in ["Always", "OnFailure", "Never"] {
        let states = walk(&format!("main:a policy={policy}"), 2);
        println!("{policy}: {states} states");
        assert!(states > 100, "{states}");
    }
}

#[test]
fn a_pod_with_an_init_container_always_settles() {
    for policy in ["Always", "Never"] {
        println!("{policy}: {} states", walk(&format!("init:i main:a policy={policy}"), 1));
    }
}

#[test]
fn a_pod_with_a_sidecar_always_settles() {
    // With `Always` there are half a million states: minutes, and nothing new.
    println!("Never: {} states", walk("sidecar:s main:a policy=Never", 1));
}
