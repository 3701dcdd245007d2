//! Stories: what happens to pods (left), what is written (middle), what the objects then say (right).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use super::*;

fn service(spec: serde_json::Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "u-web", "labels": {"app": "web"},
                     "creationTimestamp": "2026-11-20T14:54:00Z"},
        "spec": spec,
    }))
    .unwrap()
}

fn headless() -> Service {
    service(json!({"clusterIP": "None", "selector": {"app": "web"}, "ipFamilies": ["IPv4"],
                   "ports": [{"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"}]}))
}

/// A pod from words: `web-0 10.0.0.1 ready late port=8080`.
fn pod(words: &str) -> Pod {
    let mut words = words.split(' ');
    let name = words.next().unwrap();
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "n", "uid": format!("u-{name}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "hostname": name, "subdomain": "web",
                 "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}]},
        "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-20T14:54:01Z"}]},
    });
    for word in words {
        match word {
            "ready" => pod["status"]["conditions"][0]["status"] = json!("True"),
            "late" => pod["status"]["conditions"][0]["lastTransitionTime"] = json!("2026-11-20T15:00:00Z"),
            "leaving" => pod["metadata"]["deletionTimestamp"] = json!("2026-11-20T15:00:00Z"),
            "failed" => pod["status"]["phase"] = json!("Failed"),
            "alien" => pod["metadata"]["labels"] = json!({}),
            "elsewhere" => pod["spec"]["subdomain"] = json!("other"),
            "unported" => pod["spec"]["containers"][0]["ports"] = json!([]),
            _ if word.starts_with("port=") => {
                pod["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(word[5..].parse::<i32>().unwrap());
            }
            address => {
                pod["status"]["podIP"] = json!(address);
                pod["status"]["podIPs"] = json!([{"ip": address}]);
            }
        }
    }
    serde_json::from_value(pod).unwrap()
}

#[derive(Default)]
struct World {
    pods: BTreeMap<String, Pod>,
    slices: BTreeMap<String, EndpointSlice>,
    object: Option<Endpoints>,
}

impl World {
    fn settle(&mut self, service: &Service) -> String {
        let pods: Vec<&Pod> = self.pods.values().collect();
        let zones = BTreeMap::from([("n1".to_owned(), "z1".to_owned())]);
        let existing: Vec<&EndpointSlice> = self.slices.values().collect();
        let plan = plan_slices(SliceInput { service, pods: &pods, zones: &zones, existing: &existing });
        let object = plan_object(service, &pods, self.object.as_ref());
        let mut said = format!("+{} ~{} -{}", plan.create.len(), plan.update.len(), plan.delete.len());
        for slice in plan.create.into_iter().chain(plan.update) {
            self.slices.insert(slice.metadata.name.clone().unwrap(), slice);
        }
        for name in plan.delete {
            self.slices.remove(&name);
        }
        match object {
            ObjectPlan::Keep => said.push_str(" object kept"),
            ObjectPlan::Create(object) | ObjectPlan::Update(object) => self.object = Some(*object),
        }
        // A plan that was carried out leaves nothing to do.
        let existing: Vec<&EndpointSlice> = self.slices.values().collect();
        let again = plan_slices(SliceInput { service, pods: &pods, zones: &zones, existing: &existing });
        assert!(again.is_empty(), "{again:#?}");
        assert_eq!(plan_object(service, &pods, self.object.as_ref()), ObjectPlan::Keep);
        said
    }

    fn show(&self) -> String {
        let mut text = String::new();
        for slice in self.slices.values() {
            let ports: Vec<String> = slice
                .ports
                .iter()
                .flatten()
                .map(|p| format!("{}:{}", p.name.as_deref().unwrap(), p.port.unwrap()))
                .collect();
            write!(text, " [{}|", ports.join(",")).unwrap();
            for e in slice.endpoints.iter().flatten() {
                let c = e.conditions.as_ref().unwrap();
                let flag = |value: Option<bool>, letter| if value == Some(true) { letter } else { '-' };
                let flags = [flag(c.ready, 'r'), flag(c.serving, 's'), flag(c.terminating, 't')];
                let name = e.hostname.as_deref().unwrap_or("*");
                write!(text, " {name}={} {}", e.addresses[0], flags.iter().collect::<String>()).unwrap();
            }
            text.push(']');
            text.push_str(&trigger(slice.metadata.annotations.as_ref()));
        }
        let object = self.object.as_ref().unwrap();
        text.push_str(" object");
        for subset in object.subsets.iter().flatten() {
            let list = |part: &Option<Vec<_>>| {
                let ips: Vec<String> =
                    part.iter().flatten().map(|a: &k8s_openapi::api::core::v1::EndpointAddress| a.ip.clone()).collect();
                ips.join(",")
            };
            let ports: Vec<String> = subset.ports.iter().flatten().map(|p| p.port.to_string()).collect();
            write!(text, " ({}/{}:{})", list(&subset.addresses), list(&subset.not_ready_addresses), ports.join(","))
                .unwrap();
        }
        text.push_str(&trigger(object.metadata.annotations.as_ref()));
        text
    }
}

