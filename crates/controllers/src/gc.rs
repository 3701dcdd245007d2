//! The garbage collector: deletes what has lost its owners. The decision is [`stead_workloads::gc`].
//!
//! Keys are objects of every kind, see [`everything`].

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use serde_json::{Value, json};
use stead_client::{Class, Client, classify};
use stead_informer::{Change, Key, MetaObject, Next, Queue};
use stead_workloads::gc::{Dependent, FOREGROUND, ORPHAN, Owner, Plan, Policy, Snapshot, plan};
use stead_workloads::statefulset::wishes::ORDERED_DELETE_FINALIZER;

use crate::everything::{self, Everything, Sort, UID, owners};
use crate::{Context, Controller, Error};

/// The garbage collector.
#[derive(Clone, Debug)]
pub struct Garbage {
    cx: Context,
    everything: Everything,
}

impl Controller for Garbage {
    const NAME: &'static str = "garbage-collector-controller";
    const ACCOUNT: &'static str = "generic-garbage-collector";
    const WORKERS: usize = 20;

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let everything = Everything::open(&cx.caches);
        for sort in everything.sorts() {
            let (all, sort_of, queue) = (everything.clone(), sort.clone(), queue.clone());
            sort.cache.on_change(move |change| wake(&all, &sort_of, change).into_iter().for_each(|key| queue.add(key)));
        }
        Self { cx, everything }
    }

    async fn synced(&self) {
        self.everything.synced().await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let (resource, namespace, name) = everything::split(key);
        let Some(sort) = self.everything.by_resource(resource) else { return Ok(Next::Done) };
        let Some(object) = sort.cache.get(namespace, name) else { return Ok(Next::Done) };
        let snapshot = self.observe(sort, &object.metadata).await?;
        let plan = plan(&snapshot);
        if plan != Plan::Nothing {
            tracing::debug!(object = %key, ?plan, "collecting");
        }
        let done = self.execute(sort, &object.metadata, plan).await;
        match done {
            // It changed or went meanwhile: the watch brings us back.
            Err(error) if matches!(error.class(), Some(Class::NotFound)) => Ok(Next::Done),
            done => done.map(|()| Next::Done),
        }
    }
}

fn has(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == finalizer)
}

/// Whether an object waits for its dependents to be deleted. One whose own controller takes them down first, in order,
/// does so only afterwards.
fn waits(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some() && has(meta, FOREGROUND) && !has(meta, ORDERED_DELETE_FINALIZER)
}

/// Which objects have to be looked at after a change of one.
fn wake(all: &Everything, sort: &Sort, change: &Change<MetaObject>) -> Vec<Key> {
    let (old, new) = (change.old.as_ref().map(|o| &o.metadata), change.new.as_ref().map(|o| &o.metadata));
    let mut keys = Vec::new();
    let own = |meta| everything::key_of(sort, meta);
    let of_owners = |meta: &ObjectMeta| -> Vec<Key> {
        let named = |owner: &OwnerReference| {
            let sort = all.of_owner(owner)?;
            let namespace = meta.namespace.as_deref().filter(|_| sort.kind.namespaced()).unwrap_or_default();
            Some(everything::named(sort, namespace, &owner.name))
        };
        owners(meta).iter().filter_map(named).collect()
    };
    let dependents = |meta: &ObjectMeta| -> Vec<Key> {
        let uid = meta.uid.as_deref().unwrap_or_default();
        all.dependents(uid).iter().map(|(sort, object)| everything::key_of(sort, &object.metadata)).collect()
    };
    match (old, new) {
        (_, Some(new)) => {
            let moved = old.is_none_or(|old| owners(old) != owners(new));
            if moved && !owners(new).is_empty() {
                keys.push(own(new));
            }
            let began = old.is_none_or(|old| old.deletion_timestamp.is_none() || old.finalizers != new.finalizers);
            if began && new.deletion_timestamp.is_some() && (has(new, FOREGROUND) || has(new, ORPHAN)) {
                keys.push(own(new));
                keys.extend(dependents(new));
            }
            if let Some(old) = old.filter(|old| owners(old) != owners(new)) {
                keys.extend(of_owners(old));
            }
        }
        (Some(old), None) => {
            keys.extend(dependents(old));
            keys.extend(of_owners(old));
        }
        (None, None) => {}
    }
    keys
}

