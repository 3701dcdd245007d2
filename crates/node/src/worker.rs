//! One task per pod: takes in what happened, looks at the world, asks `podlife::plan`, begins what it says, reports.
//! Nothing here waits for work: a container that pulls for minutes does not keep its pod from being deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use stead_client::{Class, classify};
use stead_informer::Severity;
use stead_podlife::backoff::{self, Backoff};
use stead_podlife::plan::Verdict;
use stead_podlife::{Action, Addresses, Container, Memory, PodPlan, Sandbox, Snapshot, Waiting, Work, spec};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Node;
use crate::context::Context;
use crate::execute::{Place, execute};
use crate::inbox::{Answer, Done, Inbox, News, Outcome};
use crate::observe;
use crate::probing::Target;
use crate::report;
use crate::volumes::Request;

/// Longest sleep between two looks when nothing happens; only a net for what no event told.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// Runs until the pod is gone from the API and from this node.
pub(crate) async fn run(node: Arc<Node>, pod: Arc<Pod>, gone: bool, inbox: Arc<Inbox>) {
    let mut worker = Worker::new(node, pod, gone, inbox);
    loop {
        let news = worker.context.inbox.take();
        worker.absorb(news);
        if worker.forgotten {
            return;
        }
        let wake_at = worker.look().await;
        let pause = wake_at.map(|at| at.duration_since((worker.context.node.clock)()));
        let pause = pause.map_or(IDLE_MAX, |pause| Duration::try_from(pause).unwrap_or_default()).min(IDLE_MAX);
        let inbox = worker.context.inbox.clone();
        tokio::select! {
            () = inbox.some() => {}
            // After so long a rest the engine is asked again, in case an event was missed.
            () = sleep_until(Instant::now() + pause) => worker.stale |= pause == IDLE_MAX,
        }
    }
}

struct Worker {
    context: Context,
    gone: bool,
    forgotten: bool,
    memory: Memory,
    sandboxes: Vec<Sandbox>,
    containers: Vec<Container>,
    /// The engine has to be asked again.
    stale: bool,
    /// Whether the pod may stay on this node has been asked.
    judged: bool,
    /// Waiting states that events were told of.
    told: BTreeMap<String, Waiting>,
    reports: Arc<Reports>,
    report_backoff: Option<Backoff>,
    /// The API refuses the status for good; the pod's end does not wait for it.
    report_refused: bool,
    refreshing: bool,
}

/// The answer of a status write, brought back by its task.
#[derive(Debug, Default)]
struct Reports {
    in_flight: Mutex<bool>,
    answer: Mutex<Option<Result<Arc<Pod>, Class>>>,
    refreshed: Mutex<Option<Result<Option<Timestamp>, String>>>,
}

impl Worker {
    fn new(node: Arc<Node>, pod: Arc<Pod>, gone: bool, inbox: Arc<Inbox>) -> Self {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let context = Context {
            node,
            pod,
            uid,
            inbox,
            mounted: Arc::default(),
            tokens: Arc::default(),
            cancel: CancellationToken::new(),
        };
        Worker {
            context,
            gone,
            forgotten: false,
            memory: Memory::default(),
            sandboxes: Vec::new(),
            containers: Vec::new(),
            stale: true,
            judged: false,
            told: BTreeMap::new(),
            reports: Arc::default(),
            report_backoff: None,
            report_refused: false,
            refreshing: false,
        }
    }

    fn now(&self) -> Timestamp {
        (self.context.node.clock)()
    }

    // --- what happened ---

    fn absorb(&mut self, news: News) {
        if let Some(pod) = news.pod {
            self.take_pod(pod);
        }
        self.gone |= news.gone;
        self.stale |= news.engine || !news.done.is_empty();
        for done in news.done {
            self.finish(done);
        }
        for answer in news.answers {
            self.answer(&answer);
        }
        if news.reference {
            self.memory.reference_changed();
            self.context.mounted.lock().refresh_at = Some(Timestamp::UNIX_EPOCH);
        }
        self.reported();
        self.refreshed();
    }

