//! Stories as tables: what happens | what the node does | what it reports. The world is simulated: mounts, sandboxes and
//! starts succeed at once unless the story says otherwise; a stop takes until the story says `exit`.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, ContainerStatus, Pod, PodSpec, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use stead_machinery::hand_over;

use crate::backoff::later;
use crate::memory::Work;
use crate::probe::ProbeKind;
use crate::{Action, Addresses, Container, Exit, Memory, Sandbox, Snapshot, State, StopWhy, plan, spec, status};

/// Rounds of plan and execution after one event; more means that the plan does not settle.
const ROUNDS_MAX: usize = 50;

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) pod: Pod,
    pub(crate) gone: bool,
    pub(crate) forgotten: bool,
    pub(crate) deleted: bool,
    pub(crate) sandboxes: Vec<Sandbox>,
    pub(crate) containers: Vec<Container>,
    pub(crate) memory: Memory,
    pub(crate) now: Timestamp,
    start: Timestamp,
    /// Starts that fail: container, reason, message.
    pub(crate) broken: Vec<(String, String, String)>,
    pub(crate) mounts_broken: bool,
    /// How the command by which the pod hands over ends.
    pub(crate) hand_over_code: i32,
    /// Answers to requests to hand over cannot be written.
    pub(crate) answers_broken: bool,
    pub(crate) did: Vec<String>,
    pub(crate) wake_at: Option<Timestamp>,
    ids: u32,
}

/// Runs a story: its first line is the pod, the others are events. Returns the table.
pub(crate) fn tell(story: &str) -> String {
    let mut lines = story.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut world = World::new(&pod(lines.next().unwrap_or_default()));
    let mut rows = vec![("bind".to_owned(), world.settle(), world.report())];
    for line in lines {
        world.happen(line);
        rows.push((line.to_owned(), world.settle(), world.report()));
    }
    let width = |column: fn(&(String, String, String)) -> usize| rows.iter().map(column).max().unwrap_or(0);
    let (first, second) = (width(|row| row.0.len()), width(|row| row.1.len()));
    let mut table = String::new();
    for (event, did, report) in rows {
        let _ = writeln!(table, "{event:first$} | {did:second$} | {report}");
    }
    table
}

impl World {
    pub(crate) fn new(pod: &Pod) -> World {
        let start: Timestamp = "2026-11-20T12:00:00Z".parse().expect("a fixed time");
        World {
            pod: pod.clone(),
            gone: false,
            forgotten: false,
            deleted: false,
            sandboxes: Vec::new(),
            containers: Vec::new(),
            memory: Memory::default(),
            now: start,
            start,
            broken: Vec::new(),
            mounts_broken: false,
            hand_over_code: 0,
            answers_broken: false,
            did: Vec::new(),
            wake_at: None,
            ids: 0,
        }
    }

