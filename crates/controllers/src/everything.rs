//! The metadata of everything: one cache per kind, for the controllers that know no kinds.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::core::{ApiResource, DynamicObject};
use stead_api::{KINDS, Kind};
use stead_client::Client;
use stead_informer::{Cache, Caches, Key, MetaObject};

/// Objects by their own UID.
pub(crate) const UID: &str = "uid";
/// Objects by the UID of each owner.
pub(crate) const OWNER_UID: &str = "owner-uid";

/// One kind with the metadata of its objects.
#[derive(Clone, Debug)]
pub(crate) struct Sort {
    pub(crate) kind: &'static Kind,
    /// `statefulsets.apps`.
    pub(crate) resource: String,
    pub(crate) api: ApiResource,
    pub(crate) cache: Cache<MetaObject>,
}

impl Sort {
    /// The API of this kind in a namespace (ignored for kinds of cluster scope).
    pub(crate) fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        if self.kind.namespaced() {
            Api::namespaced_with(client.clone(), namespace, &self.api)
        } else {
            Api::all_with(client.clone(), &self.api)
        }
    }
}

/// Every kind that is stored, once.
#[derive(Clone, Debug)]
pub(crate) struct Everything {
    sorts: Arc<Vec<Sort>>,
}

/// Whether a row stands for objects of its own: some kinds are served under several groups.
fn is_own(kind: &Kind) -> bool {
    kind.stored() && kind.group_version() == kind.storage && kind.kind != "Event"
}

impl Everything {
    /// Opens all caches. Events are left out: they have no owners and go by themselves.
    pub(crate) fn open(caches: &Caches) -> Self {
        let sort = |kind: &'static Kind| {
            let api = ApiResource {
                group: kind.group.to_owned(),
                version: kind.version.to_owned(),
                api_version: kind.api_version(),
                kind: kind.kind.to_owned(),
                plural: kind.plural.to_owned(),
            };
            let cache = caches.metadata(&api);
            cache.add_index(UID, |object| object.metadata.uid.clone().into_iter().collect());
            cache.add_index(OWNER_UID, |object| owners(&object.metadata).iter().map(|o| o.uid.clone()).collect());
            Sort { kind, resource: kind.group_resource(), api, cache }
        };
        Self { sorts: Arc::new(KINDS.iter().filter(|kind| is_own(kind)).map(sort).collect()) }
    }

    pub(crate) async fn synced(&self) {
        futures::future::join_all(self.sorts.iter().map(|sort| sort.cache.synced())).await;
    }

    pub(crate) fn sorts(&self) -> &[Sort] {
        &self.sorts
    }

    pub(crate) fn by_resource(&self, resource: &str) -> Option<&Sort> {
        self.sorts.iter().find(|sort| sort.resource == resource)
    }

    /// The kind that an owner reference means; its version does not matter.
    pub(crate) fn of_owner(&self, owner: &OwnerReference) -> Option<&Sort> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.sorts.iter().find(|sort| sort.kind.kind == owner.kind && sort.kind.group == group)
    }

    /// Everything that refers to an owner of this UID.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<(&Sort, Arc<MetaObject>)> {
        let of = |sort| move |object| (sort, object);
        self.sorts.iter().flat_map(|sort| sort.cache.by_index(OWNER_UID, uid).into_iter().map(of(sort))).collect()
    }
}

/// The owner references of an object.
pub(crate) fn owners(meta: &ObjectMeta) -> &[OwnerReference] {
    meta.owner_references.as_deref().unwrap_or_default()
}

/// A key that says the kind too: `statefulsets.apps/namespace` and the name.
pub(crate) fn key_of(sort: &Sort, meta: &ObjectMeta) -> Key {
    named(sort, meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

pub(crate) fn named(sort: &Sort, namespace: &str, name: &str) -> Key {
    Key::new(&format!("{}/{namespace}", sort.resource), name)
}

/// Kind, namespace and name of such a key.
pub(crate) fn split(key: &Key) -> (&str, &str, &str) {
    let (resource, namespace) = key.namespace.split_once('/').unwrap_or((&key.namespace, ""));
    (resource, namespace, &key.name)
}