    /// Takes a newer object; an older one (a late event) is dropped.
    fn take_pod(&mut self, pod: Arc<Pod>) {
        let revision = |pod: &Pod| pod.metadata.resource_version.as_deref().and_then(|text| text.parse::<u64>().ok());
        let (old, new) = (revision(&self.context.pod), revision(&pod));
        if old.zip(new).is_some_and(|(old, new)| new < old) {
            return;
        }
        let labels = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
        if labels(&self.context.pod) != labels(&pod) {
            self.context.mounted.lock().refresh_at = Some(Timestamp::UNIX_EPOCH);
        }
        self.context.pod = pod;
    }

    fn finish(&mut self, done: Done) {
        let now = self.now();
        // What could not be removed is not tried again: it stays as if it were still being removed.
        if matches!((&done.work, &done.outcome), (Work::Remove { .. }, Outcome::Failed)) {
            return;
        }
        self.memory.end(&done.work);
        let ok = matches!(done.outcome, Outcome::Ok | Outcome::Deleted);
        match (&done.work, done.outcome) {
            (_, Outcome::Cancelled) => {}
            (Work::Mount, _) => self.memory.mount_done(ok, now),
            (Work::Sandbox, _) => self.memory.sandbox_done(ok, now),
            (Work::Start { name }, Outcome::NotStarted { reason, message }) => {
                self.memory.start_failed(name, &reason, &message, now);
            }
            (Work::Start { name }, _) => self.memory.start_succeeded(name),
            (Work::StopSandboxes | Work::Stop { .. }, _) => self.memory.down_done(ok, now),
            (Work::Teardown, _) => {
                self.memory.torn_down = ok;
                self.memory.down_done(ok, now);
            }
            (Work::Delete, outcome) => {
                self.memory.delete_sent |= outcome == Outcome::Deleted;
                self.forgotten = ok && self.gone && outcome == Outcome::Ok;
                self.memory.down_done(ok, now);
            }
            (Work::HandOver { request }, Outcome::HandedOver { code }) => self.memory.handed_over(request, code),
            (Work::Answer, _) => self.memory.answered(now),
            (Work::Remove { .. } | Work::HandOver { .. }, _) => {}
        }
    }

    fn answer(&mut self, answer: &Answer) {
        let (now, ok) = (self.now(), answer.result.is_ok());
        let recorded = self.memory.probes.record(&answer.name, answer.kind, &answer.container, ok, now);
        if let (true, Err(cause)) = (recorded.report, &answer.result) {
            let text = format!("{} probe failed: {cause}", answer.kind.title());
            self.context.event_of(&answer.name, Severity::Warning, "Unhealthy", &text);
        }
    }

    // --- one look ---

    /// Observes, plans, begins, reports. Returns when to look again.
    async fn look(&mut self) -> Option<Timestamp> {
        self.observe().await;
        if !self.judge().await {
            return Some(backoff::later(self.now(), backoff::CREATE.initial));
        }
        self.observe_probes();
        let plan = stead_podlife::plan(&self.snapshot());
        self.memory.keep(&plan);
        self.observe_probes();
        self.tell_waiting(&plan);
        let status = stead_podlife::status(&self.snapshot(), &plan, &self.addresses());
        let settled = self.report(status);
        if self.memory.torn_down && !self.sandboxes.iter().any(|sandbox| sandbox.ready) {
            self.context.node.release(&self.context.uid);
        }
        for action in &plan.actions {
            // The last word about the pod comes before its end.
            if settled || *action != Action::DeleteObject {
                self.begin(action);
            }
        }
        self.probe();
        let refresh = if plan.end.is_none() { self.refresh() } else { None };
        let retry = self.report_backoff.map(|backoff| backoff.due());
        [plan.wake_at, refresh, retry, self.memory.probes.next_due()].into_iter().flatten().min()
    }