    /// Plans and executes until there is nothing more to do; returns what was done.
    pub(crate) fn settle(&mut self) -> String {
        self.did.clear();
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "does not settle: {:?}", self.did);
            if self.forgotten || !self.step() {
                break;
            }
        }
        if self.did.is_empty() { "-".to_owned() } else { self.did.join(", ") }
    }

    /// One plan, its actions, the status. Whether anything was done.
    pub(crate) fn step(&mut self) -> bool {
        self.memory.probes.observe(
            &self.pod,
            &self.containers,
            &std::collections::BTreeSet::new(),
            self.memory.ending.is_some(),
        );
        let plan = plan(&self.snapshot());
        self.memory.keep(&plan);
        let status = status(&self.snapshot(), &plan, &addresses());
        if !self.gone {
            self.pod.status = Some(status);
        }
        self.wake_at = plan.wake_at;
        for action in &plan.actions {
            self.memory.begin(action, self.now);
            self.execute(action);
        }
        !plan.actions.is_empty()
    }

    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            pod: &self.pod,
            gone: self.gone,
            sandboxes: &self.sandboxes,
            containers: &self.containers,
            memory: &self.memory,
            now: self.now,
        }
    }

    /// Does an action at once.
    pub(crate) fn execute(&mut self, action: &Action) {
        match action {
            Action::MountVolumes => {
                self.memory.end(&Work::Mount);
                self.memory.mount_done(!self.mounts_broken, self.now);
                self.did.push(if self.mounts_broken { "mount fails" } else { "mount" }.to_owned());
            }
            Action::RunSandbox { attempt } => {
                self.ids += 1;
                self.sandboxes.push(Sandbox { id: format!("s{}", self.ids), ready: true, attempt: *attempt });
                self.memory.end(&Work::Sandbox);
                self.memory.sandbox_done(true, self.now);
                self.did.push("sandbox".to_owned());
            }
            Action::StartContainer { name, attempt, .. } => self.start(name, *attempt),
            Action::StopContainer { name, grace, why, .. } => {
                let why = match why {
                    StopWhy::PodEnds => String::new(),
                    StopWhy::Unhealthy(kind) => format!(" ({})", kind.word()),
                    StopWhy::Changed => " (changed)".to_owned(),
                };
                self.did.push(format!("stop {name} in {}s{why}", grace.as_secs()));
            }
            Action::Cancel => self.did.push("cancel".to_owned()),
            Action::RemoveContainer { id } => {
                self.containers.retain(|container| container.id != *id);
                self.memory.end(&Work::Remove { id: id.clone() });
            }
            Action::RemoveSandbox { id } => {
                self.sandboxes.retain(|sandbox| sandbox.id != *id);
                self.containers.retain(|container| container.sandbox != *id);
                self.memory.end(&Work::Remove { id: id.clone() });
                self.did.push(format!("remove {id}"));
            }
            Action::HandOver { request, name, .. } => {
                self.memory.end(&Work::HandOver { request: request.clone() });
                self.memory.handed_over(request, self.hand_over_code);
                self.did.push(format!("hand over in {name}"));
            }
            Action::AnswerHandOver { code, .. } => self.answer(*code),
            Action::StopSandboxes => {
                let until = self.memory.ending.as_ref().map(|end| later(end.since, end.grace));
                let in_grace = until.is_none_or(|until| self.now < until);
                let running = self.snapshot().running().next().is_some();
                assert!(!(running && in_grace), "a sandbox was stopped under a running container");
                self.sandboxes_die();
                self.memory.end(&Work::StopSandboxes);
                self.did.push("stop sandbox".to_owned());
            }
            Action::Teardown => {
                self.memory.torn_down = true;
                self.memory.end(&Work::Teardown);
                self.did.push("teardown".to_owned());
            }
            Action::DeleteObject => {
                self.deleted = true;
                self.gone = true;
                self.memory.delete_sent = true;
                self.memory.end(&Work::Delete);
                self.did.push("delete".to_owned());
            }
            Action::Forget => {
                self.forgotten = true;
                self.did.push("forget".to_owned());
            }
        }
    }

    fn start(&mut self, name: &str, attempt: u32) {
        self.memory.end(&Work::Start { name: name.to_owned() });
        if let Some((_, reason, message)) = self.broken.iter().find(|(broken, ..)| broken == name) {
            self.memory.start_failed(name, reason, message, self.now);
            self.did.push(format!("start {name} fails"));
            return;
        }
        self.memory.start_succeeded(name);
        self.ids += 1;
        let spec = spec::container(&self.pod, name).expect("only known containers are started");
        self.containers.push(Container {
            id: format!("c{}", self.ids),
            sandbox: self.snapshot().sandbox().expect("containers need a sandbox").id.clone(),
            name: name.to_owned(),
            attempt,
            hash: spec::hash(&spec),
            image: spec.image.unwrap_or_default(),
            image_id: "sha256:1".to_owned(),
            state: State::Running { started: self.now },
        });
        self.did.push(if attempt == 0 { format!("start {name}") } else { format!("start {name}#{attempt}") });
    }

    pub(crate) fn happen(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [time] if time.starts_with('+') => self.pass(time),
            ["exit", name, code] => self.exit(name, code.parse().expect("an exit code"), false),
            ["oom", name] => self.exit(name, 137, true),
            ["probe", kind, name, answer @ ..] => self.probe(kind, name, answer),
            ["delete", seconds] => self.delete(seconds.parse().expect("seconds")),
            ["gone"] => self.gone = true,
            ["break", name, reason, message @ ..] => {
                self.broken.push(((*name).to_owned(), (*reason).to_owned(), message.join(" ")));
            }
            ["mend"] => {
                self.broken.clear();
                (self.mounts_broken, self.answers_broken) = (false, false);
            }
            ["changed"] => self.memory.reference_changed(),
            ["break", "mounts"] => self.mounts_broken = true,
            ["break", "answers"] => self.answers_broken = true,
            ["command", code] => self.hand_over_code = code.parse().expect("an exit code"),
            ["ask", request] => self.ask(request, r#"["leave"]"#),
            ["ask", "operator", request] => self.ask(request, "wait"),
            ["unask"] => self.pod.metadata.annotations = None,
            ["image", name, image] => self.set_image(name, image),
            ["sandbox", "dies"] => self.sandboxes_die(),
            ["node", "restarts"] => self.memory = Memory::default(),
            ["killed", "after", "create", name] => self.killed(name, State::Created),
            ["killed", "in", "start", name] => self.killed(name, State::Starting),
            ["runs", name] => self.runs(name),
            _ => panic!("no such event: {line}"),
        }
    }

    fn answer(&mut self, code: i32) {
        self.memory.end(&Work::Answer);
        self.memory.answered(self.now);
        if !self.answers_broken {
            let annotations = self.pod.metadata.annotations.get_or_insert_default();
            annotations.insert(hand_over::DONE.to_owned(), code.to_string());
        }
        self.did.push(format!("answer {code}"));
    }

    /// Asks the pod to hand over.
    fn ask(&mut self, request: &str, how: &str) {
        let annotations = [(hand_over::REQUESTED, request), (hand_over::HAND_OVER, how)];
        self.pod.metadata.annotations = Some(annotations.map(|(key, text)| (key.to_owned(), text.to_owned())).into());
    }

    /// Lets time pass, looking again whenever the plan asked for it.
    fn pass(&mut self, text: &str) {
        let seconds: f64 = text.trim_matches(['+', 's']).parse().expect("seconds");
        self.now = later(self.now, SignedDuration::from_secs_f64(seconds));
    }

    pub(crate) fn exit(&mut self, name: &str, code: i32, oom_killed: bool) {
        let now = self.now;
        let running = self.containers.iter_mut().find(|one| one.name == name && one.running_since().is_some());
        let container = running.expect("an exit of a running container");
        let started = container.running_since().expect("it runs");
        container.state = State::Exited(Exit {
            started,
            finished: now,
            code,
            signal: None,
            oom_killed,
            start_error: None,
            message: None,
        });
        let id = container.id.clone();
        self.memory.end(&Work::Stop { id, until: now });
    }

    /// The node was killed while it started the newest attempt, which had been reported as it was then.
    fn killed(&mut self, name: &str, left: State) {
        let newest = self.containers.iter_mut().filter(|one| one.name == name).max_by_key(|one| one.attempt);
        newest.expect("a container that is started").state = left;
        self.memory.working.push(Work::Start { name: name.to_owned() });
        self.pod.status = Some(status(&self.snapshot(), &plan(&self.snapshot()), &addresses()));
        self.memory = Memory::default();
    }

    /// A start that nobody waits for any more has succeeded.
    pub(crate) fn runs(&mut self, name: &str) {
        let now = self.now;
        let starting = self.containers.iter_mut().find(|one| one.name == name && one.state == State::Starting);
        starting.expect("a start under way").state = State::Running { started: now };
    }

    /// What runs, or is being started, dies with its sandbox.
    pub(crate) fn sandboxes_die(&mut self) {
        self.sandboxes.iter_mut().for_each(|sandbox| sandbox.ready = false);
        let running: Vec<String> = self.snapshot().running().map(|container| container.name.clone()).collect();
        running.iter().for_each(|name| self.exit(name, 137, false));
        let now = self.now;
        for one in self.containers.iter_mut().filter(|one| one.state == State::Starting) {
            one.state = State::Exited(Exit {
                started: now,
                finished: now,
                code: 137,
                signal: Some(9),
                oom_killed: false,
                start_error: None,
                message: None,
            });
        }
    }

    fn probe(&mut self, kind: &str, name: &str, answer: &[&str]) {
        let kind = ProbeKind::ALL.into_iter().find(|one| one.word() == kind).expect("a probe kind");
        let times = answer.get(1).map_or(1, |times| times.trim_start_matches('x').parse().expect("a count"));
        for _ in 0..times {
            self.memory.probes.observe(
                &self.pod,
                &self.containers,
                &std::collections::BTreeSet::new(),
                self.memory.ending.is_some(),
            );
            let next = self.memory.probes.next_due().expect("a probe is due");
            self.now = self.now.max(next);
            let Some(id) = self.memory.probes.begin(name, kind, self.now) else {
                panic!("no probe {kind:?} of {name}")
            };
            let recorded = self.memory.probes.record(name, kind, &id, answer.first() == Some(&"ok"), self.now);
            self.did.push(format!("{recorded:?}"));
        }
    }

    pub(crate) fn delete(&mut self, seconds: i64) {
        self.pod.metadata.deletion_timestamp = Some(Time(later(self.now, SignedDuration::from_secs(seconds))));
        self.pod.metadata.deletion_grace_period_seconds = Some(seconds);
    }

    fn set_image(&mut self, name: &str, image: &str) {
        let spec = self.pod.spec.as_mut().expect("stories have a spec");
        let container = spec.containers.iter_mut().find(|container| container.name == name).expect("a main container");
        container.image = Some(image.to_owned());
    }

    /// Phase, readiness, what waits and why, restarts, and when the plan wants to look again.
    fn report(&self) -> String {
        let status = self.pod.status.clone().unwrap_or_default();
        if self.forgotten {
            return "forgotten".to_owned();
        }
        let mut words = vec![status.phase.clone().unwrap_or_default()];
        let conditions = status.conditions.clone().unwrap_or_default();
        let is_true = |kind: &str| conditions.iter().any(|one| one.type_ == kind && one.status == "True");
        words.push(if is_true("Ready") { "Ready" } else { "NotReady" }.to_owned());
        let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
        words.extend(lists.into_iter().flatten().flatten().map(brief));
        if let Some(reason) = &status.reason {
            words.push(reason.clone());
        }
        if let Some(wake) = self.wake_at {
            words.push(format!("wake {}", wake.duration_since(self.start).as_secs_f64()));
        }
        words.join(" ")
    }
}

