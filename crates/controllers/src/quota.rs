//! Says in every quota what its namespace uses. What an object counts for is decided by [`stead_admission`], which
//! also refuses what would be too much.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use kube::api::PostParams;
use kube::{Api, Resource};
use serde::Serialize;
use serde_json::{Value, json};
use stead_admission::{quota_counts, quota_usage};
use stead_api::kinds;
use stead_informer::{Cache, Key, Next, Object, Queue};
use stead_machinery::quantity::Quantity;

use crate::everything::Everything;
use crate::{Context, Controller, Error, sources};

/// The controller; its keys are quotas.
#[derive(Clone, Debug)]
pub struct Quotas {
    cx: Context,
    quotas: Cache<ResourceQuota>,
    everything: Everything,
    /// Kinds of which more counts than their number; their caches are opened with the first quota.
    whole: Arc<std::sync::OnceLock<Whole>>,
    queue: Queue<Key>,
}

#[derive(Clone, Debug)]
struct Whole {
    pods: Cache<Pod>,
    services: Cache<Service>,
    claims: Cache<PersistentVolumeClaim>,
}

impl Controller for Quotas {
    const NAME: &'static str = "resourcequota-controller";
    const WORKERS: usize = 2;

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let quotas = cx.caches.of::<ResourceQuota>();
        let everything = Everything::open(&cx.caches);
        sources::wake_self(&quotas, queue);
        for sort in everything.sorts().iter().filter(|sort| sort.kind.namespaced()) {
            let (quotas, queue) = (quotas.clone(), queue.clone());
            sort.cache.on_change(move |change| {
                if change.old.is_none() || change.new.is_none() {
                    quotas_of(&quotas, &change.key).into_iter().for_each(|key| queue.add(key));
                }
            });
        }
        Self { cx, quotas, everything, whole: Arc::default(), queue: queue.clone() }
    }

    async fn synced(&self) {
        tokio::join!(self.quotas.synced(), self.everything.synced());
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(quota) = self.quotas.by_key(key) else { return Ok(Next::Done) };
        let whole = self.whole();
        tokio::join!(whole.pods.synced(), whole.services.synced(), whole.claims.synced());
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
        let used = self.used(&quota, whole, &key.namespace);
        let used = hard.keys().map(|name| {
            let amount = used.get(name).copied().unwrap_or_default();
            (name.clone(), Amount(amount.to_string()))
        });
        let status = ResourceQuotaStatus { used: Some(used.collect()), hard: Some(hard) };
        if quota.status.as_ref() == Some(&status) {
            return Ok(Next::Done);
        }
        let api: Api<ResourceQuota> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        let quota = ResourceQuota { status: Some(status), ..(*quota).clone() };
        let written = api.replace_status(&key.name, &PostParams::default(), &quota).await;
        written.map_err(Error::doing(format!("write the status of quota {key}")))?;
        Ok(Next::Done)
    }
}

/// The quotas of the namespace that something is in.
fn quotas_of(quotas: &Cache<ResourceQuota>, key: &Key) -> Vec<Key> {
    quotas.list_ns(&key.namespace).iter().map(|quota| Key::of(&quota.metadata)).collect()
}

impl Quotas {
    fn whole(&self) -> &Whole {
        self.whole.get_or_init(|| {
            let whole = Whole { pods: self.cx.caches.of(), services: self.cx.caches.of(), claims: self.cx.caches.of() };
            self.follow(&whole.pods);
            self.follow(&whole.services);
            self.follow(&whole.claims);
            whole
        })
    }

    fn follow<K: Object>(&self, cache: &Cache<K>) {
        let quotas = self.quotas.clone();
        sources::wake(cache, &self.queue, move |change| quotas_of(&quotas, &change.key));
    }

    fn used(&self, quota: &ResourceQuota, whole: &Whole, namespace: &str) -> BTreeMap<String, Quantity> {
        let quota = json!(quota);
        let mut sum = BTreeMap::new();
        add(&mut sum, &quota, &whole.pods.list_ns(namespace));
        add(&mut sum, &quota, &whole.services.list_ns(namespace));
        add(&mut sum, &quota, &whole.claims.list_ns(namespace));
        for sort in self.everything.sorts().iter().filter(|sort| sort.kind.namespaced()) {
            if matches!((sort.kind.group, sort.kind.kind), ("", "Pod" | "Service" | "PersistentVolumeClaim")) {
                continue;
            }
            for object in sort.cache.list_ns(namespace) {
                let object = json!({"metadata": object.metadata});
                if quota_counts(&quota, sort.kind, &object) {
                    merge(&mut sum, quota_usage(sort.kind, &object));
                }
            }
        }
        sum
    }
}

fn add<K>(sum: &mut BTreeMap<String, Quantity>, quota: &Value, objects: &[Arc<K>])
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let Some(kind) = kinds::by_kind(&K::group(&()), &K::version(&()), &K::kind(&())) else { return };
    for object in objects {
        let object = json!(&**object);
        if quota_counts(quota, kind, &object) {
            merge(sum, quota_usage(kind, &object));
        }
    }
}

fn merge(sum: &mut BTreeMap<String, Quantity>, usage: BTreeMap<String, Quantity>) {
    for (name, amount) in usage {
        let before = sum.entry(name).or_default();
        *before = *before + amount;
    }
}
