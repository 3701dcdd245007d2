//! Config maps and secrets that pods of this node refer to, each watched once for all of them. Nothing else of its kind is
//! read: a node may only know what its pods use.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::inbox::Inbox;

/// What a reference names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

/// The bytes under each key; `None`: there is no such object.
pub(crate) type Data = Option<Arc<BTreeMap<String, Vec<u8>>>>;

/// The shared watches. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Objects {
    client: Client,
    slots: Arc<Mutex<HashMap<Reference, Slot>>>,
}

struct Slot {
    /// `None` until the first answer.
    found: watch::Sender<Option<Data>>,
    interested: HashMap<String, Arc<Inbox>>,
    stop: CancellationToken,
}

impl Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").field("watched", &self.slots.lock().len()).finish_non_exhaustive()
    }
}

impl Objects {
    #[must_use]
    pub(crate) fn new(client: Client) -> Self {
        Objects { client, slots: Arc::default() }
    }

    /// What a reference leads to now. From then on `inbox` is told of every change, until [`Objects::release`].
    pub(crate) async fn get(&self, reference: &Reference, uid: &str, inbox: &Arc<Inbox>) -> Data {
        let mut found = self.slot(reference, uid, inbox);
        match found.wait_for(Option::is_some).await {
            Ok(found) => found.clone().flatten(),
            Err(_) => None,
        }
    }

    /// The pod no longer refers to anything.
    pub(crate) fn release(&self, uid: &str) {
        self.slots.lock().retain(|_, slot| {
            slot.interested.remove(uid);
            if slot.interested.is_empty() {
                slot.stop.cancel();
            }
            !slot.interested.is_empty()
        });
    }

    fn slot(&self, reference: &Reference, uid: &str, inbox: &Arc<Inbox>) -> watch::Receiver<Option<Data>> {
        let mut slots = self.slots.lock();
        let slot = slots.entry(reference.clone()).or_insert_with(|| {
            let slot =
                Slot { found: watch::Sender::new(None), interested: HashMap::new(), stop: CancellationToken::new() };
            self.watch(reference.clone(), slot.stop.clone());
            slot
        });
        slot.interested.insert(uid.to_owned(), inbox.clone());
        slot.found.subscribe()
    }

    fn watch(&self, reference: Reference, stop: CancellationToken) {
        let this = self.clone();
        tokio::spawn(async move {
            let following = async {
                match reference.kind {
                    Kind::ConfigMap => this.follow(&reference, config_map).await,
                    Kind::Secret => this.follow(&reference, secret).await,
                }
            };
            stop.run_until_cancelled(following).await;
        });
    }

    async fn follow<K>(&self, reference: &Reference, read: fn(K) -> BTreeMap<String, Vec<u8>>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &reference.namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={}", reference.name));
        let mut events = std::pin::pin!(watch_objects(api, config).default_backoff());
        let mut listed = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = None,
                Ok(Event::InitApply(object)) => listed = Some(Arc::new(read(object))),
                Ok(Event::InitDone) => self.tell(reference, listed.take()),
                Ok(Event::Apply(object)) => self.tell(reference, Some(Arc::new(read(object)))),
                Ok(Event::Delete(_)) => self.tell(reference, None),
                Err(error) => tracing::debug!(%error, ?reference, "watch of a referenced object"),
            }
        }
    }

    fn tell(&self, reference: &Reference, data: Data) {
        let slots = self.slots.lock();
        let Some(slot) = slots.get(reference) else { return };
        let first = slot.found.borrow().is_none();
        let changed = slot.found.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&data);
            *known = Some(data);
            changed
        });
        if changed && !first {
            slot.interested.values().for_each(|inbox| inbox.reference_changed());
        }
    }
}

fn config_map(object: ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = object.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    let binary = object.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
    text.chain(binary).collect()
}

fn secret(object: Secret) -> BTreeMap<String, Vec<u8>> {
    object.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect()
}
