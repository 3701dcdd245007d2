//! Two nodes, each in a namespace of its own, joined by a wire: their pods reach each other through the overlay.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use stead_wire::kernel::overlay::overlay_mac;
use stead_wire::kernel::{KernelConfig, open};
use stead_wire::{Backend, Frontend, Network, Peer, PodLink, Protocol, ServiceEntry, ServiceTable};

fn node_config(number: u8, dir: &Path) -> KernelConfig {
    KernelConfig {
        instance: format!("n{number}"),
        pod_cidr: format!("10.42.{number}.0/24"),
        node_ip: ip(&format!("192.0.2.{number}")),
        ..config("x", 42, dir)
    }
}

fn peer(number: u8) -> Peer {
    let range = format!("10.42.{number}.0/24");
    Peer {
        name: format!("node-{number}"),
        node_address: ip(&format!("192.0.2.{number}")),
        overlay_mac: overlay_mac(&range.parse().unwrap()),
        pod_cidrs: vec![range],
    }
}

/// Node 2 in the other namespace, with one pod and a service that has a pod on each node.
fn second_node(dir: &Path) -> (Arc<dyn Network>, PodLink) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let network = open(node_config(2, dir)).unwrap();
        network.prepare().await.unwrap();
        network.set_peers(&[peer(1)]).await.unwrap();
        let pod = attach(&network, "pod-2", "10.42.2.5").await;
        (network, pod)
    })
}

#[test]
fn pods_of_two_nodes_reach_each_other() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let outside = wire_to_outside(dir.path());
        let network = open(node_config(1, dir.path())).unwrap();
        network.prepare().await.unwrap();
        network.set_peers(&[peer(2)]).await.unwrap();
        network.set_peers(&[peer(2)]).await.unwrap();
        let pod = attach(&network, "pod-1", "10.42.1.5").await;
        let (second, other) = inside(&outside, || second_node(dir.path()));
        serve(&pod.netns, "0.0.0.0:80", "one");
        serve(&other.netns, "0.0.0.0:80", "two");
        assert_eq!(inside(&pod.netns, || call("10.42.2.5:80")).unwrap(), "two 10.42.1.5");
        assert_eq!(inside(&other.netns, || call("10.42.1.5:80")).unwrap(), "one 10.42.2.5");
        assert_eq!(call("10.42.2.5:80").unwrap(), "two 10.42.1.1", "the host comes as the gateway");
        let backend = Backend { address: ip("10.42.2.5"), port: 80 };
        let entry = |frontend, port| ServiceEntry {
            frontend,
            protocol: Protocol::Tcp,
            port,
            backends: vec![backend.clone()],
            affinity_seconds: None,
        };
        let entries = vec![entry(Frontend::Address(ip("10.43.0.20")), 80), entry(Frontend::NodePort, 30080)];
        network.set_services(&ServiceTable { entries }).await.unwrap();
        assert_eq!(inside(&pod.netns, || call("10.43.0.20:80")).unwrap(), "two 10.42.1.5");
        assert_eq!(call("10.43.0.20:80").unwrap(), "two 10.42.1.1");
        assert_eq!(inside(&outside, || call("192.0.2.1:30080")).unwrap(), "two 10.42.1.1", "node port, pod elsewhere");
        network.set_peers(&[]).await.unwrap();
        assert_eq!(sh("ip route show 10.42.2.0/24"), "");
        assert_eq!(sh("bridge fdb show dev xn1 2>/dev/null | grep -c 192.0.2.2 || true").trim(), "0");
        network.remove_all().await.unwrap();
        assert_eq!(sh("ip -o link | grep -c xn1 || true").trim(), "0");
        drop(second);
    });
}

#[test]
fn peers_that_cannot_be_are_refused() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = open(node_config(1, dir.path())).unwrap();
        let mut same = peer(2);
        same.pod_cidrs = vec!["10.42.1.0/25".into()];
        let error = network.set_peers(&[same]).await.unwrap_err().to_string();
        assert!(error.contains("overlaps this node's 10.42.1.0/24"), "{error}");
        network.remove_all().await.unwrap();
    });
}
