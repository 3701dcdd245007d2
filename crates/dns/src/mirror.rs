//! The zone as it follows the caches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::RwLock;
use stead_informer::Caches;
use stead_servicenet::zone::{Outcome, QuestionType, Zone, ZoneConfig};

/// The zone, shared by all sockets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SharedZone {
    zone: Arc<RwLock<Zone>>,
    complete: Arc<AtomicBool>,
}

impl SharedZone {
    pub fn new(config: ZoneConfig) -> Self {
        Self { zone: Arc::new(RwLock::new(Zone::new(config))), complete: Arc::default() }
    }

    /// Applies every change of the caches from now on, within their watches.
    pub fn follow(&self, caches: &Caches) {
        let (services, slices) = (caches.of::<Service>(), caches.of::<EndpointSlice>());
        let namespaces = caches.of::<Namespace>();
        let zone = self.zone.clone();
        services.on_change(move |change| match &change.new {
            Some(service) => zone.write().set_service(service),
            None => zone.write().remove_service(&change.key.namespace, &change.key.name),
        });
        let zone = self.zone.clone();
        slices.on_change(move |change| match &change.new {
            Some(slice) => zone.write().set_slice(slice),
            None => zone.write().remove_slice(&change.key.namespace, &change.key.name),
        });
        let zone = self.zone.clone();
        namespaces.on_change(move |change| match &change.new {
            Some(_) => zone.write().set_namespace(&change.key.name),
            None => zone.write().remove_namespace(&change.key.name),
        });
        let complete = self.clone();
        tokio::spawn(async move {
            tokio::join!(services.synced(), slices.synced(), namespaces.synced());
            complete.set_complete();
        });
    }

    /// Changes the zone by hand, for tests and benches.
    pub fn change(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.zone.write());
    }

    /// From now on a name that is not known does not exist.
    pub fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    pub(crate) fn answer(&self, name: &str, kind: QuestionType) -> Outcome {
        self.zone.read().answer(name, kind)
    }

    pub(crate) fn domain(&self) -> String {
        self.zone.read().domain().to_owned()
    }
}