impl Garbage {
    async fn observe(&self, sort: &Sort, meta: &ObjectMeta) -> Result<Snapshot, Error> {
        let deleting = meta.deletion_timestamp.is_some();
        // What is going already does not depend on its owners any more.
        let of = if deleting { Vec::new() } else { owners(meta).to_vec() };
        let mut states = Vec::with_capacity(of.len());
        for owner in &of {
            states.push(self.owner(sort, meta, owner).await?);
        }
        let uid = meta.uid.as_deref().unwrap_or_default();
        let dependents = self.everything.dependents(uid);
        let dependent = |object: &Arc<MetaObject>| Dependent {
            blocks: owners(&object.metadata).iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true)),
            waiting: waits(&object.metadata),
        };
        Ok(Snapshot {
            deleting,
            foreground: has(meta, FOREGROUND),
            orphan: has(meta, ORPHAN),
            owners: states,
            dependents: dependents.iter().map(|(_, object)| dependent(object)).collect(),
        })
    }

    /// Asks the cache first. Only the server's own word makes an owner absent.
    async fn owner(&self, sort: &Sort, meta: &ObjectMeta, owner: &OwnerReference) -> Result<Owner, Error> {
        let state = |meta: &ObjectMeta| if waits(meta) { Owner::Waiting } else { Owner::Present };
        let Some(owners_sort) = self.everything.of_owner(owner) else {
            // A kind that is not known here may well exist.
            return Ok(Owner::Present);
        };
        if owners_sort.kind.namespaced() && !sort.kind.namespaced() {
            tracing::debug!(kind = sort.kind.kind, name = meta.name, "an owner in a namespace is ignored");
            return Ok(Owner::Present);
        }
        if let Some(there) = owners_sort.cache.by_index(UID, &owner.uid).first() {
            let same_place = !owners_sort.kind.namespaced() || there.metadata.namespace == meta.namespace;
            return Ok(if same_place { state(&there.metadata) } else { Owner::Absent });
        }
        let api = owners_sort.api(&self.cx.client, meta.namespace.as_deref().unwrap_or_default());
        match api.get_metadata(&owner.name).await {
            Ok(there) if there.metadata.uid.as_deref() == Some(&owner.uid) => Ok(state(&there.metadata)),
            Ok(_) => Ok(Owner::Absent),
            Err(error) if classify(&error) == Class::NotFound => Ok(Owner::Absent),
            Err(error) => Err(Error::doing(format!("look up {} {:?}", owners_sort.resource, owner.name))(error)),
        }
    }

    async fn execute(&self, sort: &Sort, meta: &ObjectMeta, plan: Plan) -> Result<(), Error> {
        match plan {
            Plan::Nothing => Ok(()),
            Plan::Delete(policy) => self.delete(sort, meta, policy).await,
            Plan::UnblockAndDelete => {
                let unblocked = owners(meta).iter().cloned();
                let unblocked: Vec<_> =
                    unblocked.map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner }).collect();
                self.patch(sort, meta, json!({"ownerReferences": unblocked})).await?;
                let fresh = ObjectMeta { resource_version: None, ..meta.clone() };
                self.delete(sort, &fresh, Policy::Foreground).await
            }
            Plan::DropOwners(places) => {
                let kept = owners(meta).iter().enumerate().filter(|(place, _)| !places.contains(place));
                let kept: Vec<_> = kept.map(|(_, owner)| owner).collect();
                self.patch(sort, meta, json!({"ownerReferences": kept})).await
            }
            Plan::LetDependentsGo => {
                self.let_dependents_go(meta).await?;
                self.drop_finalizer(sort, meta, ORPHAN).await
            }
            Plan::DropForeground => self.drop_finalizer(sort, meta, FOREGROUND).await,
        }
    }

    async fn delete(&self, sort: &Sort, meta: &ObjectMeta, policy: Policy) -> Result<(), Error> {
        let how = DeleteParams {
            propagation_policy: Some(match policy {
                Policy::Background => PropagationPolicy::Background,
                Policy::Foreground => PropagationPolicy::Foreground,
                Policy::Orphan => PropagationPolicy::Orphan,
            }),
            preconditions: Some(Preconditions {
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let (api, name) = (self.api_of(sort, meta), meta.name.as_deref().unwrap_or_default());
        api.delete(name, &how).await.map_err(Error::doing(format!("delete {} {name:?}", sort.resource)))?;
        Ok(())
    }

    fn api_of(&self, sort: &Sort, meta: &ObjectMeta) -> kube::Api<kube::core::DynamicObject> {
        sort.api(&self.cx.client, meta.namespace.as_deref().unwrap_or_default())
    }

    /// Changes metadata of the object as it was seen, and of no other.
    async fn patch(&self, sort: &Sort, meta: &ObjectMeta, mut change: Value) -> Result<(), Error> {
        change["uid"] = json!(meta.uid);
        change["resourceVersion"] = json!(meta.resource_version);
        let name = meta.name.as_deref().unwrap_or_default();
        let patch = Patch::Merge(json!({"metadata": change}));
        let patched = self.api_of(sort, meta).patch_metadata(name, &PatchParams::default(), &patch).await;
        patched.map_err(Error::doing(format!("change the owners of {} {name:?}", sort.resource)))?;
        Ok(())
    }

    async fn drop_finalizer(&self, sort: &Sort, meta: &ObjectMeta, finalizer: &str) -> Result<(), Error> {
        let kept: Vec<&String> = meta.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
        self.patch(sort, meta, json!({"finalizers": kept})).await
    }

    /// Takes the object out of the owner references of everything that refers to it. The server is asked, not the
    /// caches: whoever is missed here would be deleted later.
    async fn let_dependents_go(&self, owner: &ObjectMeta) -> Result<(), Error> {
        let namespaced = owner.namespace.is_some();
        let sorts = self.everything.sorts().iter().filter(|sort| !namespaced || sort.kind.namespaced());
        let done = join_all(sorts.map(|sort| self.let_sort_go(sort, owner))).await;
        done.into_iter().collect()
    }

    async fn let_sort_go(&self, sort: &Sort, owner: &ObjectMeta) -> Result<(), Error> {
        let uid = owner.uid.as_deref().unwrap_or_default();
        let listed = list(sort, &self.cx.client, owner.namespace.as_deref()).await?;
        for object in listed.iter().filter(|object| owners(&object.metadata).iter().any(|o| o.uid == uid)) {
            let kept: Vec<_> = owners(&object.metadata).iter().filter(|o| o.uid != uid).collect();
            match self.patch(sort, &object.metadata, json!({"ownerReferences": kept})).await {
                Err(error) if error.class() == Some(Class::NotFound) => {}
                done => done?,
            }
        }
        Ok(())
    }
}

/// The metadata of all objects of a kind, in one namespace or everywhere, from the server.
async fn list(sort: &Sort, client: &Client, namespace: Option<&str>) -> Result<Vec<MetaObject>, Error> {
    let api = match namespace {
        Some(namespace) => sort.api(client, namespace),
        None => kube::Api::all_with(client.clone(), &sort.api),
    };
    let listed = api.list_metadata(&ListParams::default()).await;
    Ok(listed.map_err(Error::doing(format!("list {}", sort.resource)))?.items)
}
