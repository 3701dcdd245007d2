//! Every namespace has a service account `default`.
//!
//! Source: `pkg/controller/serviceaccount/serviceaccounts_controller.go`.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The account that pods have which name none.
pub const DEFAULT: &str = "default";

/// The account to create: `None` when it is there, or the namespace is ending.
#[must_use]
pub fn plan(namespace: &Namespace, there: bool) -> Option<ServiceAccount> {
    if there || is_ending(namespace) {
        return None;
    }
    let metadata = ObjectMeta {
        name: Some(DEFAULT.to_owned()),
        namespace: namespace.metadata.name.clone(),
        ..ObjectMeta::default()
    };
    Some(ServiceAccount { metadata, ..ServiceAccount::default() })
}

/// Nothing can be made in it any more.
#[must_use]
pub fn is_ending(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_some() || phase == Some("Terminating")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn made_once_and_not_in_an_ending_namespace() {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("obj".to_owned());
        let made = plan(&namespace, false).unwrap();
        assert_eq!((made.metadata.name.as_deref(), made.metadata.namespace.as_deref()), (Some("default"), Some("obj")));
        assert_eq!(plan(&namespace, true), None);
        namespace.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(plan(&namespace, false), None);
    }
}
