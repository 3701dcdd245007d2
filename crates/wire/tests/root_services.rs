//! Services, node ports and host ports in the real kernel.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use common::*;
use stead_wire::kernel::open;
use stead_wire::{Backend, Frontend, HostPort, Network, PodNet, Protocol, ServiceEntry, ServiceTable};

fn entry(frontend: &str, backends: &[&str]) -> ServiceEntry {
    let (protocol, rest) = match frontend.strip_prefix("udp ") {
        Some(rest) => (Protocol::Udp, rest),
        None => (Protocol::Tcp, frontend),
    };
    let (address, port) = rest.split_once(':').unwrap();
    ServiceEntry {
        frontend: if address == "node" { Frontend::NodePort } else { Frontend::Address(ip(address)) },
        protocol,
        port: port.parse().unwrap(),
        backends: backends
            .iter()
            .map(|b| {
                let (address, port) = b.split_once(':').unwrap();
                Backend { address: ip(address), port: port.parse().unwrap() }
            })
            .collect(),
        affinity_seconds: None,
    }
}

async fn set(network: &Arc<dyn Network>, entries: &[ServiceEntry]) {
    network.set_services(&ServiceTable { entries: entries.to_vec() }).await.unwrap();
}

/// Which servers answer, out of many calls.
fn seen(address: &str) -> BTreeSet<String> {
    (0..40).map(|_| call(address).unwrap().split(' ').next().unwrap().to_owned()).collect()
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn pods_and_host_reach_a_service_and_a_pod_reaches_itself() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = network("a", 42, dir.path()).await;
        let a = attach(&network, "pod-a", "10.42.0.5").await;
        let b = attach(&network, "pod-b", "10.42.0.6").await;
        let c = attach(&network, "pod-c", "10.42.0.7").await;
        serve(&a.netns, "0.0.0.0:8080", "a");
        serve(&b.netns, "0.0.0.0:8080", "b");
        let both = ["10.42.0.5:8080", "10.42.0.6:8080"];
        set(&network, &[entry("10.43.0.20:80", &both), entry("10.43.0.21:80", &both[..1])]).await;
        assert_eq!(inside(&c.netns, || seen("10.43.0.20:80")), names(&["a", "b"]));
        assert_eq!(inside(&c.netns, || call("10.43.0.21:80")).unwrap(), "a 10.42.0.7", "the caller's address is kept");
        assert_eq!(seen("10.43.0.20:80"), names(&["a", "b"]));
        assert_eq!(call("10.43.0.21:80").unwrap(), "a 10.42.0.1");
        assert_eq!(inside(&a.netns, || call("10.43.0.21:80")).unwrap(), "a 10.42.0.1", "hairpin");
        network.remove_all().await.unwrap();
    });
}

#[test]
fn udp_follows_its_backends() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = network("a", 42, dir.path()).await;
        let a = attach(&network, "pod-a", "10.42.0.5").await;
        let b = attach(&network, "pod-b", "10.42.0.6").await;
        serve_udp(&a.netns, "0.0.0.0:53", "a");
        serve_udp(&b.netns, "0.0.0.0:53", "b");
        set(&network, &[entry("udp 10.43.0.20:53", &["10.42.0.5:53"])]).await;
        assert_eq!(inside(&b.netns, || ask_udp("10.43.0.20:53")).unwrap(), "a");
        assert_eq!(ask_udp("10.43.0.20:53").unwrap(), "a");
        assert_eq!(inside(&a.netns, || ask_udp("10.43.0.20:53")).unwrap(), "a", "hairpin");
        // A client that keeps its socket is led away from a backend that is gone.
        let socket = inside(&b.netns, || std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.connect("10.43.0.20:53").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 8];
        for (backend, name) in [("10.42.0.5:53", "a"), ("10.42.0.6:53", "b")] {
            set(&network, &[entry("udp 10.43.0.20:53", &[backend])]).await;
            socket.send(b"?").unwrap();
            let n = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], name.as_bytes());
        }
        network.remove_all().await.unwrap();
    });
}

