//! Whether the caches of all processes have become what is stored, once everything is quiet.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Resource;
use stead_informer::{Caches, Object};

use crate::model::{CLAIMS, Model, PODS, SETS, VOLUMES};
use crate::world::{Part, World};

/// The first difference between what a process sees and what there is.
///
/// # Errors
/// What that is.
pub(crate) fn up_to_date(world: &World) -> Result<(), String> {
    let views = world.views.lock();
    let model = world.model.lock();
    for (actor, caches) in &*views {
        let seen = match actor.part {
            Part::Sets => same::<Pod>(&model, caches, PODS)
                .and_then(|()| same::<StatefulSet>(&model, caches, SETS))
                .and_then(|()| same::<PersistentVolumeClaim>(&model, caches, CLAIMS)),
            Part::Claims => same::<PersistentVolumeClaim>(&model, caches, CLAIMS)
                .and_then(|()| same::<PersistentVolume>(&model, caches, VOLUMES)),
            Part::Upkeep | Part::Scheduler => same::<Pod>(&model, caches, PODS),
            Part::Garbage | Part::Server | Part::Node(_) | Part::User => Ok(()),
        };
        seen.map_err(|what| format!("the cache of {actor} {what}"))?;
    }
    Ok(())
}

fn same<K>(model: &Model, caches: &Caches, prefix: &str) -> Result<(), String>
where
    K: Object + Resource<DynamicType = ()>,
{
    let stored = model.revisions.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
    let mut stored: BTreeMap<&str, u64> = stored.map(|(key, revision)| (&key[prefix.len()..], *revision)).collect();
    for object in caches.of::<K>().list() {
        let name = object.meta().name.as_deref().unwrap_or_default();
        let seen = object.meta().resource_version.as_deref().and_then(|text| text.parse().ok());
        match stored.remove(name) {
            None => return Err(format!("still has {prefix}{name}")),
            Some(revision) if Some(revision) != seen => {
                return Err(format!("has {prefix}{name} of revision {seen:?} instead of {revision}"));
            }
            Some(_) => {}
        }
    }
    stored.keys().next().map_or(Ok(()), |name| Err(format!("does not have {prefix}{name}")))
}
