//! EndpointSlices that mirror Endpoints made by hand.

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use stead_informer::{Cache, Key, Next, Queue};
use stead_servicenet::endpoints::{MIRRORING_CONTROLLER, MirrorInput, is_kept_by, mirror};

use super::{BY_SERVICE, by_service, service_of_slice, write_slices};
use crate::{Context, Controller, Error, OwnWrites, sources};

/// The EndpointSlice mirroring controller.
#[derive(Debug)]
pub struct MirroredSlices {
    cx: Context,
    services: Cache<Service>,
    objects: Cache<Endpoints>,
    slices: Cache<EndpointSlice>,
    writes: OwnWrites,
}

impl Controller for MirroredSlices {
    const NAME: &'static str = "endpointslicemirroring-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (services, objects) = (cx.caches.of::<Service>(), cx.caches.of::<Endpoints>());
        let slices = cx.caches.of::<EndpointSlice>();
        slices.add_index(BY_SERVICE, by_service);
        sources::wake_self(&services, queue);
        sources::wake_self(&objects, queue);
        sources::wake(&slices, queue, service_of_slice);
        Self { cx, services, objects, slices, writes: OwnWrites::default() }
    }

    async fn synced(&self) {
        tokio::join!(self.services.synced(), self.objects.synced(), self.slices.synced());
    }

    fn writes(&self) -> Option<&OwnWrites> {
        Some(&self.writes)
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let (endpoints, service) = (self.objects.by_key(key), self.services.by_key(key));
        let slices = self.slices.by_index(BY_SERVICE, &key.to_string());
        let existing: Vec<&EndpointSlice> =
            slices.iter().map(|slice| &**slice).filter(|slice| is_kept_by(slice, MIRRORING_CONTROLLER)).collect();
        let input = MirrorInput { endpoints: endpoints.as_deref(), service: service.as_deref(), existing: &existing };
        write_slices(&self.cx, key, mirror(input), &self.slices, &self.writes).await?;
        Ok(Next::Done)
    }
}