fn brief(status: &ContainerStatus) -> String {
    let state = status.state.clone().unwrap_or_default();
    let text = if let Some(waiting) = state.waiting {
        waiting.reason.unwrap_or_default()
    } else if let Some(ended) = state.terminated {
        format!("{}({})", ended.reason.unwrap_or_default(), ended.exit_code)
    } else if status.ready {
        "up".to_owned()
    } else {
        "running".to_owned()
    };
    format!("{}:{text}", status.name)
}

fn addresses() -> Addresses {
    Addresses {
        host: vec![std::net::Ipv4Addr::new(192, 0, 2, 2).into()],
        pod: vec![std::net::Ipv4Addr::new(10, 42, 0, 5).into()],
        engine: "stead".to_owned(),
    }
}

/// A pod from words: `init:a sidecar:b main:c readiness:c policy=Never grace=30 deadline=60`.
pub(crate) fn pod(words: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = Some("p".to_owned());
    pod.metadata.namespace = Some("ns".to_owned());
    pod.metadata.uid = Some("u".to_owned());
    let mut spec = PodSpec { init_containers: Some(Vec::new()), ..PodSpec::default() };
    for word in words.split_whitespace() {
        word_of_pod(&mut spec, word);
    }
    pod.spec = Some(spec);
    pod
}

