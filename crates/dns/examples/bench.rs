//! Prints queries per second and the 99th percentile of the DNS server, over UDP on the loopback interface.
//!
//! `cargo run --release -p stead-dns --example bench [seconds] [clients] [in flight]`

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use stead_dns::{SharedZone, UpstreamSource, Upstreams, bind, serve};
use stead_servicenet::zone::ZoneConfig;
use tokio_util::sync::CancellationToken;

const SERVICES: usize = 1000;

fn zone() -> SharedZone {
    let zone = SharedZone::new(ZoneConfig { domain: "cluster.local".into(), server: None, ranges: Vec::new() });
    for i in 0..SERVICES {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": format!("s{i}"), "namespace": "n"},
            "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}))
        .expect("a service");
        let endpoints: Vec<_> = (0..3)
            .map(|j| json!({"addresses": [format!("10.{}.{}.{j}", i / 250, i % 250)], "hostname": format!("s{i}-{j}")}))
            .collect();
        let slice: EndpointSlice = serde_json::from_value(json!({"addressType": "IPv4", "endpoints": endpoints,
            "metadata": {"name": format!("s{i}"), "namespace": "n",
                         "labels": {"kubernetes.io/service-name": format!("s{i}")}}}))
        .expect("a slice");
        zone.change(|zone| {
            zone.set_service(&service);
            zone.set_slice(&slice);
        });
    }
    zone.set_complete();
    zone
}

fn client(server: std::net::SocketAddr, seconds: u64, in_flight: usize, seed: usize) -> Vec<u32> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(server).expect("connected");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let packets: Vec<Vec<u8>> = (0..SERVICES)
        .map(|i| {
            let i = (i * 7 + seed) % SERVICES;
            let mut message = Message::query();
            let name = format!("s{i}-{}.s{i}.n.svc.cluster.local.", i % 3);
            message.add_query(Query::query(Name::from_ascii(name).expect("a name"), RecordType::A));
            message.to_vec().expect("a packet")
        })
        .collect();
    let mut sent = vec![Instant::now(); 65536];
    let mut times = Vec::new();
    let mut next: u16 = 0;
    let mut send = |sent: &mut Vec<Instant>| {
        let mut packet = packets[usize::from(next) % SERVICES].clone();
        packet[..2].copy_from_slice(&next.to_be_bytes());
        sent[usize::from(next)] = Instant::now();
        next = next.wrapping_add(1);
        socket.send(&packet).expect("sent");
    };
    (0..in_flight).for_each(|_| send(&mut sent));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut buffer = [0; 1500];
    while Instant::now() < end {
        match socket.recv(&mut buffer) {
            Ok(_) => {
                let id = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
                times.push(u32::try_from(sent[id].elapsed().as_micros()).unwrap_or(u32::MAX));
                send(&mut sent);
            }
            Err(_) => (0..in_flight).for_each(|_| send(&mut sent)),
        }
    }
    times
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok());
    let seconds = arguments.next().unwrap_or(3) as u64;
    let clients = arguments.next().unwrap_or(2);
    let in_flight = arguments.next().unwrap_or(32);
    let bound = bind(&["127.0.0.1:0".parse().expect("an address")]).await.expect("bound");
    let server = bound.addresses()[0];
    let upstreams = Arc::new(Upstreams::new(UpstreamSource::Servers(Vec::new()), Vec::new()));
    tokio::spawn(serve(bound, zone(), upstreams, CancellationToken::new()));
    let threads: Vec<_> =
        (0..clients).map(|seed| std::thread::spawn(move || client(server, seconds, in_flight, seed * 13))).collect();
    let mut times: Vec<u32> = threads.into_iter().flat_map(|thread| thread.join().expect("a client")).collect();
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!(
        "{} queries/s, p50 {} us, p99 {} us ({clients} clients, {in_flight} in flight each)",
        times.len() as u64 / seconds,
        at(0.5),
        at(0.99)
    );
}
