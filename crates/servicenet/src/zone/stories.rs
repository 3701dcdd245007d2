//! Stories: type and name asked (left), what the zone says (right).

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use super::*;

fn service(name: &str, spec: serde_json::Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec})).unwrap()
}

/// A slice from words: `web-0=10.42.0.5` ready with a host name, `10.42.0.6` without one, `!` in front: not ready.
fn slice(name: &str, service: &str, endpoints: &[&str]) -> EndpointSlice {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|text| {
            let ready = !text.starts_with('!');
            let (host, address) =
                text.trim_start_matches('!').split_once('=').map_or((None, *text), |(h, a)| (Some(h), a));
            json!({"addresses": [address.trim_start_matches('!')], "hostname": host, "conditions": {"ready": ready}})
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "n", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    }))
    .unwrap()
}

fn zone() -> Zone {
    let mut zone = Zone::new(ZoneConfig {
        domain: "cluster.local.".into(),
        server: Some("10.43.0.10".parse().unwrap()),
        ranges: vec![("10.42.0.0".parse().unwrap(), 16), ("10.43.0.0".parse().unwrap(), 16)],
    });
    zone.set_namespace("empty");
    let port = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    zone.set_service(&service("web", json!({"clusterIP": "None", "ports": port})));
    zone.set_slice(&slice("web-a", "web", &["web-0=10.42.0.5", "Web-1=10.42.0.6", "!web-2=10.42.0.7"]));
    zone.set_slice(&slice("web-b", "web", &["10.42.0.8"]));
    zone.set_service(&service("vip", json!({"clusterIP": "10.43.0.20", "ports": port})));
    zone.set_slice(&slice("vip-a", "vip", &["vip-0=10.42.0.9"]));
    zone.set_service(&service("down", json!({"clusterIP": "None", "ports": port})));
    zone.set_slice(&slice("down-a", "down", &["!down-0=10.42.0.11"]));
    zone.set_service(&service("out", json!({"type": "ExternalName", "externalName": "db.example.org"})));
    zone.set_service(&service("in", json!({"type": "ExternalName", "externalName": "Web.n.svc.cluster.local."})));
    zone.set_service(&service("loop", json!({"type": "ExternalName", "externalName": "loop.n.svc.cluster.local"})));
    zone.set_slice(&slice("orphan", "gone", &["x=10.42.0.12"]));
    zone
}

fn kind(text: &str) -> QuestionType {
    match text {
        "A" => QuestionType::A,
        "AAAA" => QuestionType::Aaaa,
        "SRV" => QuestionType::Srv,
        "PTR" => QuestionType::Ptr,
        "TXT" => QuestionType::Txt,
        "SOA" => QuestionType::Soa,
        "NS" => QuestionType::Ns,
        "CNAME" => QuestionType::Cname,
        _ => QuestionType::Other,
    }
}

fn show(record: &Record) -> String {
    let data = match &record.data {
        Data::A(ip) => ip.to_string(),
        Data::Aaaa(ip) => ip.to_string(),
        Data::Srv { priority, weight, port, target } => format!("{priority} {weight} {port} {target}"),
        Data::Ptr(name) | Data::Cname(name) | Data::Ns(name) => name.clone(),
        Data::Txt(text) => format!("\"{text}\""),
        Data::Soa => "SOA".into(),
    };
    record.owner.as_ref().map_or(data.clone(), |owner| format!("{owner}={data}"))
}

fn check(zone: &Zone, questions: &[&str], expected: Expect) {
    let mut lines = String::new();
    for question in questions {
        let (kind_text, name) = question.split_once(' ').unwrap();
        let said = match zone.answer(&name.replace('~', "n.svc.cluster.local"), kind(kind_text)) {
            Outcome::NotOurs => "NOT OURS".to_owned(),
            Outcome::NoSuchName => "NXDOMAIN".to_owned(),
            Outcome::Answer(answer) => {
                let list = |part: &[Record]| part.iter().map(show).collect::<Vec<_>>().join(", ");
                let mut text = format!("NOERROR {}", list(&answer.records));
                if !answer.additional.is_empty() {
                    write!(text, " + {}", list(&answer.additional)).unwrap();
                }
                if let Some(name) = answer.follow {
                    write!(text, " -> {name}").unwrap();
                }
                text
            }
        };
        writeln!(lines, "{question} | {said}").unwrap();
    }
    expected.assert_eq(&lines);
}

