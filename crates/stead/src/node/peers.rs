//! The overlay follows the Node objects: where the pods of the other nodes are.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use stead_informer::Caches;
use stead_wire::kernel::overlay::overlay_mac;
use stead_wire::{Network, Peer};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// After a failed write to the kernel: first and longest pause.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Keeps the overlay equal to the cluster's nodes until `stop`. It stays: pods go on reaching each other while the
/// server is away.
pub(super) async fn follow(own: &str, network: Arc<dyn Network>, caches: &Caches, stop: &CancellationToken) {
    let nodes = caches.of::<Node>();
    let changed = Arc::new(Notify::new());
    let wake = changed.clone();
    nodes.on_change(move |change| {
        let peer = |node: &Option<Arc<Node>>| node.as_deref().and_then(peer);
        if peer(&change.old) != peer(&change.new) {
            wake.notify_one();
        }
    });
    if stop.run_until_cancelled(nodes.synced()).await.is_none() {
        return;
    }
    // Even without any other node, peers of an earlier time have to go.
    changed.notify_one();
    let mut pause = RETRY_FIRST;
    while stop.run_until_cancelled(changed.notified()).await.is_some() {
        let peers: Vec<Peer> =
            nodes.list().iter().filter_map(|node| peer(node)).filter(|peer| peer.name != own).collect();
        match network.set_peers(&peers).await {
            Ok(()) => pause = RETRY_FIRST,
            Err(error) => {
                tracing::error!(%error, "cannot lead the overlay to the other nodes; will try again in {pause:?}");
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(RETRY_MAX);
                changed.notify_one();
            }
        }
    }
}

/// The node as the overlay sees it; `None` while it has no range or no address.
fn peer(node: &Node) -> Option<Peer> {
    let spec = node.spec.as_ref()?;
    let first = spec.pod_cidr.clone().filter(|range| !range.is_empty())?;
    let ranges = spec.pod_cidrs.clone().filter(|ranges| !ranges.is_empty()).unwrap_or_else(|| vec![first.clone()]);
    let addresses = node.status.as_ref()?.addresses.as_deref()?;
    let address = addresses.iter().find(|address| address.type_ == "InternalIP")?.address.parse().ok()?;
    Some(Peer {
        name: node.metadata.name.clone()?,
        node_address: address,
        overlay_mac: overlay_mac(&first.parse().ok()?),
        pod_cidrs: ranges,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_a_peer_once_it_has_range_and_address() {
        let node = |spec: serde_json::Value, status: serde_json::Value| -> Node {
            serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec, "status": status})).unwrap()
        };
        let range = json!({"podCIDR": "10.42.1.0/24", "podCIDRs": ["10.42.1.0/24"]});
        let addresses = json!({"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.1"}]});
        assert_eq!(peer(&node(range.clone(), json!({}))), None);
        assert_eq!(peer(&node(json!({}), addresses.clone())), None);
        let found = peer(&node(range, addresses)).unwrap();
        assert_eq!(
            (found.node_address.to_string(), found.pod_cidrs),
            ("192.0.2.1".to_owned(), vec!["10.42.1.0/24".to_owned()])
        );
        assert_eq!(found.overlay_mac, [0x0a, 0x58, 10, 42, 1, 1]);
    }
}
