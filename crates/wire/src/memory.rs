//! A network that only remembers: the stateful fake for tests of those who use [`Network`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::network::{Network, Peer, PodLink, PodNet, ServiceTable, WireError};

/// Keeps what it was told; makes nothing.
#[derive(Debug, Default)]
pub struct MemoryNetwork {
    state: Mutex<MemoryState>,
}

/// What a [`MemoryNetwork`] was told last.
#[derive(Clone, Debug, Default)]
pub struct MemoryState {
    pub prepared: bool,
    pub pods: BTreeMap<String, PodNet>,
    pub services: ServiceTable,
    pub peers: Vec<Peer>,
}

impl MemoryNetwork {
    pub fn new() -> Self {
        Self::default()
    }

    /// The state of this moment.
    pub fn state(&self) -> MemoryState {
        self.state.lock().clone()
    }
}

fn link(pod: &PodNet) -> PodLink {
    PodLink { id: pod.id.clone(), netns: PathBuf::from("/proc/self/ns/net"), addresses: pod.addresses.clone() }
}

#[async_trait]
impl Network for MemoryNetwork {
    async fn prepare(&self) -> Result<(), WireError> {
        self.state.lock().prepared = true;
        Ok(())
    }

    async fn attach(&self, pod: &PodNet) -> Result<PodLink, WireError> {
        self.state.lock().pods.insert(pod.id.clone(), pod.clone());
        Ok(link(pod))
    }

    async fn detach(&self, id: &str) -> Result<(), WireError> {
        self.state.lock().pods.remove(id);
        Ok(())
    }

    async fn attached(&self) -> Result<Vec<PodLink>, WireError> {
        Ok(self.state.lock().pods.values().map(link).collect())
    }

    async fn set_services(&self, table: &ServiceTable) -> Result<(), WireError> {
        self.state.lock().services = table.clone();
        Ok(())
    }

    async fn set_peers(&self, peers: &[Peer]) -> Result<(), WireError> {
        self.state.lock().peers = peers.to_vec();
        Ok(())
    }

    async fn remove_all(&self) -> Result<(), WireError> {
        *self.state.lock() = MemoryState::default();
        Ok(())
    }
}
