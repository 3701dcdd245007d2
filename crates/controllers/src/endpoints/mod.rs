//! Keeps Endpoints and EndpointSlices of services. The decisions are [`stead_servicenet::endpoints`].

mod mirroring;
mod object;
mod slices;

pub use mirroring::MirroredSlices;
pub use object::EndpointsObjects;
pub use slices::Slices;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use stead_client::delete_if_present;
use stead_informer::{Cache, Change, Key};
use stead_servicenet::endpoints::{SlicePlan, same_endpoint, selects, service_of};

use crate::{Context, Error, OwnWrites};

/// Index of slices by `namespace/service`.
const BY_SERVICE: &str = "service";

fn by_service(slice: &EndpointSlice) -> Vec<String> {
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    service_of(slice).map(|name| format!("{namespace}/{name}")).into_iter().collect()
}

/// The services that a change of a pod matters to.
fn services_of_pod(services: &Cache<Service>, change: &Change<Pod>) -> Vec<Key> {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && same_endpoint(old, new)
    {
        return Vec::new();
    }
    let states = [&change.old, &change.new];
    let selecting = |service: &Service| states.iter().any(|pod| pod.as_ref().is_some_and(|pod| selects(service, pod)));
    let namespace = services.list_ns(&change.key.namespace);
    namespace.into_iter().filter(|service| selecting(service)).map(|service| Key::of(&service.metadata)).collect()
}

/// The service of a slice, as it was and as it is.
fn service_of_slice(change: &Change<EndpointSlice>) -> Vec<Key> {
    let names = [&change.old, &change.new].into_iter().flatten().filter_map(|slice| service_of(slice));
    names.map(|name| Key::new(&change.key.namespace, name)).collect()
}

/// Carries out a plan for the slices of `key`.
async fn write_slices(
    cx: &Context,
    key: &Key,
    plan: SlicePlan,
    cache: &Cache<EndpointSlice>,
    writes: &OwnWrites,
) -> Result<(), Error> {
    let api: Api<EndpointSlice> = Api::namespaced(cx.client.clone(), &key.namespace);
    for slice in plan.create {
        let created = api.create(&PostParams::default(), &slice).await;
        let created = created.map_err(Error::doing(format!("create an EndpointSlice of Service {key}")))?;
        writes.wrote(key, cache, &created);
    }
    for slice in plan.update {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        let written = api.replace(name, &PostParams::default(), &slice).await;
        let written = written.map_err(Error::doing(format!("update EndpointSlice {}/{name}", key.namespace)))?;
        writes.wrote(key, cache, &written);
    }
    for name in plan.delete {
        let deleted = delete_if_present(&api, &name, &DeleteParams::default()).await;
        deleted.map_err(Error::doing(format!("delete EndpointSlice {}/{name}", key.namespace)))?;
        if let Some(slice) = cache.get(&key.namespace, &name) {
            writes.deleted(key, cache, &*slice);
        }
    }
    Ok(())
}
