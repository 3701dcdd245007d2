//! Runs controllers: caches, queue, workers, back-off and waiting for one's own writes, the same for all.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use jiff::Timestamp;
use stead_client::{Class, Client};
use stead_informer::{Caches, Key, Next, Queue, Recorder, run_workers};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Config, Error, OwnWrites, registry};

/// What every controller is given. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub client: Client,
    pub caches: Caches,
    /// Tells events in the name of this controller.
    pub recorder: Recorder,
    pub config: Arc<Config>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("caches", &self.caches).field("config", &self.config).finish_non_exhaustive()
    }
}

impl Context {
    /// The time of day, from the configured clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.config.clock)()
    }
}

/// One control loop. See the crate's documentation for the shape.
pub trait Controller: Sized + Send + Sync + 'static {
    /// Upstream's name; the source of its events, and its name in [`Config::disabled`].
    const NAME: &'static str;
    /// Upstream's service account in `kube-system` in whose name it writes: its roles hold what it may do.
    const ACCOUNT: &'static str = Self::NAME;
    /// How many keys are worked on at the same time.
    const WORKERS: usize = 5;

    /// Opens caches, adds indexes and wires changes to `queue`. Must not wait.
    fn start(cx: Context, queue: &Queue<Key>) -> Self;

    /// Waits until the caches it reads are complete.
    fn synced(&self) -> impl Future<Output = ()> + Send;

    /// Brings the object of `key` one step closer. `Ok` says when to look again apart from changes.
    ///
    /// # Errors
    /// The first failure; the key is tried again after its back-off.
    fn reconcile(&self, key: &Key) -> impl Future<Output = Result<Next, Error>> + Send;

    /// The writes that must be visible in the caches before a key is looked at again.
    fn writes(&self) -> Option<&OwnWrites> {
        None
    }
}

/// Runs every controller of the registry that is not disabled, until `shutdown`; work that was begun is finished.
pub async fn run(config: Config, client: Client, caches: Caches, shutdown: CancellationToken) {
    run_only(registry::all(), config, client, caches, shutdown).await;
}

/// The same with a choice of controllers. Dropped, it ends their work where it stands.
pub async fn run_only(
    entries: Vec<registry::Entry>,
    config: Config,
    client: Client,
    caches: Caches,
    shutdown: CancellationToken,
) {
    let config = Arc::new(config);
    let enabled = entries.into_iter().filter(|entry| !config.disabled.iter().any(|name| name == entry.name));
    let mut running = JoinSet::new();
    for entry in enabled {
        let client = config.accounts.as_ref().map_or_else(|| client.clone(), |account| account(entry.account));
        let recorder = Recorder::new(client.clone(), entry.name, "", config.clock.clone());
        let cx = Context { client, caches: caches.clone(), recorder, config: config.clone() };
        running.spawn((entry.run)(cx, shutdown.clone()));
    }
    while running.join_next().await.is_some() {}
}

/// Runs one controller.
pub(crate) async fn run_one<C: Controller>(cx: Context, shutdown: CancellationToken) {
    let queue = Queue::new();
    let controller = Arc::new(C::start(cx, &queue));
    if shutdown.run_until_cancelled(controller.synced()).await.is_none() {
        return;
    }
    let stop = shutdown.clone();
    run_workers(queue, C::WORKERS, shutdown, move |key| {
        let (controller, stop) = (controller.clone(), stop.clone());
        async move { work(&*controller, &key, &stop).await }
    })
    .await;
}

async fn work<C: Controller>(controller: &C, key: &Key, stop: &CancellationToken) -> Next {
    if let Some(writes) = controller.writes()
        && stop.run_until_cancelled(writes.seen(key)).await.is_none()
    {
        return Next::Done;
    }
    match controller.reconcile(key).await {
        Ok(next) => next,
        Err(error) => {
            report(C::NAME, key, &error);
            Next::Retry
        }
    }
}

fn report(controller: &str, key: &Key, error: &Error) {
    match error.class() {
        Some(Class::Conflict | Class::AlreadyExists | Class::NotFound | Class::NamespaceTerminating) => {
            tracing::debug!(controller, %key, %error, "the world moved on; will look again");
        }
        Some(Class::Expired | Class::Retryable | Class::Final) | None => {
            tracing::warn!(controller, %key, %error, "will try again");
        }
    }
}