fn trigger(annotations: Option<&BTreeMap<String, String>>) -> String {
    annotations.and_then(|a| a.get(TRIGGER_TIME)).map(|t| format!("@{}", &t[11..19])).unwrap_or_default()
}

fn check(service: &Service, story: &[&str], expected: Expect) {
    let mut world = World::default();
    let mut lines = String::new();
    for step in story {
        match step.strip_prefix("gone ") {
            Some(name) => {
                world.pods.remove(name);
            }
            None if step.is_empty() => {}
            None => {
                let pod = pod(step);
                world.pods.insert(pod.metadata.name.clone().unwrap(), pod);
            }
        }
        let said = world.settle(service);
        writeln!(lines, "{step} | {said} |{}", world.show()).unwrap();
    }
    expected.assert_eq(&lines);
}

#[test]
fn pods_of_a_headless_service_come_and_go() {
    check(
        &headless(),
        &[
            "",
            "web-0",
            "web-0 10.0.0.1",
            "web-0 10.0.0.1 ready late",
            "web-1 10.0.0.2 ready",
            "web-1 10.0.0.2 ready leaving",
            "gone web-1",
            "web-1 10.0.0.3 ready elsewhere",
            "web-0 10.0.0.1 failed",
            "alien 10.0.0.9 ready alien",
            "gone web-1",
        ],
        expect![[r#"
             | +1 ~0 -0 | [|]@14:54:00 object@14:54:00
            web-0 | +0 ~0 -0 object kept | [|]@14:54:00 object@14:54:00
            web-0 10.0.0.1 | +0 ~1 -0 | [web:80| web-0=10.0.0.1 ---]@14:54:01 object (/10.0.0.1:80)
            web-0 10.0.0.1 ready late | +0 ~1 -0 | [web:80| web-0=10.0.0.1 rs-]@15:00:00 object (10.0.0.1/:80)@15:00:00
            web-1 10.0.0.2 ready | +0 ~1 -0 | [web:80| web-0=10.0.0.1 rs- web-1=10.0.0.2 rs-]@14:54:01 object (10.0.0.1,10.0.0.2/:80)@14:54:01
            web-1 10.0.0.2 ready leaving | +0 ~1 -0 | [web:80| web-0=10.0.0.1 rs- web-1=10.0.0.2 -st]@14:54:01 object (10.0.0.1/:80)@14:54:01
            gone web-1 | +0 ~1 -0 object kept | [web:80| web-0=10.0.0.1 rs-] object (10.0.0.1/:80)@14:54:01
            web-1 10.0.0.3 ready elsewhere | +0 ~1 -0 | [web:80| web-0=10.0.0.1 rs- *=10.0.0.3 rs-]@14:54:01 object (10.0.0.1,10.0.0.3/:80)@14:54:01
            web-0 10.0.0.1 failed | +0 ~1 -0 | [web:80| *=10.0.0.3 rs-] object (10.0.0.3/:80)@14:54:01
            alien 10.0.0.9 ready alien | +0 ~0 -0 object kept | [web:80| *=10.0.0.3 rs-] object (10.0.0.3/:80)@14:54:01
            gone web-1 | +0 ~1 -0 | [|] object
        "#]],
    );
}

#[test]
fn a_service_may_publish_pods_that_are_not_ready() {
    let mut service = headless();
    service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
    check(
        &service,
        &["web-0 10.0.0.1", "web-0 10.0.0.1 ready", "web-0 10.0.0.1 leaving", "gone web-0"],
        expect![[r#"
        web-0 10.0.0.1 | +1 ~0 -0 | [web:80| web-0=10.0.0.1 r--]@14:54:00 object (10.0.0.1/:80)@14:54:00
        web-0 10.0.0.1 ready | +0 ~1 -0 object kept | [web:80| web-0=10.0.0.1 rs-]@14:54:01 object (10.0.0.1/:80)@14:54:00
        web-0 10.0.0.1 leaving | +0 ~1 -0 object kept | [web:80| web-0=10.0.0.1 r-t]@14:54:01 object (10.0.0.1/:80)@14:54:00
        gone web-0 | +0 ~1 -0 | [|] object
    "#]],
    );
}

#[test]
fn pods_with_other_ports_get_slices_of_their_own() {
    check(
        &headless(),
        &[
            "web-0 10.0.0.1 ready",
            "web-1 10.0.0.2 ready port=8080",
            "web-2 10.0.0.3 ready unported",
            "gone web-1",
            "gone web-0",
            "gone web-2",
        ],
        expect![[r#"
            web-0 10.0.0.1 ready | +1 ~0 -0 | [web:80| web-0=10.0.0.1 rs-]@14:54:00 object (10.0.0.1/:80)@14:54:00
            web-1 10.0.0.2 ready port=8080 | +1 ~0 -0 | [web:8080| web-1=10.0.0.2 rs-]@14:54:01 [web:80| web-0=10.0.0.1 rs-]@14:54:00 object (10.0.0.1/:80) (10.0.0.2/:8080)@14:54:01
            web-2 10.0.0.3 ready unported | +1 ~0 -0 object kept | [web:8080| web-1=10.0.0.2 rs-]@14:54:01 [| web-2=10.0.0.3 rs-]@14:54:01 [web:80| web-0=10.0.0.1 rs-]@14:54:00 object (10.0.0.1/:80) (10.0.0.2/:8080)@14:54:01
            gone web-1 | +0 ~0 -1 | [| web-2=10.0.0.3 rs-]@14:54:01 [web:80| web-0=10.0.0.1 rs-]@14:54:00 object (10.0.0.1/:80)
            gone web-0 | +0 ~0 -1 | [| web-2=10.0.0.3 rs-]@14:54:01 object
            gone web-2 | +0 ~1 -0 object kept | [|] object
        "#]],
    );
}

#[test]
fn a_headless_service_needs_no_ports() {
    let service = service(json!({"clusterIP": "None", "selector": {"app": "web"}}));
    check(
        &service,
        &["web-0 10.0.0.1 ready"],
        expect![[r#"
        web-0 10.0.0.1 ready | +1 ~0 -0 | [| web-0=10.0.0.1 rs-]@14:54:00 object (10.0.0.1/:)@14:54:00
    "#]],
    );
}

#[test]
fn slices_hold_a_hundred_and_stay_as_they_are() {
    let service = headless();
    let mut world = World::default();
    for i in 0..250 {
        let pod = pod(&format!("web-{i} 10.0.{}.{} ready", i / 200, i % 200 + 1));
        world.pods.insert(format!("web-{i}"), pod);
    }
    assert_eq!(world.settle(&service), "+3 ~0 -0");
    let sizes = |world: &World| {
        let mut sizes: Vec<usize> = world.slices.values().map(|s| s.endpoints.as_ref().unwrap().len()).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&world), [50, 100, 100]);
    world.pods.insert("x".into(), pod("x 10.0.9.9 ready"));
    assert_eq!(world.settle(&service), "+0 ~1 -0", "one more endpoint touches one slice");
    world.pods.remove("web-17");
    world.pods.remove("web-18");
    assert_eq!(sizes(&world), [51, 100, 100]);
    world.settle(&service);
    world.pods.insert("y".into(), pod("y 10.0.9.8"));
    assert_eq!(world.settle(&service), "+0 ~1 -0");
    for i in 0..1100 {
        world.pods.insert(format!("m-{i}"), pod(&format!("m-{i} 10.1.{}.{} ready", i / 200, i % 200 + 1)));
    }
    world.settle(&service);
    let object = world.object.unwrap();
    assert_eq!(object.metadata.annotations.unwrap()[OVER_CAPACITY], "truncated");
    let subset = &object.subsets.unwrap()[0];
    assert_eq!(
        (subset.addresses.as_ref().unwrap().len(), subset.not_ready_addresses.as_ref().unwrap().len()),
        (1000, 0)
    );
}

#[test]
#[allow(clippy::too_many_lines)] // an expected document
fn the_form_is_upstreams() {
    let mut world = World::default();
    world.pods.insert("web-0".into(), pod("web-0 10.0.0.1 ready"));
    world.settle(&headless());
    let shown = json!([world.slices.values().next(), world.object]);
    expect![[r#"
        [
          {
            "addressType": "IPv4",
            "apiVersion": "discovery.k8s.io/v1",
            "endpoints": [
              {
                "addresses": [
                  "10.0.0.1"
                ],
                "conditions": {
                  "ready": true,
                  "serving": true,
                  "terminating": false
                },
                "hostname": "web-0",
                "nodeName": "n1",
                "targetRef": {
                  "kind": "Pod",
                  "name": "web-0",
                  "namespace": "n",
                  "uid": "u-web-0"
                },
                "zone": "z1"
              }
            ],
            "kind": "EndpointSlice",
            "metadata": {
              "annotations": {
                "endpoints.kubernetes.io/last-change-trigger-time": "2026-11-20T14:54:00Z"
              },
              "generateName": "web-",
              "labels": {
                "app": "web",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": "web",
                "service.kubernetes.io/headless": ""
              },
              "name": "web-vggk8",
              "namespace": "n",
              "ownerReferences": [
                {
                  "apiVersion": "v1",
                  "blockOwnerDeletion": true,
                  "controller": true,
                  "kind": "Service",
                  "name": "web",
                  "uid": "u-web"
                }
              ]
            },
            "ports": [
              {
                "name": "web",
                "port": 80,
                "protocol": "TCP"
              }
            ]
          },
          {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
              "annotations": {
                "endpoints.kubernetes.io/last-change-trigger-time": "2026-11-20T14:54:00Z"
              },
              "labels": {
                "app": "web",
                "endpoints.kubernetes.io/managed-by": "endpoint-controller",
                "service.kubernetes.io/headless": ""
              },
              "name": "web",
              "namespace": "n"
            },
            "subsets": [
              {
                "addresses": [
                  {
                    "hostname": "web-0",
                    "ip": "10.0.0.1",
                    "nodeName": "n1",
                    "targetRef": {
                      "kind": "Pod",
                      "name": "web-0",
                      "namespace": "n",
                      "uid": "u-web-0"
                    }
                  }
                ],
                "ports": [
                  {
                    "name": "web",
                    "port": 80,
                    "protocol": "TCP"
                  }
                ]
              }
            ]
          }
        ]"#]]
    .assert_eq(&serde_json::to_string_pretty(&shown).unwrap());
}

#[test]
fn endpoints_made_by_hand_are_mirrored() {
    let service = service(json!({"clusterIP": "10.43.0.9", "ports": [{"port": 80}]}));
    let mut endpoints: Endpoints = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "u-e", "labels": {"a": "b"}},
        "subsets": [{"addresses": [{"ip": "10.1.1.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "10.1.1.2"}],
                     "ports": [{"port": 80}]}],
    }))
    .unwrap();
    let plan = mirror(MirrorInput { endpoints: Some(&endpoints), service: Some(&service), existing: &[] });
    let shown: Vec<String> = plan
        .create
        .iter()
        .map(|s| {
            let list: Vec<String> = s
                .endpoints
                .iter()
                .flatten()
                .map(|e| format!("{} {:?}", e.addresses[0], e.conditions.as_ref().unwrap().ready.unwrap()))
                .collect();
            format!("{} {}", s.address_type, list.join(", "))
        })
        .collect();
    assert_eq!(shown, ["IPv4 10.1.1.1 true, 10.1.1.2 false", "IPv6 fd00::1 true"]);
    let made: Vec<&EndpointSlice> = plan.create.iter().collect();
    let again =
        |endpoints: Option<&Endpoints>| mirror(MirrorInput { endpoints, service: Some(&service), existing: &made });
    assert!(again(Some(&endpoints)).is_empty());
    assert_eq!(again(None).delete.len(), 2);
    endpoints.subsets.as_mut().unwrap()[0].not_ready_addresses = None;
    assert_eq!(again(Some(&endpoints)).update.len(), 1);
    endpoints.metadata.labels.as_mut().unwrap().insert(SKIP_MIRROR.into(), "true".into());
    assert_eq!(again(Some(&endpoints)).delete.len(), 2);
}

/// What a pod of the walk can be, and how its endpoint then shows: `rst`, or nothing.
const STATES: [(&str, Option<&str>); 9] = [
    ("", None),
    ("waiting", None),
    ("IP", Some("---")),
    ("IP ready", Some("rs-")),
    ("IP ready port=81", Some("rs-")),
    ("IP ready leaving", Some("-st")),
    ("IP leaving", Some("--t")),
    ("IP failed", None),
    ("IP ready alien", None),
];

/// Two pods go from any state to any other: the plan settles after one turn (`World::settle` asserts it), each pod that has an
/// address and is not over shows once, as what it is, and nothing else shows.
#[test]
fn every_pair_of_pods_goes_from_every_state_to_every_other() {
    let service = headless();
    let states = || STATES.iter().flat_map(|one| STATES.iter().map(move |two| [one, two]));
    for before in states() {
        for after in states() {
            let mut world = World::default();
            for pods in [before, after] {
                world.pods.clear();
                for (number, (words, _)) in pods.iter().enumerate().filter(|(_, (words, _))| !words.is_empty()) {
                    let words = words.replace("waiting", "").replace("IP", &format!("10.0.0.{number}"));
                    let name = format!("web-{number}");
                    world.pods.insert(name.clone(), pod(format!("{name} {words}").trim_end()));
                }
                world.settle(&service);
            }
            let shown = world.show();
            for (number, (words, flags)) in after.iter().enumerate() {
                let own = format!("web-{number}=10.0.0.{number} ");
                let expected = flags.map(|flags| format!("{own}{flags}"));
                assert_eq!(shown.matches(&own).count(), usize::from(flags.is_some()), "{words}: {shown}");
                assert!(expected.is_none_or(|expected| shown.contains(&expected)), "{words}: {shown}");
            }
        }
    }
}
