//! The typed objects from their text: one decoder of each type in the whole program.
//!
//! A decoder is compiled anew for everything that it decodes from, and in every crate that has none below it. So whoever wants
//! a typed object gives its text, and the decoders that several components need are compiled here, below all of them.

use k8s_openapi::api::{
    apps::v1 as apps, autoscaling::v2 as autoscaling, batch::v1 as batch, coordination::v1 as coordination,
    core::v1 as core, discovery::v1 as discovery, policy::v1 as policy, storage::v1 as storage,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Decodes a typed object. Fields that its type does not know are passed over.
///
/// # Errors
/// The text is no JSON, or a field has another type.
pub fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}

/// As [`from_text`], by way of the value's text: a second decoder of every type would be larger than it is quick.
///
/// # Errors
/// A field has another type.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, serde_json::Error> {
    from_text(&value.to_string())
}

/// Says of a text whether it is an object of one type.
pub type Reads = fn(&str) -> bool;

fn reads<T: DeserializeOwned>(text: &str) -> bool {
    from_text::<T>(text).is_ok()
}

/// The decoders that are compiled here. It is enough that they are named.
pub static DECODERS: &[Reads] = &[
    reads::<apps::ControllerRevision>,
    reads::<apps::DaemonSet>,
    reads::<apps::Deployment>,
    reads::<apps::ReplicaSet>,
    reads::<apps::StatefulSet>,
    reads::<autoscaling::HorizontalPodAutoscaler>,
    reads::<batch::CronJob>,
    reads::<batch::Job>,
    reads::<coordination::Lease>,
    reads::<core::ConfigMap>,
    reads::<core::Endpoints>,
    reads::<core::Event>,
    reads::<core::Namespace>,
    reads::<core::Node>,
    reads::<core::PersistentVolume>,
    reads::<core::PersistentVolumeClaim>,
    reads::<core::Pod>,
    reads::<core::PodTemplateSpec>,
    reads::<core::ReplicationController>,
    reads::<core::ResourceQuota>,
    reads::<core::Secret>,
    reads::<core::Service>,
    reads::<core::ServiceAccount>,
    reads::<discovery::EndpointSlice>,
    reads::<meta::ObjectMeta>,
    reads::<policy::PodDisruptionBudget>,
    reads::<storage::CSIDriver>,
    reads::<storage::CSINode>,
    reads::<storage::StorageClass>,
    reads::<storage::VolumeAttachment>,
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_and_its_text_are_the_same_object() {
        let value = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "tty": true}]}, "more": 1});
        let pod: core::Pod = from_value(&value).expect("a pod");
        assert_eq!(pod, from_text(&value.to_string()).expect("a pod"));
        assert_eq!(pod.spec.map(|spec| spec.containers[0].tty), Some(Some(true)));
        assert!(from_value::<core::Pod>(&json!({"spec": {"containers": 5}})).is_err());
    }

    #[test]
    fn every_decoder_reads_an_object_and_nothing_else() {
        for reads in DECODERS {
            assert!(reads("{}") && !reads("[") && !reads("5"));
        }
    }
}
