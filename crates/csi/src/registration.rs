//! How a driver's registrar tells a node of a driver (`pluginregistration/v1` of the kubelet's interfaces).

use crate::Rpc;

/// The type of plugin that a CSI driver is.
pub const CSI_PLUGIN: &str = "CSIPlugin";

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct InfoRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PluginInfo {
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(string, tag = "2")]
    pub name: String,
    /// Socket of the driver; empty: the registrar's own.
    #[prost(string, tag = "3")]
    pub endpoint: String,
    #[prost(string, repeated, tag = "4")]
    pub supported_versions: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RegistrationStatus {
    #[prost(bool, tag = "1")]
    pub plugin_registered: bool,
    #[prost(string, tag = "2")]
    pub error: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct RegistrationStatusResponse {}

impl Rpc for InfoRequest {
    const PATH: &'static str = "/pluginregistration.Registration/GetInfo";
    type Response = PluginInfo;
}

impl Rpc for RegistrationStatus {
    const PATH: &'static str = "/pluginregistration.Registration/NotifyRegistrationStatus";
    type Response = RegistrationStatusResponse;
}