#[test]
fn without_endpoints_callers_are_refused_at_once() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let outside = wire_to_outside(dir.path());
        let network = network("a", 42, dir.path()).await;
        let a = attach(&network, "pod-a", "10.42.0.5").await;
        sh("ip route add default via 192.0.2.2");
        set(&network, &[entry("10.43.0.20:80", &[]), entry("node:30080", &[]), entry("203.0.113.9:80", &[])]).await;
        let start = Instant::now();
        // With endpoints missing, with the port unknown, with the address unknown.
        for address in ["10.43.0.20:80", "10.43.0.20:81", "10.43.77.1:80", "203.0.113.9:80"] {
            assert_eq!(inside(&a.netns, || call(address)), Err(ErrorKind::ConnectionRefused), "pod to {address}");
        }
        for address in ["10.43.0.20:80", "10.43.77.1:80", "203.0.113.9:80"] {
            assert_eq!(call(address), Err(ErrorKind::ConnectionRefused), "host to {address}");
        }
        assert_eq!(inside(&outside, || call("192.0.2.1:30080")), Err(ErrorKind::ConnectionRefused));
        for address in ["10.43.0.20:53", "10.43.77.1:53"] {
            assert_eq!(inside(&a.netns, || ask_udp(address)), Err(ErrorKind::ConnectionRefused), "UDP to {address}");
        }
        // Again and again: what the kernel answers must not be limited to a few a second.
        for _ in 0..50 {
            assert_eq!(inside(&a.netns, || call("10.43.0.20:80")), Err(ErrorKind::ConnectionRefused));
        }
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        network.remove_all().await.unwrap();
    });
}

#[test]
fn node_ports_and_host_ports_lead_to_pods() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let outside = wire_to_outside(dir.path());
        let network = network("a", 42, dir.path()).await;
        let a = attach(&network, "pod-a", "10.42.0.5").await;
        let mut pod = pod("pod-b", "10.42.0.6");
        let host_port = |host_ip: Option<&str>, host_port| HostPort {
            protocol: Protocol::Tcp,
            host_ip: host_ip.map(ip),
            host_port,
            container_port: 8080,
        };
        pod.host_ports = vec![host_port(None, 9000), host_port(Some("192.0.2.1"), 9001)];
        let b = network.attach(&pod).await.unwrap();
        serve(&a.netns, "0.0.0.0:8080", "a");
        serve(&b.netns, "0.0.0.0:8080", "b");
        set(&network, &[entry("node:30080", &["10.42.0.5:8080"])]).await;
        assert_eq!(inside(&outside, || call("192.0.2.1:30080")).unwrap(), "a 192.0.2.2");
        assert_eq!(inside(&b.netns, || call("192.0.2.1:30080")).unwrap(), "a 10.42.0.6");
        assert_eq!(inside(&a.netns, || call("192.0.2.1:30080")).unwrap(), "a 10.42.0.1", "hairpin");
        assert_eq!(call("192.0.2.1:30080").unwrap().split(' ').next(), Some("a"));
        assert_eq!(call("127.0.0.1:30080").unwrap(), "a 10.42.0.1");
        for port in [9000, 9001] {
            let address = format!("192.0.2.1:{port}");
            assert_eq!(inside(&outside, || call(&address)).unwrap(), "b 192.0.2.2");
            assert_eq!(inside(&b.netns, || call(&address)).unwrap(), "b 10.42.0.1", "hairpin");
        }
        assert_eq!(call("127.0.0.1:9000").unwrap(), "b 10.42.0.1");
        assert_eq!(call("127.0.0.1:9001"), Err(ErrorKind::ConnectionRefused));
        // A new service table does not touch host ports; the end of the pod does.
        set(&network, &[]).await;
        assert_eq!(inside(&outside, || call("192.0.2.1:9000")).unwrap(), "b 192.0.2.2");
        network.detach("pod-b").await.unwrap();
        assert_eq!(inside(&outside, || call("192.0.2.1:9000")), Err(ErrorKind::ConnectionRefused));
        assert_eq!(inside(&outside, || call("192.0.2.1:30080")), Err(ErrorKind::ConnectionRefused));
        network.remove_all().await.unwrap();
    });
}

