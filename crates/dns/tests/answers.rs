//! The server over real sockets on the loopback interface, with a zone made by hand.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use stead_dns::{SharedZone, UpstreamSource, Upstreams, bind, serve};
use stead_servicenet::zone::ZoneConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long an answer may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(10);

struct World {
    zone: SharedZone,
    server: SocketAddr,
    _stop: DropGuard,
}

fn service(name: &str, spec: serde_json::Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec})).unwrap()
}

fn slice(service: &str, count: usize) -> EndpointSlice {
    let endpoints: Vec<_> = (0..count)
        .map(|i| json!({"addresses": [format!("10.42.{}.{}", i / 200, i % 200 + 1)], "hostname": format!("{service}-{i}")}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": service, "namespace": "n", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}))
    .unwrap()
}

async fn start(upstreams: Vec<SocketAddr>) -> World {
    let zone = SharedZone::new(ZoneConfig {
        domain: "cluster.local".into(),
        server: Some("10.43.0.10".parse().unwrap()),
        ranges: vec![("10.42.0.0".parse().unwrap(), 16)],
    });
    zone.change(|zone| {
        for (name, count) in [("web", 3), ("big", 300)] {
            zone.set_service(&service(name, json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]})));
            zone.set_slice(&slice(name, count));
        }
        zone.set_service(&service("out", json!({"type": "ExternalName", "externalName": "db.example.org"})));
    });
    let bound = bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
    let server = bound.addresses()[0];
    let stop = CancellationToken::new();
    let upstreams = Arc::new(Upstreams::new(UpstreamSource::Servers(upstreams), Vec::new()));
    tokio::spawn(serve(bound, zone.clone(), upstreams, stop.clone()));
    World { zone, server, _stop: stop.drop_guard() }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn udp_bytes(server: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(packet, server).await.unwrap();
    let mut buffer = vec![0; 65536];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    buffer.truncate(length);
    buffer
}

async fn udp(world: &World, message: &Message) -> Message {
    let answer = Message::from_vec(&udp_bytes(world.server, &message.to_vec().unwrap()).await).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    answer
}

async fn tcp(world: &World, messages: &[Message]) -> Vec<Message> {
    let mut stream = TcpStream::connect(world.server).await.unwrap();
    let mut answers = Vec::new();
    for message in messages {
        let packet = message.to_vec().unwrap();
        stream.write_u16(packet.len() as u16).await.unwrap();
        stream.write_all(&packet).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.unwrap();
        answers.push(Message::from_vec(&answer).unwrap());
    }
    answers
}

fn addresses(message: &Message) -> Vec<String> {
    let mut list: Vec<String> = message
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::A(a) => a.to_string(),
            other => other.to_string(),
        })
        .collect();
    list.sort();
    list
}

#[tokio::test]
async fn answers_by_udp_and_tcp_in_the_case_that_was_asked() {
    let world = start(Vec::new()).await;
    world.zone.set_complete();
    let asked = question("Web.n.SVC.cluster.local.", RecordType::A);
    let by_udp = udp(&world, &asked).await;
    let [by_tcp, missing] =
        &tcp(&world, &[asked.clone(), question("no.n.svc.cluster.local.", RecordType::A)]).await[..]
    else {
        panic!("two answers");
    };
    for answer in [&by_udp, by_tcp] {
        assert_eq!(addresses(answer), ["10.42.0.1", "10.42.0.2", "10.42.0.3"]);
        assert_eq!(answer.answers[0].name.to_ascii(), "Web.n.SVC.cluster.local.");
        assert_eq!(answer.answers[0].ttl, 5);
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
        assert!(answer.edns.is_none());
    }
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
    let srv = udp(&world, &question("_http._tcp.web.n.svc.cluster.local.", RecordType::SRV)).await;
    assert_eq!((srv.answers.len(), srv.additionals.len()), (3, 3));
    assert_eq!(srv.answers[0].data.to_string(), "0 33 80 web-0.web.n.svc.cluster.local.");
    let nodata = udp(&world, &question("web-0.web.n.svc.cluster.local.", RecordType::AAAA)).await;
    assert_eq!((nodata.metadata.response_code, nodata.answers.len()), (ResponseCode::NoError, 0));
}