#[test]
fn names_of_services_and_pods() {
    check(
        &zone(),
        &[
            "A web.~",
            "AAAA web.~",
            "A web-0.web.~",
            "A web-1.web.~",
            "A web-2.web.~",
            "A 10-42-0-8.web.~",
            "TXT web-0.web.~",
            "A vip.~",
            "A vip-0.vip.~",
            "MX vip.~",
            "A down.~",
            "A down-0.down.~",
            "A none.~",
            "A gone.~",
            "A x.gone.~",
            "A a.b.c.web.~",
            "A web.other.svc.cluster.local",
        ],
        expect![[r#"
            A web.~ | NOERROR 10.42.0.5, 10.42.0.6, 10.42.0.8
            AAAA web.~ | NOERROR 
            A web-0.web.~ | NOERROR 10.42.0.5
            A web-1.web.~ | NOERROR 10.42.0.6
            A web-2.web.~ | NXDOMAIN
            A 10-42-0-8.web.~ | NOERROR 10.42.0.8
            TXT web-0.web.~ | NOERROR 
            A vip.~ | NOERROR 10.43.0.20
            A vip-0.vip.~ | NOERROR 10.42.0.9
            MX vip.~ | NOERROR 
            A down.~ | NXDOMAIN
            A down-0.down.~ | NXDOMAIN
            A none.~ | NXDOMAIN
            A gone.~ | NXDOMAIN
            A x.gone.~ | NXDOMAIN
            A a.b.c.web.~ | NXDOMAIN
            A web.other.svc.cluster.local | NXDOMAIN
        "#]],
    );
}

#[test]
fn service_records() {
    check(
        &zone(),
        &[
            "SRV _http._tcp.web.~",
            "SRV web.~",
            "SRV web-0.web.~",
            "SRV _http._tcp.vip.~",
            "A _http._tcp.vip.~",
            "SRV _http._udp.vip.~",
            "SRV _x._tcp.web.~",
            "SRV _tcp.web.~",
            "SRV http.tcp.web.~",
        ],
        expect![[r#"
            SRV _http._tcp.web.~ | NOERROR 0 33 80 web-0.web.n.svc.cluster.local, 0 33 80 web-1.web.n.svc.cluster.local, 0 33 80 10-42-0-8.web.n.svc.cluster.local + web-0.web.n.svc.cluster.local=10.42.0.5, web-1.web.n.svc.cluster.local=10.42.0.6, 10-42-0-8.web.n.svc.cluster.local=10.42.0.8
            SRV web.~ | NOERROR 0 33 80 web-0.web.n.svc.cluster.local, 0 33 80 web-1.web.n.svc.cluster.local, 0 33 80 10-42-0-8.web.n.svc.cluster.local + web-0.web.n.svc.cluster.local=10.42.0.5, web-1.web.n.svc.cluster.local=10.42.0.6, 10-42-0-8.web.n.svc.cluster.local=10.42.0.8
            SRV web-0.web.~ | NOERROR 0 100 80 web-0.web.n.svc.cluster.local + web-0.web.n.svc.cluster.local=10.42.0.5
            SRV _http._tcp.vip.~ | NOERROR 0 100 80 vip.n.svc.cluster.local + vip.n.svc.cluster.local=10.43.0.20
            A _http._tcp.vip.~ | NOERROR 10.43.0.20
            SRV _http._udp.vip.~ | NXDOMAIN
            SRV _x._tcp.web.~ | NXDOMAIN
            SRV _tcp.web.~ | NOERROR 
            SRV http.tcp.web.~ | NXDOMAIN
        "#]],
    );
}

#[test]
fn names_of_addresses() {
    check(
        &zone(),
        &[
            "PTR 5.0.42.10.in-addr.arpa",
            "PTR 7.0.42.10.in-addr.arpa",
            "PTR 8.0.42.10.in-addr.arpa",
            "PTR 20.0.43.10.in-addr.arpa",
            "A 20.0.43.10.in-addr.arpa",
            "PTR 12.0.42.10.in-addr.arpa",
            "PTR 1.1.1.1.in-addr.arpa",
            "PTR 300.0.42.10.in-addr.arpa",
            "A 10-42-0-99.n.pod.cluster.local",
            "AAAA 10-42-0-99.n.pod.cluster.local",
            "A 10-42-0-99.nope.pod.cluster.local",
            "A word.n.pod.cluster.local",
        ],
        expect![[r#"
            PTR 5.0.42.10.in-addr.arpa | NOERROR web-0.web.n.svc.cluster.local
            PTR 7.0.42.10.in-addr.arpa | NXDOMAIN
            PTR 8.0.42.10.in-addr.arpa | NXDOMAIN
            PTR 20.0.43.10.in-addr.arpa | NOERROR vip.n.svc.cluster.local
            A 20.0.43.10.in-addr.arpa | NOERROR 
            PTR 12.0.42.10.in-addr.arpa | NXDOMAIN
            PTR 1.1.1.1.in-addr.arpa | NOT OURS
            PTR 300.0.42.10.in-addr.arpa | NOT OURS
            A 10-42-0-99.n.pod.cluster.local | NOERROR 10.42.0.99
            AAAA 10-42-0-99.n.pod.cluster.local | NOERROR 
            A 10-42-0-99.nope.pod.cluster.local | NXDOMAIN
            A word.n.pod.cluster.local | NXDOMAIN
        "#]],
    );
}

#[test]
fn aliases() {
    check(
        &zone(),
        &["A out.~", "CNAME out.~", "MX out.~", "A x.out.~", "A in.~", "AAAA in.~", "A loop.~"],
        expect![[r#"
            A out.~ | NOERROR db.example.org -> db.example.org
            CNAME out.~ | NOERROR db.example.org
            MX out.~ | NOERROR db.example.org
            A x.out.~ | NXDOMAIN
            A in.~ | NOERROR web.n.svc.cluster.local, web.n.svc.cluster.local=10.42.0.5, web.n.svc.cluster.local=10.42.0.6, web.n.svc.cluster.local=10.42.0.8
            AAAA in.~ | NOERROR web.n.svc.cluster.local
            A loop.~ | NOERROR loop.n.svc.cluster.local, loop.n.svc.cluster.local=loop.n.svc.cluster.local, loop.n.svc.cluster.local=loop.n.svc.cluster.local, loop.n.svc.cluster.local=loop.n.svc.cluster.local, loop.n.svc.cluster.local=loop.n.svc.cluster.local, loop.n.svc.cluster.local=loop.n.svc.cluster.local, loop.n.svc.cluster.local=loop.n.svc.cluster.local, loop.n.svc.cluster.local=loop.n.svc.cluster.local, loop.n.svc.cluster.local=loop.n.svc.cluster.local
        "#]],
    );
}

#[test]
fn the_zone_itself() {
    check(
        &zone(),
        &[
            "SOA cluster.local",
            "NS cluster.local",
            "A cluster.local",
            "A svc.cluster.local",
            "A empty.svc.cluster.local",
            "A nope.svc.cluster.local",
            "TXT dns-version.cluster.local",
            "A dns-version.cluster.local",
            "A ns.dns.cluster.local",
            "A other.cluster.local",
            "A example.org",
            "A notcluster.local",
            "A org",
        ],
        expect![[r#"
            SOA cluster.local | NOERROR SOA
            NS cluster.local | NOERROR ns.dns.cluster.local + ns.dns.cluster.local=10.43.0.10
            A cluster.local | NOERROR 
            A svc.cluster.local | NOERROR 
            A empty.svc.cluster.local | NOERROR 
            A nope.svc.cluster.local | NXDOMAIN
            TXT dns-version.cluster.local | NOERROR "1.1.0"
            A dns-version.cluster.local | NOERROR 
            A ns.dns.cluster.local | NOERROR 10.43.0.10
            A other.cluster.local | NXDOMAIN
            A example.org | NOT OURS
            A notcluster.local | NOT OURS
            A org | NOT OURS
        "#]],
    );
}

#[test]
fn every_change_shows_at_once() {
    let mut zone = zone();
    zone.set_slice(&slice("web-a", "web", &["!web-0=10.42.0.5", "web-1=10.42.0.66", "web-2=10.42.0.7"]));
    zone.remove_slice("n", "web-b");
    zone.remove_service("n", "vip");
    zone.remove_namespace("empty");
    zone.set_slice(&slice("orphan", "down", &["x=10.42.0.12"]));
    check(
        &zone,
        &[
            "A web.~",
            "A web-0.web.~",
            "PTR 5.0.42.10.in-addr.arpa",
            "PTR 66.0.42.10.in-addr.arpa",
            "A vip.~",
            "PTR 20.0.43.10.in-addr.arpa",
            "A empty.svc.cluster.local",
            "A x.down.~",
        ],
        expect![[r#"
            A web.~ | NOERROR 10.42.0.7, 10.42.0.66
            A web-0.web.~ | NXDOMAIN
            PTR 5.0.42.10.in-addr.arpa | NXDOMAIN
            PTR 66.0.42.10.in-addr.arpa | NOERROR web-1.web.n.svc.cluster.local
            A vip.~ | NXDOMAIN
            PTR 20.0.43.10.in-addr.arpa | NXDOMAIN
            A empty.svc.cluster.local | NXDOMAIN
            A x.down.~ | NOERROR 10.42.0.12
        "#]],
    );
    for name in ["web-a", "vip-a", "down-a", "orphan"] {
        zone.remove_slice("n", name);
    }
    for name in ["web", "down", "out", "in", "loop"] {
        zone.remove_service("n", name);
    }
    check(
        &zone,
        &["A n.svc.cluster.local", "PTR 66.0.42.10.in-addr.arpa"],
        expect![[r#"
        A n.svc.cluster.local | NXDOMAIN
        PTR 66.0.42.10.in-addr.arpa | NXDOMAIN
    "#]],
    );
}
