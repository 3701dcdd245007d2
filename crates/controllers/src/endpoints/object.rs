//! The Endpoints object of services that select pods.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use parking_lot::Mutex;
use stead_client::delete_if_present;
use stead_informer::{Cache, Key, Next, Queue};
use stead_servicenet::endpoints::{ENDPOINTS_CONTROLLER, ENDPOINTS_MANAGED_BY, ObjectPlan, is_managed, plan_object};

use super::services_of_pod;
use crate::{Context, Controller, Error, OwnWrites, sources};

/// The Endpoints controller.
#[derive(Debug)]
pub struct EndpointsObjects {
    cx: Context,
    services: Cache<Service>,
    pods: Cache<Pod>,
    objects: Cache<Endpoints>,
    writes: OwnWrites,
    /// Services whose end was seen: their Endpoints end too, those made by hand as well.
    ended: Arc<Mutex<HashSet<Key>>>,
}

impl Controller for EndpointsObjects {
    const NAME: &'static str = "endpoints-controller";
    const ACCOUNT: &'static str = "endpoint-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (services, pods, objects) = (cx.caches.of::<Service>(), cx.caches.of::<Pod>(), cx.caches.of::<Endpoints>());
        let ended: Arc<Mutex<HashSet<Key>>> = Arc::default();
        let ending = ended.clone();
        sources::wake(&services, queue, move |change| {
            if change.new.is_none() {
                ending.lock().insert(change.key.clone());
            }
            vec![change.key.clone()]
        });
        let of_pod = services.clone();
        sources::wake(&pods, queue, move |change| services_of_pod(&of_pod, change));
        sources::wake_self(&objects, queue);
        Self { cx, services, pods, objects, writes: OwnWrites::default(), ended }
    }

    async fn synced(&self) {
        tokio::join!(self.services.synced(), self.pods.synced(), self.objects.synced());
    }

    fn writes(&self) -> Option<&OwnWrites> {
        Some(&self.writes)
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let existing = self.objects.by_key(key);
        let Some(service) = self.services.by_key(key) else {
            return self.clean_up(key, existing.as_deref()).await;
        };
        self.ended.lock().remove(key);
        if !is_managed(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let pods = self.pods.list_ns(&key.namespace);
        let pods: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
        let api: Api<Endpoints> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        let written = match plan_object(&service, &pods, existing.as_deref()) {
            ObjectPlan::Keep => return Ok(Next::Done),
            ObjectPlan::Create(object) => api.create(&PostParams::default(), &object).await,
            ObjectPlan::Update(object) => api.replace(&key.name, &PostParams::default(), &object).await,
        };
        let written = written.map_err(Error::doing(format!("write Endpoints {key}")))?;
        self.writes.wrote(key, &self.objects, &written);
        Ok(Next::Done)
    }
}

impl EndpointsObjects {
    /// Endpoints without a service: removed when this controller made them, or when it saw the service end.
    async fn clean_up(&self, key: &Key, existing: Option<&Endpoints>) -> Result<Next, Error> {
        let Some(object) = existing else {
            self.ended.lock().remove(key);
            return Ok(Next::Done);
        };
        let labels = object.metadata.labels.as_ref();
        let ours = labels.and_then(|l| l.get(ENDPOINTS_MANAGED_BY)).is_some_and(|name| name == ENDPOINTS_CONTROLLER);
        if ours || self.ended.lock().contains(key) {
            let api: Api<Endpoints> = Api::namespaced(self.cx.client.clone(), &key.namespace);
            let deleted = delete_if_present(&api, &key.name, &DeleteParams::default()).await;
            deleted.map_err(Error::doing(format!("delete Endpoints {key}")))?;
            self.writes.deleted(key, &self.objects, object);
        }
        Ok(Next::Done)
    }
}