fn word_of_pod(spec: &mut PodSpec, word: &str) {
    let container = |name: &str, policy: Option<&str>| Spec {
        name: name.to_owned(),
        image: Some("i:1".to_owned()),
        restart_policy: policy.map(str::to_owned),
        ..Spec::default()
    };
    let inits = spec.init_containers.get_or_insert_default();
    match word.split_once([':', '=']) {
        Some(("init", name)) => inits.push(container(name, None)),
        Some(("sidecar", name)) => inits.push(container(name, Some("Always"))),
        Some(("main", name)) => spec.containers.push(container(name, None)),
        Some(("policy", policy)) => spec.restart_policy = Some(policy.to_owned()),
        Some(("grace", seconds)) => spec.termination_grace_period_seconds = seconds.parse().ok(),
        Some(("deadline", seconds)) => spec.active_deadline_seconds = seconds.parse().ok(),
        Some((kind, name)) => {
            let probe =
                Probe { tcp_socket: Some(TCPSocketAction::default()), period_seconds: Some(10), ..Probe::default() };
            let containers = inits.iter_mut().chain(&mut spec.containers);
            let target = containers.into_iter().find(|container| container.name == name).expect("a known container");
            match kind {
                "readiness" => target.readiness_probe = Some(probe),
                "liveness" => target.liveness_probe = Some(probe),
                "startup" => target.startup_probe = Some(probe),
                _ => panic!("no such word: {word}"),
            }
        }
        None => panic!("no such word: {word}"),
    }
}
