//! Which pods are on this node, and a worker for each. Two pods of one name never overlap: the second one waits until
//! nothing of the first is left.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::Api;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use parking_lot::Mutex;
use stead_podlife::spec;
use stead_runtime::EngineEvent;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;

use crate::Node;
use crate::inbox::Inbox;
use crate::ledger::{self, Page};
use crate::worker;

/// All pods of this node.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    table: Mutex<Table>,
    /// A worker has ended.
    pub ended: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// By uid.
    live: HashMap<String, Entry>,
    /// Pods whose name is still taken by another uid, by uid.
    waiting: HashMap<String, Arc<Pod>>,
}

#[derive(Clone, Debug)]
struct Entry {
    pod: Arc<Pod>,
    inbox: Arc<Inbox>,
    /// It may stay on this node, and what it asks for is its own.
    admitted: bool,
    /// The object is gone from the API.
    gone: bool,
    /// Nothing of it runs or will run again: its name is free.
    down: bool,
}

impl Entry {
    /// A pod of which an earlier process has reported was admitted by it.
    fn new(pod: Arc<Pod>, inbox: Arc<Inbox>, gone: bool) -> Self {
        let admitted = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        Entry { pod, inbox, admitted, gone, down: false }
    }

    /// Whether the node has less room because of it.
    fn takes_room(&self) -> bool {
        self.admitted && !self.gone && !self.down && !spec::is_terminal(&self.pod)
    }
}

fn name_of(pod: &Pod) -> (&str, &str) {
    let (name, namespace, _) = spec::identity(pod);
    (namespace, name)
}

impl Pods {
    /// Newest objects of all pods that have a worker or wait for one.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<Arc<Pod>> {
        let table = self.table.lock();
        table.live.values().map(|entry| entry.pod.clone()).chain(table.waiting.values().cloned()).collect()
    }

    /// Those of [`Pods::list`] of which something runs or will run.
    #[must_use]
    pub(crate) fn holding(&self) -> Vec<Arc<Pod>> {
        let table = self.table.lock();
        let up = table.live.values().filter(|entry| !entry.down).map(|entry| entry.pod.clone());
        up.chain(table.waiting.values().cloned()).collect()
    }

    #[must_use]
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let table = self.table.lock();
        let named = table.live.values().filter(|entry| name_of(&entry.pod) == (namespace, name));
        named.min_by_key(|entry| entry.down).map(|entry| entry.pod.clone())
    }

    /// Asks `decide` about a pod, beside those that have been admitted. One after the other, so that no two refuse each other.
    ///
    /// # Errors
    /// What `decide` has against it.
    pub(crate) fn admit<E>(&self, uid: &str, decide: impl FnOnce(Vec<Arc<Pod>>) -> Result<(), E>) -> Result<(), E> {
        let mut table = self.table.lock();
        let others = table.live.iter().filter(|(other, entry)| *other != uid && entry.takes_room());
        decide(others.map(|(_, entry)| entry.pod.clone()).collect())?;
        if let Some(entry) = table.live.get_mut(uid) {
            entry.admitted = true;
        }
        Ok(())
    }

    fn inbox(&self, uid: &str) -> Option<Arc<Inbox>> {
        self.table.lock().live.get(uid).map(|entry| entry.inbox.clone())
    }
}

