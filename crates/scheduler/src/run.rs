//! The loop: takes in what changed, places who is ready, and lets bindings and reports go on beside it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use stead_client::Client;
use stead_informer::{Cache, Caches, Changes, Recorder};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bind::{BindError, Binder};
use crate::config::{BINDINGS_MAX, Config};
use crate::mirror::{Assumed, Decision, Mirror};
use crate::report::Reporter;

/// Places pods until `shutdown`. Bindings under way then may happen or not: the next start finds out.
pub async fn run(client: Client, caches: Caches, shutdown: CancellationToken) {
    run_with(Config::default(), client, caches, shutdown).await;
}

/// The same with settings.
pub async fn run_with(config: Config, client: Client, caches: Caches, shutdown: CancellationToken) {
    let sources = Sources::new(&caches);
    if shutdown.run_until_cancelled(sources.synced()).await.is_none() {
        return;
    }
    let recorder = Recorder::new(client.clone(), &config.name, "", config.clock.clone());
    let binder = Binder {
        client: client.clone(),
        claims: sources.claims.clone(),
        volumes: sources.volumes.clone(),
        nodes: sources.nodes.clone(),
        slots: Arc::new(Semaphore::new(BINDINGS_MAX)),
    };
    let reporter = Reporter { client, recorder, pods: sources.pods.clone(), scheduler: config.name.clone() };
    let (mirror, streams) = (Mirror::new(&config.name), sources.streams());
    let scheduler = Scheduler { config, mirror, sources, streams, binder, reporter, work: JoinSet::new() };
    scheduler.run(shutdown).await;
}

/// The caches that a placement looks at.
struct Sources {
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    classes: Cache<StorageClass>,
    namespaces: Cache<Namespace>,
    budgets: Cache<PodDisruptionBudget>,
}

impl Sources {
    fn new(caches: &Caches) -> Self {
        Self {
            pods: caches.of(),
            nodes: caches.of(),
            claims: caches.of(),
            volumes: caches.of(),
            classes: caches.of(),
            namespaces: caches.of(),
            budgets: caches.of(),
        }
    }

    async fn synced(&self) {
        self.pods.synced().await;
        self.nodes.synced().await;
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
        self.namespaces.synced().await;
        self.budgets.synced().await;
    }

    fn streams(&self) -> Streams {
        Streams {
            pods: self.pods.subscribe(),
            nodes: self.nodes.subscribe(),
            claims: self.claims.subscribe(),
            volumes: self.volumes.subscribe(),
            classes: self.classes.subscribe(),
            namespaces: self.namespaces.subscribe(),
            budgets: self.budgets.subscribe(),
        }
    }
}

struct Streams {
    pods: Changes<Pod>,
    nodes: Changes<Node>,
    claims: Changes<PersistentVolumeClaim>,
    volumes: Changes<PersistentVolume>,
    classes: Changes<StorageClass>,
    namespaces: Changes<Namespace>,
    budgets: Changes<PodDisruptionBudget>,
}

struct Scheduler {
    config: Config,
    mirror: Mirror,
    sources: Sources,
    streams: Streams,
    binder: Binder,
    reporter: Reporter,
    /// Bindings and reports under way.
    work: JoinSet<Option<Outcome>>,
}

/// How a binding ended.
type Outcome = (Assumed, Result<(), BindError>);

/// What the loop woke up for.
enum Wake {
    /// Something changed: it is taken in with everything else that has.
    Change,
    Done(Option<Outcome>),
    Due,
    /// The caches are shut down.
    Closed,
}

impl Scheduler {
    async fn run(mut self, shutdown: CancellationToken) {
        loop {
            self.take_in();
            while let Some(decision) = self.mirror.decide() {
                self.act(decision);
                self.take_in();
            }
            match shutdown.run_until_cancelled(self.wake()).await {
                None | Some(Wake::Closed) => break,
                Some(Wake::Change | Wake::Due) => {}
                Some(Wake::Done(outcome)) => self.done(outcome),
            }
        }
        // What is left undone is decided anew from the API at the next start.
        self.work.shutdown().await;
    }

    async fn wake(&mut self) -> Wake {
        let due = self.mirror.next_due();
        let (streams, mirror) = (&mut self.streams, &mut self.mirror);
        macro_rules! changed {
            ($change:expr, $take:ident) => {
                match $change {
                    Some(change) => {
                        mirror.$take(&change);
                        Wake::Change
                    }
                    None => Wake::Closed,
                }
            };
        }
        // In a fixed order, so that a simulation can be replayed; whatever has changed is taken in together anyway.
        tokio::select! {
            biased;
            Some(done) = self.work.join_next() => Wake::Done(done.ok().flatten()),
            change = streams.pods.next() => changed!(change, pod),
            change = streams.nodes.next() => changed!(change, node),
            change = streams.claims.next() => changed!(change, claim),
            change = streams.volumes.next() => changed!(change, volume),
            change = streams.classes.next() => changed!(change, class),
            change = streams.namespaces.next() => changed!(change, namespace),
            change = streams.budgets.next() => changed!(change, budget),
            () = until(due), if due.is_some() => Wake::Due,
        }
    }

    /// Takes in everything that has changed; what pods depend on before the pods.
    fn take_in(&mut self) {
        let (streams, mirror) = (&mut self.streams, &mut self.mirror);
        std::iter::from_fn(|| streams.nodes.try_next()).for_each(|change| mirror.node(&change));
        std::iter::from_fn(|| streams.classes.try_next()).for_each(|change| mirror.class(&change));
        std::iter::from_fn(|| streams.volumes.try_next()).for_each(|change| mirror.volume(&change));
        std::iter::from_fn(|| streams.claims.try_next()).for_each(|change| mirror.claim(&change));
        std::iter::from_fn(|| streams.namespaces.try_next()).for_each(|change| mirror.namespace(&change));
        std::iter::from_fn(|| streams.budgets.try_next()).for_each(|change| mirror.budget(&change));
        std::iter::from_fn(|| streams.pods.try_next()).for_each(|change| mirror.pod(&change));
        mirror.advance(Instant::now());
    }

    fn act(&mut self, decision: Decision) {
        match decision {
            Decision::Bind(assumed) => {
                let binder = self.binder.clone();
                self.work.spawn(async move {
                    let outcome = binder.bind(&assumed).await;
                    Some((assumed, outcome))
                });
            }
            Decision::Refuse(key, pod, refused) => {
                tracing::debug!(%key, message = refused.message, "fits nowhere");
                let (reporter, now) = (self.reporter.clone(), (self.config.clock)());
                let unknown = self.mirror.unknown_claims(&pod, &refused);
                self.work.spawn(async move {
                    reporter.refused(pod, refused, unknown, now).await;
                    None
                });
            }
        }
    }

    fn done(&mut self, outcome: Option<Outcome>) {
        let Some((assumed, result)) = outcome else { return };
        let Err(error) = result else {
            self.mirror.bound(&assumed);
            return self.reporter.bound(&assumed);
        };
        let (key, node) = (&assumed.key, &assumed.node);
        tracing::warn!(%key, node, %error, "cannot bind");
        let claims = &self.sources.claims;
        let live = |name: &str| name.split_once('/').and_then(|(namespace, name)| claims.get(namespace, name));
        self.mirror.unbound(&assumed, Instant::now(), live);
        if let BindError::Failed(text) = error {
            let (reporter, now) = (self.reporter.clone(), (self.config.clock)());
            self.work.spawn(async move {
                reporter.failed(assumed.pod, text, now).await;
                None
            });
        }
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}
