//! Everything that the diagnosis looks at, read once.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ListParams};
use stead_client::Client;

/// A set and what belongs to it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub set: StatefulSet,
    /// The set's pods, by ordinal.
    pub pods: BTreeMap<i32, Pod>,
    /// Claims of the namespace, by name.
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    /// Storage classes, by name.
    pub classes: BTreeMap<String, StorageClass>,
    /// The Service that the set names, if it exists.
    pub service: Option<Service>,
    /// Events of the namespace, oldest first.
    pub events: Vec<Event>,
}

impl Snapshot {
    pub(super) async fn read(client: &Client, namespace: &str, name: &str) -> Result<Self> {
        let everything = ListParams::default();
        let set: StatefulSet = Api::namespaced(client.clone(), namespace).get(name).await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
        let events: Api<Event> = Api::namespaced(client.clone(), namespace);
        let classes: Api<StorageClass> = Api::all(client.clone());
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        let service = match service_name(&set) {
            Some(service) => services.get_opt(service).await?,
            None => None,
        };
        let mut events = events.list(&everything).await?.items;
        events.sort_by_key(|event| (event.last_timestamp.clone(), event.metadata.resource_version.clone()));
        Ok(Self {
            pods: by_ordinal(name, pods.list(&everything).await?.items),
            claims: by_name(claims.list(&everything).await?.items),
            classes: by_name(classes.list(&everything).await?.items),
            service,
            events,
            set,
        })
    }
}

/// `spec.serviceName`, when it says anything.
pub(super) fn service_name(set: &StatefulSet) -> Option<&str> {
    set.spec.service_name.as_deref().filter(|name| !name.is_empty())
}

fn by_ordinal(set: &str, pods: Vec<Pod>) -> BTreeMap<i32, Pod> {
    let ordinal = |pod: &Pod| pod.metadata.name.as_ref()?.strip_prefix(set)?.strip_prefix('-')?.parse().ok();
    pods.into_iter().filter_map(|pod| Some((ordinal(&pod)?, pod))).collect()
}

fn by_name<K: kube::Resource>(objects: Vec<K>) -> BTreeMap<String, K> {
    objects.into_iter().filter_map(|object| Some((object.meta().name.clone()?, object))).collect()
}