impl Node {
    /// Follows the pods of this node for ever.
    pub(crate) async fn follow_pods(self: Arc<Self>) {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.config.name));
        let api: Api<Pod> = Api::all(self.client.clone());
        let mut events = std::pin::pin!(watch_objects(api, config).default_backoff());
        let mut listed: HashMap<String, Arc<Pod>> = HashMap::new();
        let mut first = true;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(pod)) => {
                    listed.insert(pod.metadata.uid.clone().unwrap_or_default(), Arc::new(pod));
                }
                Ok(Event::InitDone) => {
                    let uids: HashSet<String> = listed.keys().cloned().collect();
                    self.drop_unlisted(&uids);
                    // Before anything is started: what is left of an older pod keeps its name taken.
                    if std::mem::take(&mut first) {
                        self.take_up_orphans(&uids).await;
                    }
                    listed.drain().for_each(|(_, pod)| self.see(pod));
                }
                Ok(Event::Apply(pod)) => self.see(Arc::new(pod)),
                Ok(Event::Delete(pod)) => self.lose(pod),
                Err(error) => tracing::warn!(%error, "watch of the node's pods"),
            }
        }
    }

    /// Tells workers what happens to their containers, for ever.
    pub(crate) async fn follow_engine(self: Arc<Self>) {
        let mut events = self.engine.events();
        loop {
            match events.recv().await {
                Ok(EngineEvent::ContainerExited { sandbox, .. } | EngineEvent::SandboxStopped { sandbox }) => {
                    let uid = self.owners.lock().get(&sandbox).cloned();
                    if let Some(inbox) = uid.and_then(|uid| self.pods.inbox(&uid)) {
                        inbox.engine_changed();
                    }
                }
                // Starts are this node's own doing and are reported as such.
                Ok(EngineEvent::ContainerStarted { .. }) => {}
                Err(RecvError::Lagged(_)) => self.wake_all(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn wake_all(&self) {
        self.pods.table.lock().live.values().for_each(|entry| entry.inbox.engine_changed());
    }

    fn see(self: &Arc<Self>, pod: Arc<Pod>) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut table = self.pods.table.lock();
        if let Some(entry) = table.live.get_mut(&uid) {
            entry.pod = pod.clone();
            return entry.inbox.pod(pod);
        }
        let taken = table.live.values().any(|entry| !entry.down && name_of(&entry.pod) == name_of(&pod));
        if taken {
            table.waiting.insert(uid, pod);
        } else {
            self.work_on(&mut table, pod, false);
        }
    }

    /// The object is gone. One that goes without having been asked to end was deleted by force: it has no grace.
    fn lose(&self, mut pod: Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        pod.metadata.deletion_grace_period_seconds.get_or_insert(0);
        let mut table = self.pods.table.lock();
        table.waiting.remove(&uid);
        if let Some(entry) = table.live.get_mut(&uid) {
            entry.pod = Arc::new(pod);
            entry.gone = true;
            entry.inbox.pod(entry.pod.clone());
            entry.inbox.gone();
        }
    }

    fn drop_unlisted(&self, listed: &HashSet<String>) {
        let mut table = self.pods.table.lock();
        table.waiting.retain(|uid, _| listed.contains(uid));
        for (_, entry) in table.live.iter_mut().filter(|(uid, _)| !listed.contains(*uid)) {
            entry.gone = true;
            entry.inbox.gone();
        }
    }

    fn work_on(self: &Arc<Self>, table: &mut Table, pod: Arc<Pod>, gone: bool) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let inbox = Arc::new(Inbox::default());
        table.live.insert(uid.clone(), Entry::new(pod.clone(), inbox.clone(), gone));
        let node = self.clone();
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let ended = stop.run_until_cancelled(worker::run(node.clone(), pod, gone, inbox)).await;
            if ended.is_some() {
                node.retire(&uid);
            }
        });
    }

    /// Nothing of the pod runs or will run again: the next pod of its name may begin.
    pub(crate) fn release(self: &Arc<Self>, uid: &str) {
        let mut table = self.pods.table.lock();
        let Some(entry) = table.live.get_mut(uid).filter(|entry| !entry.down) else { return };
        entry.down = true;
        let pod = entry.pod.clone();
        self.succeed(&mut table, &pod);
    }

    /// A worker has ended.
    fn retire(self: &Arc<Self>, uid: &str) {
        let mut table = self.pods.table.lock();
        if let Some(entry) = table.live.remove(uid).filter(|entry| !entry.down) {
            self.succeed(&mut table, &entry.pod);
        }
        drop(table);
        self.pods.ended.notify_waiters();
    }

    /// Begins the next pod of this name.
    fn succeed(self: &Arc<Self>, table: &mut Table, before: &Pod) {
        let next = table.waiting.iter().find(|(_, pod)| name_of(pod) == name_of(before)).map(|(uid, _)| uid.clone());
        if let Some(pod) = next.and_then(|uid| table.waiting.remove(&uid)) {
            self.work_on(table, pod, false);
        }
    }

    /// What an earlier process left behind of pods that no longer exist is taken down as if it had been seen to go.
    async fn take_up_orphans(self: &Arc<Self>, listed: &HashSet<String>) {
        let page = match self.ledger.fresh().await {
            Ok(page) => page,
            Err(error) => return tracing::warn!(%error, "cannot look for pods of an earlier process"),
        };
        for (uid, sandboxes) in &page.sandboxes {
            for sandbox in sandboxes {
                self.owners.lock().insert(sandbox.id.clone(), uid.clone());
            }
        }
        let orphans: Vec<Pod> =
            page.sandboxes.keys().filter(|uid| !listed.contains(*uid)).filter_map(|uid| remains(&page, uid)).collect();
        {
            let mut table = self.pods.table.lock();
            for pod in orphans {
                self.work_on(&mut table, Arc::new(pod), true);
            }
        }
        self.remove_strays(listed, &page).await;
    }

    /// Networks and directories without a sandbox.
    async fn remove_strays(self: &Arc<Self>, listed: &HashSet<String>, page: &Page) {
        let is_stray = |uid: &str| !listed.contains(uid) && !page.sandboxes.contains_key(uid);
        for link in self.network.attached().await.unwrap_or_default() {
            if is_stray(&link.id) {
                if let Err(error) = self.network.detach(&link.id).await {
                    tracing::warn!(id = link.id, %error, "cannot detach a network without a pod");
                }
                self.addresses.give_back(&link.id);
            }
        }
        let Ok(entries) = std::fs::read_dir(self.config.data_dir.join("pods")) else { return };
        for dir in entries.filter_map(Result::ok) {
            let uid = dir.file_name().to_string_lossy().into_owned();
            if is_stray(&uid) && !self.remove_stray(&dir.path()).await {
                tokio::spawn(self.clone().remove_stray_later(dir.path()));
            }
        }
    }
}

