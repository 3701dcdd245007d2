//! The service `kube-dns` in `kube-system`, by which clients find the server in the API.
//!
//! Every node answers its pods itself, at the service's address; so the one endpoint is that address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use stead_client::{Client, create_if_absent};
use stead_informer::Caches;
use stead_servicenet::endpoints::{MANAGED_BY, SERVICE_NAME};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
/// Who keeps the slice.
const KEEPER: &str = "dns.stead.dev";
/// After a failure: first and longest pause.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Makes the service as soon as its namespace is there.
pub(crate) async fn keep(caches: &Caches, client: &Client, address: IpAddr) {
    let namespaces = caches.of::<Namespace>();
    namespaces.until(|cache| cache.get("", NAMESPACE).is_some()).await;
    let mut pause = RETRY_FIRST;
    while let Err(error) = ensure_service(client, address).await {
        tracing::warn!(%error, "cannot make the service {NAMESPACE}/{NAME}; will try again in {pause:?}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Makes the service and its slice unless they exist.
///
/// # Errors
/// Every API error but `AlreadyExists`.
pub async fn ensure_service(client: &Client, address: IpAddr) -> Result<(), kube::Error> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    // Looked for first: creating it again would be refused for its address before it is refused for its name.
    match services.get_opt(NAME).await? {
        None => {
            create_if_absent(&services, &service(address)).await?;
        }
        Some(existing) => {
            let other = existing.spec.and_then(|s| s.cluster_ip).filter(|ip| *ip != address.to_string());
            if let Some(other) = other {
                tracing::warn!("service {NAMESPACE}/{NAME} has the address {other}, but pods are told {address}");
            }
        }
    }
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    create_if_absent(&slices, &slice(address)).await.map(drop)
}

fn labels() -> BTreeMap<String, String> {
    let labels =
        [("k8s-app", "kube-dns"), ("kubernetes.io/cluster-service", "true"), ("kubernetes.io/name", "CoreDNS")];
    labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

const PORTS: [(&str, &str); 2] = [("dns", "UDP"), ("dns-tcp", "TCP")];

fn service(address: IpAddr) -> Service {
    let ports = PORTS.map(|(name, protocol)| ServicePort {
        name: Some(name.into()),
        port: 53,
        protocol: Some(protocol.into()),
        ..ServicePort::default()
    });
    Service {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(NAMESPACE.into()),
            labels: Some(labels()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some(address.to_string()),
            ports: Some(ports.to_vec()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn slice(address: IpAddr) -> EndpointSlice {
    let mut labels = labels();
    labels.insert(SERVICE_NAME.into(), NAME.into());
    labels.insert(MANAGED_BY.into(), KEEPER.into());
    let ports = PORTS.map(|(name, protocol)| EndpointPort {
        name: Some(name.into()),
        port: Some(53),
        protocol: Some(protocol.into()),
        app_protocol: None,
    });
    EndpointSlice {
        address_type: if address.is_ipv4() { "IPv4" } else { "IPv6" }.into(),
        endpoints: Some(vec![Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(EndpointConditions { ready: Some(true), serving: Some(true), terminating: Some(false) }),
            ..Endpoint::default()
        }]),
        metadata: ObjectMeta {
            name: Some(format!("{NAME}-local")),
            namespace: Some(NAMESPACE.into()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        ports: Some(ports.to_vec()),
    }
}