    async fn observe(&mut self) {
        if !self.stale {
            return;
        }
        let node = self.context.node.clone();
        match node.ledger.fresh().await {
            Ok(page) => {
                self.stale = false;
                self.sandboxes = observe::sandboxes(&page, &self.context.uid);
                let known = std::mem::take(&mut self.containers);
                self.containers = observe::containers(&node, &self.context.pod, &page, &self.context.uid, &known).await;
            }
            Err(error) => tracing::warn!(%error, "cannot list containers"),
        }
    }

    /// Whether it is settled that the pod may stay, or that it may not. Once anything was made for it, it stays.
    async fn judge(&mut self) -> bool {
        let pod = self.context.pod.clone();
        let begun = pod.status.as_ref().is_some_and(|status| status.start_time.is_some()) || !self.sandboxes.is_empty();
        let ends = self.gone || pod.metadata.deletion_timestamp.is_some() || spec::is_terminal(&pod);
        if self.judged || begun || ends {
            self.judged = true;
            return true;
        }
        match self.context.node.judge(&pod).await {
            Ok(None) => self.judged = true,
            Ok(Some(rejection)) => {
                self.judged = true;
                self.context.event(Severity::Warning, &rejection.reason, &rejection.message);
                let message = format!("Pod was rejected: {}", rejection.message);
                self.memory.verdict = Some(Verdict { reason: rejection.reason, message });
            }
            Err(error) => tracing::debug!(pod = %spec::full_name(&pod), %error, "cannot say yet whether it may stay"),
        }
        self.judged
    }

    /// A container whose start is under way (its hook runs) does not count as running yet.
    fn observe_probes(&mut self) {
        let starting =
            |name: &str| self.memory.is_working(|work| matches!(work, Work::Start { name: other } if other == name));
        let held: BTreeSet<String> =
            self.containers.iter().map(|container| container.name.clone()).filter(|name| starting(name)).collect();
        let ending = self.memory.ending.is_some();
        self.memory.probes.observe(&self.context.pod, &self.containers, &held, ending);
    }

    fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            pod: &self.context.pod,
            gone: self.gone,
            sandboxes: &self.sandboxes,
            containers: &self.containers,
            memory: &self.memory,
            now: self.now(),
        }
    }

    /// The pod's own address is told once there is a sandbox; before, it is only reserved.
    fn addresses(&self) -> Addresses {
        let mut addresses = self.context.node.addresses_of(&self.context.pod);
        if self.sandboxes.is_empty() {
            addresses.pod.clear();
        }
        addresses
    }

    /// One event for each new back-off.
    fn tell_waiting(&mut self, plan: &PodPlan) {
        for (name, waiting) in &plan.waiting {
            if self.told.get(name) == Some(waiting) {
                continue;
            }
            match waiting.reason.as_str() {
                "CrashLoopBackOff" => {
                    let pod = spec::full_name(&self.context.pod);
                    let text = format!("Back-off restarting failed container {name} in pod {pod}");
                    self.context.event_of(name, Severity::Warning, "BackOff", &text);
                }
                "ImagePullBackOff" => {
                    let image =
                        spec::container(&self.context.pod, name).and_then(|spec| spec.image).unwrap_or_default();
                    let text = format!("Back-off pulling image \"{image}\"");
                    self.context.event_of(name, Severity::Normal, "BackOff", &text);
                    self.context.event_of(name, Severity::Warning, "Failed", "Error: ImagePullBackOff");
                }
                _ => {}
            }
        }
        self.told.clone_from(&plan.waiting);
    }

    fn begin(&mut self, action: &Action) {
        let now = self.now();
        self.memory.begin(action, now);
        let work = self.memory.working.last().cloned();
        tracing::debug!(pod = %spec::full_name(&self.context.pod), ?action, "begin");
        let (Some(work), false) = (work, *action == Action::Cancel) else {
            self.context.cancel.cancel();
            return;
        };
        let place = Place {
            sandbox: self.snapshot().sandbox().map(|sandbox| sandbox.id.clone()),
            sandboxes: self.sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect(),
        };
        tokio::spawn(execute(self.context.clone(), action.clone(), work, place));
    }

    fn probe(&mut self) {
        let now = self.now();
        for (name, kind) in self.memory.probes.due(now) {
            let Some(container) = spec::container(&self.context.pod, &name) else { continue };
            let Some(probe) = kind.of(&container).cloned() else { continue };
            let Some(id) = self.memory.probes.begin(&name, kind, now) else { continue };
            let context = self.context.clone();
            tokio::spawn(async move {
                let engine = context.node.engine.as_ref();
                let pod_ip = context.node.pod_ip(&context.pod);
                let target = Target { engine, container: &container, container_id: &id, pod_ip };
                let result = target.probe(&probe).await;
                context.inbox.answer(Answer { name, kind, container: id, result });
            });
        }
    }

    // --- volumes that follow their objects ---

    /// Rewrites volumes when something they are made from has changed or a token is old; returns when to do so next.
    fn refresh(&mut self) -> Option<Timestamp> {
        let due = self.context.mounted.lock().refresh_at;
        if !self.memory.mounted || self.refreshing {
            return None;
        }
        if due? > self.now() {
            return due;
        }
        self.refreshing = true;
        self.context.mounted.lock().refresh_at = None;
        let (context, reports) = (self.context.clone(), self.reports.clone());
        tokio::spawn(async move {
            let (pod, inbox, tokens) = (&context.pod, &context.inbox, &context.tokens);
            let result = Request { node: &context.node, pod, inbox, tokens }.refresh().await;
            *reports.refreshed.lock() = Some(result.map_err(|error| error.to_string()));
            context.inbox.reported();
        });
        None
    }

    fn refreshed(&mut self) {
        let Some(result) = self.reports.refreshed.lock().take() else { return };
        self.refreshing = false;
        let next = match result {
            Ok(next) => next,
            Err(cause) => {
                self.context.event(Severity::Warning, "FailedMount", &cause);
                Some(backoff::later(self.now(), backoff::CREATE.initial))
            }
        };
        // A change that came meanwhile has set its own time.
        self.context.mounted.lock().refresh_at.get_or_insert_with(|| next.unwrap_or(Timestamp::MAX));
    }

    // --- status ---

    /// Writes the status unless it is as it should be. Whether it is.
    fn report(&mut self, status: PodStatus) -> bool {
        if self.gone {
            return true;
        }
        let Some(patch) = report::patch(&self.context.pod, &status) else {
            self.report_backoff = None;
            return !*self.reports.in_flight.lock();
        };
        let too_soon = self.report_backoff.is_some_and(|backoff| backoff.due() > self.now());
        if *self.reports.in_flight.lock() || too_soon {
            return self.report_refused;
        }
        *self.reports.in_flight.lock() = true;
        let (context, reports) = (self.context.clone(), self.reports.clone());
        tokio::spawn(async move {
            let answer = report::send(&context.node, &context.pod, &patch).await;
            let answer = answer.map(Arc::new).map_err(|error| {
                tracing::debug!(pod = %spec::full_name(&context.pod), %error, "cannot write the status");
                classify(&error)
            });
            *reports.answer.lock() = Some(answer);
            *reports.in_flight.lock() = false;
            context.inbox.reported();
        });
        false
    }

    fn reported(&mut self) {
        let Some(answer) = self.reports.answer.lock().take() else { return };
        self.report_refused = matches!(answer, Err(Class::Final | Class::NotFound));
        match answer {
            Ok(pod) => {
                self.report_backoff = None;
                self.take_pod(pod);
            }
            // Gone, or another pod of this name: the watch will say so.
            Err(_) => {
                let now = self.now();
                self.report_backoff = Some(Backoff::next(self.report_backoff, backoff::SANDBOX, now, now));
            }
        }
    }
}
