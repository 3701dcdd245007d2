//! Wishes as requests.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolume;
use stead_csi::messages::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerPublishVolumeRequest, CreateVolumeRequest, Topology,
    TopologyRequirement, VolumeCapability,
};
use stead_csi::{access_mode, device, mounted};
use stead_workloads::csi::Wish;

use super::Sidecars;

impl Sidecars {
    fn capability(&self, mode: &str, block: bool, fs_type: &str, options: &[String]) -> VolumeCapability {
        let mode = access_mode(mode, self.driver.abilities.splits_writers);
        if block { device(mode) } else { mounted(mode, fs_type, options, "") }
    }

    pub(super) fn create_request(&self, wish: &Wish) -> CreateVolumeRequest {
        let capability = |mode: &String| self.capability(mode, false, &wish.fs_type, &wish.mount_options);
        CreateVolumeRequest {
            name: wish.name.clone(),
            capacity_range: Some(CapacityRange { required_bytes: wish.bytes, limit_bytes: 0 }),
            volume_capabilities: wish.access_modes.iter().map(capability).collect(),
            parameters: wish.parameters.clone(),
            accessibility_requirements: self.driver.services.topology.then(|| self.requirement(wish.node.as_deref())),
            ..CreateVolumeRequest::default()
        }
    }

    /// Where the driver's volumes can be reached from: everywhere that it is, best where the pod is.
    fn requirement(&self, chosen: Option<&str>) -> TopologyRequirement {
        let mut requisite: Vec<Topology> = Vec::new();
        let mut preferred: Vec<Topology> = Vec::new();
        for node in self.csi_nodes.list() {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let Some(topology) = self.topology(name) else { continue };
            if Some(name) == chosen {
                preferred.push(topology.clone());
            }
            if !requisite.contains(&topology) {
                requisite.push(topology);
            }
        }
        let others: Vec<Topology> = requisite.iter().filter(|one| !preferred.contains(one)).cloned().collect();
        preferred.extend(others);
        TopologyRequirement { requisite, preferred }
    }

    /// Where a node is, in the driver's words: the labels of the node that the driver has named.
    fn topology(&self, node: &str) -> Option<Topology> {
        let known = self.csi_nodes.get("", node)?;
        let entry = known.spec.drivers.iter().find(|entry| entry.name == self.driver.name)?;
        let object = self.nodes.get("", node)?;
        let labels = object.metadata.labels.as_ref()?;
        let pair = |key: &String| Some((key.clone(), labels.get(key)?.clone()));
        let segments: Option<BTreeMap<String, String>> = entry.topology_keys.iter().flatten().map(pair).collect();
        segments.filter(|segments| !segments.is_empty()).map(|segments| Topology { segments })
    }

    fn capability_of(&self, volume: &PersistentVolume) -> VolumeCapability {
        let spec = volume.spec.clone().unwrap_or_default();
        let fs_type = spec.csi.as_ref().and_then(|csi| csi.fs_type.clone()).unwrap_or_default();
        let mode = spec.access_modes.iter().flatten().next().cloned().unwrap_or_default();
        let options = spec.mount_options.unwrap_or_default();
        self.capability(&mode, spec.volume_mode.as_deref() == Some("Block"), &fs_type, &options)
    }

    pub(super) fn expand_request(&self, volume: &PersistentVolume, bytes: i64) -> ControllerExpandVolumeRequest {
        ControllerExpandVolumeRequest {
            volume_id: handle(volume),
            capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            secrets: BTreeMap::new(),
            volume_capability: Some(self.capability_of(volume)),
        }
    }

    pub(super) fn publish_request(&self, volume: &PersistentVolume, node_id: String) -> ControllerPublishVolumeRequest {
        let csi = volume.spec.as_ref().and_then(|spec| spec.csi.clone()).unwrap_or_default();
        ControllerPublishVolumeRequest {
            volume_id: csi.volume_handle,
            node_id,
            volume_capability: Some(self.capability_of(volume)),
            readonly: csi.read_only.unwrap_or(false),
            secrets: BTreeMap::new(),
            volume_context: csi.volume_attributes.unwrap_or_default(),
        }
    }

    /// What the driver calls a node.
    pub(super) fn node_id(&self, node: &str) -> Option<String> {
        let known = self.csi_nodes.get("", node)?;
        let entry = known.spec.drivers.iter().find(|entry| entry.name == self.driver.name)?;
        Some(entry.node_id.clone())
    }
}

/// The driver's name of a volume.
pub(super) fn handle(volume: &PersistentVolume) -> String {
    let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    csi.map(|csi| csi.volume_handle.clone()).unwrap_or_default()
}