#[tokio::test]
async fn what_does_not_fit_is_left_to_tcp() {
    let world = start(Vec::new()).await;
    let mut asked = question("big.n.svc.cluster.local.", RecordType::A);
    let plain = udp_bytes(world.server, &asked.to_vec().unwrap()).await;
    assert!(plain.len() <= 512, "{}", plain.len());
    let message = Message::from_vec(&plain).unwrap();
    assert!(message.metadata.truncation && !message.answers.is_empty());
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    asked.set_edns(edns);
    let larger = udp_bytes(world.server, &asked.to_vec().unwrap()).await;
    assert!((1000..=1232).contains(&larger.len()), "{}", larger.len());
    let message = Message::from_vec(&larger).unwrap();
    assert!(message.metadata.truncation && message.edns.is_some());
    let whole = &tcp(&world, &[asked]).await[0];
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (300, false));
}

#[tokio::test]
async fn a_change_shows_in_the_next_answer() {
    let world = start(Vec::new()).await;
    let asked = question("web-9.web.n.svc.cluster.local.", RecordType::A);
    assert_eq!(udp(&world, &asked).await.metadata.response_code, ResponseCode::ServFail, "not complete yet");
    world.zone.set_complete();
    assert_eq!(udp(&world, &asked).await.metadata.response_code, ResponseCode::NXDomain);
    world.zone.change(|zone| zone.set_slice(&slice("web", 10)));
    assert_eq!(addresses(&udp(&world, &asked).await), ["10.42.0.10"]);
}

#[tokio::test]
async fn packets_that_are_no_questions_do_no_harm() {
    let world = start(Vec::new()).await;
    let code = async |packet: Vec<u8>| {
        Message::from_vec(&udp_bytes(world.server, &packet).await).unwrap().metadata.response_code
    };
    let good = question("web.n.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    let mut cut = good.clone();
    cut.truncate(20);
    assert_eq!(code(cut).await, ResponseCode::FormErr);
    let mut update = good.clone();
    update[2] = 5 << 3;
    assert_eq!(code(update).await, ResponseCode::NotImp);
    let mut chaos = good.clone();
    let end = chaos.len();
    chaos[end - 1] = 3;
    assert_eq!(code(chaos).await, ResponseCode::Refused);
    let mut two = question("web.n.svc.cluster.local.", RecordType::A);
    two.add_query(Query::query(Name::from_ascii("a.").unwrap(), RecordType::A));
    assert_eq!(code(two.to_vec().unwrap()).await, ResponseCode::FormErr);
    // Answers, noise and nothing at all get no answer; the next question does.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut answer = good.clone();
    answer[2] |= 0x80;
    for packet in [&answer[..], b"", b"x", &[0xff; 600]] {
        socket.send_to(packet, world.server).await.unwrap();
    }
    socket.send_to(&good, world.server).await.unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).await.unwrap();
    assert_eq!(Message::from_vec(&buffer[..length]).unwrap().answers.len(), 3);
}

/// A server that answers everything with 192.0.2.9.
async fn other_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let request = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
            let name = request.queries[0].name().clone();
            answer.add_query(request.queries[0].clone());
            let data = RData::A("192.0.2.9".parse().unwrap());
            answer.add_answer(hickory_proto::rr::Record::from_rdata(name, 60, data));
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn other_names_are_forwarded_and_aliases_followed() {
    let dead = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = start(vec![dead, other_server().await]).await;
    assert_eq!(addresses(&udp(&world, &question("example.org.", RecordType::A)).await), ["192.0.2.9"]);
    let alias = udp(&world, &question("out.n.svc.cluster.local.", RecordType::A)).await;
    let shown: Vec<String> = alias.answers.iter().map(|r| format!("{} {}", r.name, r.data)).collect();
    assert_eq!(shown, ["out.n.svc.cluster.local. db.example.org.", "db.example.org. 192.0.2.9"]);
}

#[tokio::test]
async fn without_another_server_the_client_is_told_at_once() {
    let world = start(Vec::new()).await;
    let mut asked = question("example.org.", RecordType::A);
    asked.set_edns(Edns::new());
    let answer = udp(&world, &asked).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let text = format!("{:?}", answer.edns);
    assert!(text.contains("Unknown(15"), "{text}");
    let alias = udp(&world, &question("out.n.svc.cluster.local.", RecordType::A)).await;
    assert_eq!((alias.metadata.response_code, alias.answers.len()), (ResponseCode::ServFail, 1));
}