#[test]
fn pods_reach_the_outside_as_the_node_and_not_the_hosts_loopback() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let outside = wire_to_outside(dir.path());
        let network = network("a", 42, dir.path()).await;
        let a = attach(&network, "pod-a", "10.42.0.5").await;
        serve(&outside, "192.0.2.2:80", "outside");
        assert_eq!(inside(&a.netns, || call("192.0.2.2:80")).unwrap(), "outside 192.0.2.1");
        set(&network, &[entry("10.43.0.20:80", &["192.0.2.2:80"])]).await;
        assert_eq!(inside(&a.netns, || call("10.43.0.20:80")).unwrap(), "outside 192.0.2.1");
        assert_eq!(call("10.43.0.20:80").unwrap(), "outside 192.0.2.1");
        serve_on(TcpListener::bind("127.0.0.1:7777").unwrap(), "secret");
        inside(&a.netns, || {
            sh(
                "ip route add 127.0.0.1/32 via 10.42.0.1 dev eth0 onlink table 9; sysctl -qw net.ipv4.conf.all.route_localnet=1; ip rule add to 127.0.0.1 table 9 pref 0; ip rule add from all lookup local pref 100; ip rule del pref 0 lookup local",
            )
        });
        assert!(inside(&a.netns, || call("127.0.0.1:7777")).is_err(), "the host's loopback is not for pods");
        network.remove_all().await.unwrap();
    });
}

#[test]
fn a_change_keeps_the_connections_of_others() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = network("a", 42, dir.path()).await;
        let a = attach(&network, "pod-a", "10.42.0.5").await;
        let b = attach(&network, "pod-b", "10.42.0.6").await;
        let client = attach(&network, "pod-c", "10.42.0.7").await;
        serve(&a.netns, "0.0.0.0:80", "a");
        serve(&b.netns, "0.0.0.0:80", "b");
        set(&network, &[entry("10.43.0.20:80", &["10.42.0.5:80"])]).await;
        let mut kept = inside(&client.netns, || connect("10.43.0.20:80").unwrap());
        assert_eq!(line(&mut kept).unwrap(), "a 10.42.0.7");
        let steps: [&[ServiceEntry]; 4] = [
            &[entry("10.43.0.20:80", &["10.42.0.5:80", "10.42.0.6:80"])],
            &[entry("10.43.0.20:80", &["10.42.0.6:80"]), entry("10.43.0.21:80", &["10.42.0.5:80"])],
            &[entry("10.43.0.20:80", &[])],
            &[entry("10.43.0.20:80", &["10.42.0.6:80"])],
        ];
        for (step, expected) in steps.into_iter().zip([&["a", "b"][..], &["b"], &[], &["b"]]) {
            set(&network, step).await;
            kept.write_all(b"x").unwrap();
            let mut echo = [0];
            kept.read_exact(&mut echo).expect("the connection lives on");
            if expected.is_empty() {
                assert_eq!(inside(&client.netns, || call("10.43.0.20:80")), Err(ErrorKind::ConnectionRefused));
            } else {
                assert_eq!(inside(&client.netns, || seen("10.43.0.20:80")), names(expected));
            }
        }
        network.remove_all().await.unwrap();
    });
}

#[test]
fn a_client_stays_with_its_backend_while_that_lives() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let outside = wire_to_outside(dir.path());
        let network = network("a", 42, dir.path()).await;
        let a = attach(&network, "pod-a", "10.42.0.5").await;
        let b = attach(&network, "pod-b", "10.42.0.6").await;
        let client = attach(&network, "pod-c", "10.42.0.7").await;
        serve(&a.netns, "0.0.0.0:80", "a");
        serve(&b.netns, "0.0.0.0:80", "b");
        let sticky = |frontend: &str, backends: &[&str]| ServiceEntry {
            affinity_seconds: Some(60),
            ..entry(frontend, backends)
        };
        let both = ["10.42.0.5:80", "10.42.0.6:80"];
        set(&network, &[sticky("10.43.0.20:80", &both), sticky("node:30080", &both)]).await;
        let first = inside(&client.netns, || seen("10.43.0.20:80"));
        assert_eq!(first.len(), 1, "{first:?}");
        assert_eq!(inside(&outside, || seen("192.0.2.1:30080")).len(), 1);
        // Its backend goes: the client gets the other one, and keeps that when the first is back.
        let (other, other_backend) = if first.contains("a") { ("b", both[1]) } else { ("a", both[0]) };
        set(&network, &[sticky("10.43.0.20:80", &[other_backend])]).await;
        assert_eq!(inside(&client.netns, || seen("10.43.0.20:80")), names(&[other]));
        set(&network, &[sticky("10.43.0.20:80", &both)]).await;
        assert_eq!(inside(&client.netns, || seen("10.43.0.20:80")), names(&[other]));
        network.remove_all().await.unwrap();
    });
}