impl Node {
    /// Volumes of storage drivers wait for these, which may come later than this process.
    async fn remove_stray_later(self: Arc<Self>, path: PathBuf) {
        let mut changes = self.driver_changes();
        while !self.remove_stray(&path).await {
            if self.stop.run_until_cancelled(changes.next()).await.is_none() {
                return;
            }
        }
    }

    /// Removes the files of a pod that is gone, if nothing keeps them.
    async fn remove_stray(&self, path: &Path) -> bool {
        let removed = async {
            self.release_driver_volumes(path).await?;
            let path = path.to_owned();
            let remove = move || {
                crate::volumes::unmount(&path)?;
                crate::volumes::remove_tree(&path).map_err(|error| error.to_string())
            };
            crate::volumes::blocking(remove).await
        };
        let removed: Result<(), String> = removed.await;
        if let Err(cause) = &removed {
            tracing::warn!(path = %path.display(), cause, "cannot remove the files of a pod that is gone");
        }
        removed.is_ok()
    }
}

/// A pod as far as its sandbox remembers it.
fn remains(page: &Page, uid: &str) -> Option<Pod> {
    let labels = &page.sandboxes.get(uid)?.first()?.config.labels;
    let mut pod = Pod::default();
    pod.metadata.uid = Some(uid.to_owned());
    pod.metadata.name = labels.get(ledger::POD_NAME).cloned();
    pod.metadata.namespace = labels.get(ledger::POD_NAMESPACE).cloned();
    pod.spec = Some(PodSpec {
        termination_grace_period_seconds: labels.get(ledger::POD_GRACE).and_then(|text| text.parse().ok()),
        ..PodSpec::default()
    });
    Some(pod)
}
