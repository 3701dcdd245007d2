//! Empties namespaces that are to go. The decision is [`stead_workloads::namespace`].

use std::collections::BTreeMap;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use stead_client::{Class, classify, message};
use stead_informer::{Cache, Key, MetaObject, Next, Queue};
use stead_workloads::namespace::{Plan, Remaining, Snapshot, plan};
use stead_workloads::serviceaccount::is_ending;

use crate::everything::{Everything, Sort};
use crate::{Context, Controller, Error, sources};

/// The controller; its keys are namespaces.
#[derive(Clone, Debug)]
pub struct Namespaces {
    cx: Context,
    namespaces: Cache<Namespace>,
    everything: Everything,
}

impl Controller for Namespaces {
    const NAME: &'static str = "namespace-controller";
    const WORKERS: usize = 10;

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let namespaces = cx.caches.of::<Namespace>();
        let everything = Everything::open(&cx.caches);
        sources::wake_self(&namespaces, queue);
        for sort in everything.sorts().iter().filter(|sort| sort.kind.namespaced()) {
            let (namespaces, queue) = (namespaces.clone(), queue.clone());
            // Whatever comes, goes, or is told to go in an ending namespace.
            sort.cache.on_change(move |change| {
                if namespaces.get("", &change.key.namespace).is_some_and(|namespace| is_ending(&namespace)) {
                    queue.add(Key::new("", &change.key.namespace));
                }
            });
        }
        Self { cx, namespaces, everything }
    }

    async fn synced(&self) {
        tokio::join!(self.namespaces.synced(), self.everything.synced());
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(namespace) = self.namespaces.by_key(key).filter(|namespace| is_ending(namespace)) else {
            return Ok(Next::Done);
        };
        let mut snapshot = Snapshot {
            remaining: self.cached(&key.name),
            namespace: (*namespace).clone(),
            failures: Vec::new(),
            now: self.cx.now(),
        };
        let mut decided = plan(&snapshot);
        if decided.finalize.is_some() {
            // Only the server's own word makes a namespace empty.
            self.delete_events(&key.name).await?;
            snapshot.remaining = self.asked(&key.name).await?;
            decided = plan(&snapshot);
        }
        self.execute(key, &mut snapshot, decided).await?;
        Ok(Next::Done)
    }
}

fn remaining<'a>(sort: &Sort, objects: impl Iterator<Item = &'a MetaObject>) -> Remaining {
    let mut found = Remaining { resource: sort.resource.clone(), ..Remaining::default() };
    for object in objects {
        found.count += 1;
        found.deleting += usize::from(object.metadata.deletion_timestamp.is_some());
        for finalizer in object.metadata.finalizers.iter().flatten() {
            *found.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }
    found
}

impl Namespaces {
    fn sorts(&self) -> impl Iterator<Item = &Sort> {
        self.everything.sorts().iter().filter(|sort| sort.kind.namespaced())
    }

    fn cached(&self, namespace: &str) -> Vec<Remaining> {
        let of = |sort: &Sort| {
            let objects = sort.cache.list_ns(namespace);
            remaining(sort, objects.iter().map(|object| &**object))
        };
        self.sorts().map(of).collect()
    }

    async fn asked(&self, namespace: &str) -> Result<Vec<Remaining>, Error> {
        let of = |sort: &Sort| {
            let (api, sort) = (sort.api(&self.cx.client, namespace), sort.clone());
            async move {
                let listed = api.list_metadata(&ListParams::default()).await;
                let listed = listed.map_err(Error::doing(format!("list {}", sort.resource)))?;
                Ok(remaining(&sort, listed.items.iter()))
            }
        };
        join_all(self.sorts().map(of)).await.into_iter().collect()
    }

    /// Events are in nobody's way, so they go last.
    async fn delete_events(&self, namespace: &str) -> Result<(), Error> {
        let api: Api<Event> = Api::namespaced(self.cx.client.clone(), namespace);
        let deleted = api.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
        deleted.map_err(Error::doing(format!("delete the events of namespace {namespace:?}")))?;
        Ok(())
    }

    async fn execute(&self, key: &Key, snapshot: &mut Snapshot, plan: Plan) -> Result<(), Error> {
        let failures = self.delete_all(&key.name, &plan.delete).await;
        let mut status = plan.status;
        if !failures.is_empty() {
            snapshot.failures = failures.values().cloned().collect();
            status = stead_workloads::namespace::plan(snapshot).status;
        }
        let api: Api<Namespace> = Api::all(self.cx.client.clone());
        if let Some(namespace) = status {
            let written = api.replace_status(&key.name, &PostParams::default(), &namespace).await;
            written.map_err(Error::doing(format!("write the status of namespace {:?}", key.name)))?;
        }
        if let Some(namespace) = plan.finalize {
            let done: Result<Namespace, _> =
                api.replace_subresource("finalize", &key.name, &PostParams::default(), &namespace).await;
            match done {
                Err(error) if classify(&error) == Class::NotFound => {}
                done => drop(done.map_err(Error::doing(format!("finalize namespace {:?}", key.name)))?),
            }
        }
        match failures.into_values().next() {
            Some(why) => Err(Error::Blocked(format!("cannot empty namespace {:?}: {why}", key.name))),
            None => Ok(()),
        }
    }

    /// What could not be deleted, with the reason, by kind.
    async fn delete_all(&self, namespace: &str, resources: &[String]) -> BTreeMap<String, String> {
        let sorts = resources.iter().filter_map(|resource| self.everything.by_resource(resource));
        let deleted = join_all(sorts.map(|sort| async move {
            let how = DeleteParams::background();
            let api = sort.api(&self.cx.client, namespace);
            let done = api.delete_collection(&how, &ListParams::default()).await;
            done.err().map(|error| (sort.resource.clone(), format!("{}: {}", sort.resource, message(&error))))
        }))
        .await;
        deleted.into_iter().flatten().collect()
    }
}