#[test]
fn a_later_process_takes_up_the_rules_and_mends_what_others_broke() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let before = network("a", 42, dir.path()).await;
        let mut pod = pod("pod-a", "10.42.0.5");
        pod.host_ports = vec![HostPort { protocol: Protocol::Tcp, host_ip: None, host_port: 9000, container_port: 80 }];
        let a = before.attach(&pod).await.unwrap();
        serve(&a.netns, "0.0.0.0:80", "a");
        set(&before, &[entry("10.43.0.20:80", &["10.42.0.5:80"])]).await;
        drop(before);
        let after = open(config("a", 42, dir.path())).unwrap();
        after.prepare().await.unwrap();
        assert_eq!(call("10.43.0.20:80").unwrap(), "a 10.42.0.1", "rules stay while the server is away");
        set(&after, &[entry("10.43.0.21:80", &["10.42.0.5:80"])]).await;
        assert_eq!(call("10.43.0.20:80"), Err(ErrorKind::ConnectionRefused));
        assert_eq!(call("10.43.0.21:80").unwrap(), "a 10.42.0.1");
        assert_eq!(call("127.0.0.1:9000").unwrap(), "a 10.42.0.1");
        // Another instance with the same name elsewhere removes the table behind our back.
        open(config("a", 42, &dir.path().join("other"))).unwrap().remove_all().await.unwrap();
        let again = open(config("a", 42, dir.path())).unwrap();
        again.prepare().await.unwrap();
        let a = again.attach(&PodNet { id: "pod-z".into(), ..pod.clone() }).await.unwrap();
        serve(&a.netns, "0.0.0.0:80", "z");
        set(&after, &[entry("10.43.0.22:80", &["10.42.0.5:80"])]).await;
        assert_eq!(call("10.43.0.22:80").unwrap(), "z 10.42.0.1");
        after.remove_all().await.unwrap();
        again.remove_all().await.unwrap();
    });
}

#[test]
fn prints_how_long_large_tables_take() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = network("a", 42, dir.path()).await;
        let table = |services: u32, shift: u32| {
            let entries = (0..services).map(|i| ServiceEntry {
                frontend: Frontend::Address(std::net::Ipv4Addr::from(0x0a2b_0100 + i).into()),
                protocol: Protocol::Tcp,
                port: 80,
                backends: (0..3)
                    .map(|j| Backend {
                        address: std::net::Ipv4Addr::from(0x0a2a_0100 + i * 3 + j + if i == 7 { shift } else { 0 })
                            .into(),
                        port: 8080,
                    })
                    .collect(),
                affinity_seconds: None,
            });
            ServiceTable { entries: entries.collect() }
        };
        for services in [2_000, 20_000] {
            let start = Instant::now();
            network.set_services(&table(services, 0)).await.unwrap();
            let load = start.elapsed();
            let start = Instant::now();
            network.set_services(&table(services, 100_000)).await.unwrap();
            println!("{services} services: load {load:.2?}, one changes {:.2?}", start.elapsed());
        }
        let start = Instant::now();
        drop(network);
        let again = open(config("a", 42, dir.path())).unwrap();
        again.prepare().await.unwrap();
        println!("taking up 20000 services: {:.2?}", start.elapsed());
        again.remove_all().await.unwrap();
    });
}
