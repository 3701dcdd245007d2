//! How a volume is to be used, in the interface's words.

use crate::messages::volume_capability::access_mode::Mode;
use crate::messages::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use crate::messages::{
    ControllerGetCapabilitiesResponse, GetPluginCapabilitiesResponse, NodeGetCapabilitiesResponse, VolumeCapability,
    controller_service_capability, node_service_capability, plugin_capability,
};

/// The use of a volume that Kubernetes calls `mode`. `splits_writers`: the driver has the capability `SINGLE_NODE_MULTI_WRITER`.
#[must_use]
pub fn access_mode(mode: &str, splits_writers: bool) -> Mode {
    match (mode, splits_writers) {
        ("ReadWriteMany", _) => Mode::MultiNodeMultiWriter,
        ("ReadOnlyMany", _) => Mode::MultiNodeReaderOnly,
        ("ReadWriteOncePod", true) => Mode::SingleNodeSingleWriter,
        ("ReadWriteOnce", true) => Mode::SingleNodeMultiWriter,
        _ => Mode::SingleNodeWriter,
    }
}

/// A file system, mounted with these options; `group` owns it where the driver sees to that itself.
#[must_use]
pub fn mounted(mode: Mode, fs_type: &str, options: &[String], group: &str) -> VolumeCapability {
    let mount = MountVolume {
        fs_type: fs_type.to_owned(),
        mount_flags: options.to_vec(),
        volume_mount_group: group.to_owned(),
    };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode as i32 }),
        access_type: Some(AccessType::Mount(mount)),
    }
}

/// A device.
#[must_use]
pub fn device(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode as i32 }),
        access_type: Some(AccessType::Block(BlockVolume {})),
    }
}

/// What a driver's controller can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControllerAbilities {
    pub creates: bool,
    pub attaches: bool,
    pub expands: bool,
    pub splits_writers: bool,
}

/// What a driver can do on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeAbilities {
    pub stages: bool,
    pub expands: bool,
    pub splits_writers: bool,
    pub sets_group: bool,
}

/// Which services a driver has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Services {
    pub controller: bool,
    /// Its volumes cannot be reached from everywhere.
    pub topology: bool,
}

impl From<&ControllerGetCapabilitiesResponse> for ControllerAbilities {
    fn from(answer: &ControllerGetCapabilitiesResponse) -> Self {
        use controller_service_capability::Type;
        use controller_service_capability::rpc::Type as Can;
        let can = |wanted: Can| {
            answer
                .capabilities
                .iter()
                .any(|one| matches!(&one.r#type, Some(Type::Rpc(rpc)) if rpc.r#type == wanted as i32))
        };
        Self {
            creates: can(Can::CreateDeleteVolume),
            attaches: can(Can::PublishUnpublishVolume),
            expands: can(Can::ExpandVolume),
            splits_writers: can(Can::SingleNodeMultiWriter),
        }
    }
}

impl From<&NodeGetCapabilitiesResponse> for NodeAbilities {
    fn from(answer: &NodeGetCapabilitiesResponse) -> Self {
        use node_service_capability::Type;
        use node_service_capability::rpc::Type as Can;
        let can = |wanted: Can| {
            answer
                .capabilities
                .iter()
                .any(|one| matches!(&one.r#type, Some(Type::Rpc(rpc)) if rpc.r#type == wanted as i32))
        };
        Self {
            stages: can(Can::StageUnstageVolume),
            expands: can(Can::ExpandVolume),
            splits_writers: can(Can::SingleNodeMultiWriter),
            sets_group: can(Can::VolumeMountGroup),
        }
    }
}

impl From<&GetPluginCapabilitiesResponse> for Services {
    fn from(answer: &GetPluginCapabilitiesResponse) -> Self {
        use plugin_capability::Type;
        use plugin_capability::service::Type as Has;
        let has = |wanted: Has| {
            let is =
                |one: &Option<Type>| matches!(one, Some(Type::Service(service)) if service.r#type == wanted as i32);
            answer.capabilities.iter().any(|one| is(&one.r#type))
        };
        Self { controller: has(Has::ControllerService), topology: has(Has::VolumeAccessibilityConstraints) }
    }
}
