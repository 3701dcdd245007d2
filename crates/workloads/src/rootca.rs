//! Every namespace has the ConfigMap `kube-root-ca.crt`, by which its pods know the API server.
//!
//! Source: `pkg/controller/certificates/rootcacertpublisher/publisher.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::serviceaccount::is_ending;

/// Name of the ConfigMap.
pub const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
);

/// What to do about the ConfigMap of one namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    Nothing,
    Create(ConfigMap),
    Replace(ConfigMap),
}

/// Brings the ConfigMap to the certificate `pem`.
#[must_use]
pub fn plan(namespace: &Namespace, there: Option<&ConfigMap>, pem: &str) -> Plan {
    if is_ending(namespace) {
        return Plan::Nothing;
    }
    let data = Some(BTreeMap::from([(KEY.to_owned(), pem.to_owned())]));
    match there {
        None => {
            let metadata = ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: namespace.metadata.name.clone(),
                annotations: Some(BTreeMap::from([(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())])),
                ..ObjectMeta::default()
            };
            Plan::Create(ConfigMap { metadata, data, ..ConfigMap::default() })
        }
        Some(map) if map.data == data => Plan::Nothing,
        Some(map) => Plan::Replace(ConfigMap { data, ..map.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_mended_and_left_alone() {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("obj".to_owned());
        let Plan::Create(made) = plan(&namespace, None, "PEM") else { panic!("to be made") };
        assert_eq!(made.data.as_ref().unwrap()[KEY], "PEM");
        assert_eq!(plan(&namespace, Some(&made), "PEM"), Plan::Nothing);
        let Plan::Replace(mended) = plan(&namespace, Some(&made), "NEW") else { panic!("to be mended") };
        assert_eq!(mended.data.as_ref().unwrap()[KEY], "NEW");
        assert_eq!(mended.metadata, made.metadata);
    }
}
