//! Finds the objects that a controller owns: adopts orphans that fit and releases what no longer does.

use std::future::Future;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde_json::Value;
use stead_client::{Class, Client, classify};
use stead_informer::{Cache, Key, Object, index};
use stead_workloads::owner::{Claim, adopt_patch, judge_orphan, judge_own, release_patch};

use crate::{Error, OwnWrites};

/// The owner on whose behalf a family is gathered.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub key: &'a Key,
    pub meta: &'a ObjectMeta,
    pub reference: &'a OwnerReference,
}

/// The objects that are owned, as the cache has them.
#[derive(Debug)]
pub struct Family<K> {
    pub members: Vec<Arc<K>>,
    /// Something was adopted or released: the cache will tell, and the key comes back.
    pub changed: bool,
}

/// Adds the index that [`gather`] needs.
pub fn prepare<K: Object>(cache: &Cache<K>) {
    cache.add_index(index::CONTROLLER_UID, index::by_controller);
}

/// Gathers the family of `head`. `fits` looks at labels and name. `alive` asks the server, past all caches, whether
/// the owner still exists; it is called once, before the first adoption.
///
/// # Errors
/// A failed adoption or release; objects that are gone meanwhile are not an error.
pub async fn gather<K, F, A>(
    (client, cache, writes): (&Client, &Cache<K>, &OwnWrites),
    head: Head<'_>,
    fits: F,
    alive: impl Fn() -> A,
) -> Result<Family<K>, Error>
where
    K: Object + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    F: Fn(&K) -> bool,
    A: Future<Output = Result<(), Error>>,
{
    let owned = cache.by_index(index::CONTROLLER_UID, head.meta.uid.as_deref().unwrap_or_default());
    let orphans = cache.by_index(index::CONTROLLER_UID, &index::orphans_of(&head.key.namespace));
    let mut family = Family { members: Vec::with_capacity(owned.len()), changed: false };
    let mut asked = false;
    // The index has looked at who the owner is.
    let owned = owned.into_iter().map(|object| (judge_own(head.meta, fits(&object)), object));
    let orphans = orphans.into_iter().map(|object| (judge_orphan(head.meta, object.meta(), fits(&object)), object));
    for (claim, object) in owned.chain(orphans) {
        let patch = match claim {
            Claim::Ignore => continue,
            Claim::Keep => {
                family.members.push(object);
                continue;
            }
            Claim::Release => release_patch(&head.reference.uid, object.meta()),
            Claim::Adopt => {
                if !std::mem::replace(&mut asked, true) {
                    alive().await?;
                }
                adopt_patch(head.reference, object.meta())
            }
        };
        family.changed = true;
        if let Some(patched) = patch_owner(client, &*object, patch).await? {
            writes.wrote(head.key, cache, &patched);
        }
    }
    Ok(family)
}

/// `None` when the object is gone, or is another one of that name by now.
async fn patch_owner<K>(client: &Client, object: &K, patch: Value) -> Result<Option<K>, Error>
where
    K: Object + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let meta = object.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default());
    match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(patched) => Ok(Some(patched)),
        Err(error) if classify(&error) == Class::NotFound => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(None),
        Err(error) => Err(Error::doing(format!("change the owner of {} {name:?}", K::kind(&())))(error)),
    }
}

/// The question [`gather`] asks before adopting: does this owner exist under its uid, and is it not being deleted?
///
/// # Errors
/// When it is gone or going, in upstream's words, or when the server cannot be asked.
pub async fn still_alive<K>(client: &Client, key: &Key, meta: &ObjectMeta) -> Result<(), Error>
where
    K: Object + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let api: Api<K> = Api::namespaced(client.clone(), &key.namespace);
    let kind = K::kind(&());
    let fresh = api.get_metadata(&key.name).await.map_err(Error::doing(format!("look up {kind} {key}")))?;
    if fresh.metadata.uid != meta.uid {
        let uid = |uid: &Option<String>| uid.clone().unwrap_or_default();
        let (got, wanted) = (uid(&fresh.metadata.uid), uid(&meta.uid));
        return Err(Error::Blocked(format!("original {kind} {key} is gone: got uid {got}, wanted {wanted}")));
    }
    if let Some(at) = fresh.metadata.deletion_timestamp {
        return Err(Error::Blocked(format!("{key} has just been deleted at {}", at.0)));
    }
    Ok(())
}
