//! What the engine says is there, shared by all workers: one listing serves everybody who asked before it began.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use stead_runtime::{Container, Engine, EngineError, Image, Sandbox};

/// Label keys, those that other tools know from CRI.
pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub(crate) const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub(crate) const SANDBOX_ATTEMPT: &str = "stead.dev/sandbox-attempt";
/// Grace of the pod in seconds, for a sandbox whose pod object is gone.
pub(crate) const POD_GRACE: &str = "stead.dev/grace-seconds";

/// One listing.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub sandboxes: HashMap<String, Vec<Sandbox>>,
    pub containers: HashMap<String, Vec<Container>>,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    engine: Arc<dyn Engine>,
    /// Counts requests for a fresh page; a page is as new as the count when its listing began.
    asked: AtomicU64,
    page: tokio::sync::Mutex<(u64, Arc<Page>)>,
    images: Mutex<HashMap<String, Arc<Image>>>,
}

impl Ledger {
    #[must_use]
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Ledger { engine, asked: AtomicU64::new(0), page: tokio::sync::Mutex::default(), images: Mutex::default() }
    }

    /// A listing that began after this call.
    ///
    /// # Errors
    /// When the engine cannot list.
    pub(crate) async fn fresh(&self) -> Result<Arc<Page>, EngineError> {
        let ticket = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut page = self.page.lock().await;
        if page.0 < ticket {
            let began = self.asked.load(Ordering::SeqCst);
            *page = (began, Arc::new(self.list().await?));
        }
        Ok(page.1.clone())
    }

    async fn list(&self) -> Result<Page, EngineError> {
        let (sandboxes, containers) = futures::try_join!(self.engine.sandboxes(), self.engine.containers())?;
        let mut page = Page::default();
        let mut pod_of = HashMap::new();
        for sandbox in sandboxes {
            let Some(uid) = sandbox.config.labels.get(POD_UID).cloned() else { continue };
            pod_of.insert(sandbox.id.clone(), uid.clone());
            page.sandboxes.entry(uid).or_default().push(sandbox);
        }
        for container in containers {
            let uid = container.labels.get(POD_UID).or_else(|| pod_of.get(&container.sandbox)).cloned();
            page.containers.entry(uid.unwrap_or_default()).or_default().push(container);
        }
        Ok(page)
    }

    /// The image of a container, asked for once.
    pub(crate) async fn image(&self, reference: &str, id: &str) -> Option<Arc<Image>> {
        if let Some(known) = self.images.lock().get(id) {
            return Some(known.clone());
        }
        let image = self.engine.image(reference).await.ok().flatten().filter(|image| image.id == id)?;
        let image = Arc::new(image);
        self.images.lock().insert(id.to_owned(), image.clone());
        Some(image)
    }

    /// Tags may have moved.
    pub(crate) fn forget_images(&self) {
        self.images.lock().clear();
    }
}
