//! What other programs do to the packet filter, done here by hand. These tests need root.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::io::ErrorKind;
use std::time::Instant;

use common::*;

use super::message::{self, Hook, begin, end};
use crate::netlink::{Reader, Socket};
use crate::network::{Backend, Frontend, Protocol, ServiceEntry, ServiceTable};

fn filter(messages: Vec<crate::netlink::Msg>) {
    Socket::open(super::NETFILTER).unwrap().transaction(begin(), messages, end()).unwrap();
}

/// A firewall as Docker and ufw leave it: what is forwarded is dropped.
fn set_up_firewall() {
    let hook = Some(Hook { kind: "filter", number: 2, priority: 0 });
    let chain = message::new_chain("filter", "FORWARD", hook).attr(5, &0u32.to_be_bytes());
    filter(vec![message::new_table("filter"), chain]);
}

fn rules_of_firewall() -> usize {
    let socket = Socket::open(super::NETFILTER).unwrap();
    let items = socket.dump(message::list_rules(2, "filter", "FORWARD")).unwrap();
    items.iter().filter(|item| Reader(&item[4..]).text(1).as_deref() == Some("filter")).count()
}

fn has_table(name: &str) -> bool {
    let chains = Socket::open(super::NETFILTER).unwrap().dump(message::list_chains()).unwrap();
    chains.iter().any(|item| Reader(&item[4..]).text(1).as_deref() == Some(name))
}

/// Looks until it is so.
fn until(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}");
    }
}

#[test]
fn root_a_firewall_that_drops_forwarded_packets_lets_pods_pass() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        set_up_firewall();
        let network = network("a", 42, dir.path()).await;
        let a = attach(&network, "pod-a", "10.42.0.5").await;
        let b = attach(&network, "pod-b", "10.42.0.6").await;
        serve(&a.netns, "0.0.0.0:80", "a");
        assert_eq!(inside(&b.netns, || call("10.42.0.5:80")).unwrap(), "a 10.42.0.6");
        network.prepare().await.unwrap();
        assert_eq!(rules_of_firewall(), 2, "once");
        // Set up again, as on a restart of the firewall.
        filter(vec![message::delete_table("filter")]);
        set_up_firewall();
        tokio::task::block_in_place(|| until(|| rules_of_firewall() == 2));
        assert_eq!(inside(&b.netns, || call("10.42.0.5:80")).unwrap(), "a 10.42.0.6");
        network.remove_all().await.unwrap();
        assert_eq!(rules_of_firewall(), 0);
    });
}

#[test]
fn root_a_flushed_table_comes_back() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = network("a", 42, dir.path()).await;
        let a = attach(&network, "pod-a", "10.42.0.5").await;
        serve(&a.netns, "0.0.0.0:80", "a");
        let entry = ServiceEntry {
            frontend: Frontend::Address(ip("10.43.0.20")),
            protocol: Protocol::Tcp,
            port: 80,
            backends: vec![Backend { address: ip("10.42.0.5"), port: 80 }],
            affinity_seconds: None,
        };
        network.set_services(&ServiceTable { entries: vec![entry] }).await.unwrap();
        assert_eq!(call("10.43.0.20:80").unwrap(), "a 10.42.0.1");
        filter(vec![message::delete_table("stead-a")]);
        tokio::task::block_in_place(|| until(|| has_table("stead-a")));
        assert_eq!(call("10.43.0.20:80").unwrap(), "a 10.42.0.1");
        assert_eq!(call("10.43.0.21:80"), Err(ErrorKind::ConnectionRefused));
        network.remove_all().await.unwrap();
    });
}
