//! What a real server says that it serves, compared with what ours says: everything that both serve is described alike.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::form::{Step, steps};
use super::read;
use crate::support::cluster;

/// What the recorded server served and ours does not, with the reason.
const NOT_SERVED: &[(&str, &str)] = &[
    ("/api/v1 componentstatuses", "deprecated since 1.19"),
    ("/apis/autoscaling {\"groupVersion\":\"autoscaling/v2beta1\",\"version\":\"v2beta1\"}", "gone since 1.25"),
    ("/apis/autoscaling {\"groupVersion\":\"autoscaling/v2beta2\",\"version\":\"v2beta2\"}", "gone since 1.26"),
];

/// The fields of a resource that have to be equal. Newer servers name each of a kind (`singularName`), older ones did not.
const FIELDS: &[&str] = &["namespaced", "kind", "group", "version", "verbs", "shortNames", "categories"];

/// The resources, groups or versions of an answer, by name.
fn members(answer: &Value) -> BTreeMap<String, Value> {
    let lists = ["resources", "groups"].into_iter().filter_map(|list| answer[list].as_array()).flatten();
    let named = lists.filter_map(|member| Some((member["name"].as_str()?.to_owned(), member.clone())));
    let versions = answer["versions"].as_array().into_iter().flatten().map(|version| (version.to_string(), json!({})));
    named.chain(versions).collect()
}

/// Whatever of two members has to be equal and is not.
fn differences(theirs: &Value, ours: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for field in FIELDS {
        if theirs[*field] != ours[*field] {
            found.push(format!("{field}: {} there, {} here", theirs[*field], ours[*field]));
        }
    }
    // That version was a trial then.
    let newer = ours["preferredVersion"]["groupVersion"] == "flowcontrol.apiserver.k8s.io/v1";
    if theirs["preferredVersion"] != ours["preferredVersion"] && !newer {
        found.push(format!("preferred: {} there, {} here", theirs["preferredVersion"], ours["preferredVersion"]));
    }
    if let (Some(kind), Some(name)) = (ours["kind"].as_str(), ours["name"].as_str()) {
        let singular = if name.contains('/') { String::new() } else { kind.to_lowercase() };
        if ours["singularName"] != *singular {
            found.push(format!("singularName: {}", ours["singularName"]));
        }
    }
    found
}

#[test]
fn record_of_discovery() {
    let (_cluster, kubectl) = cluster();
    let (mut found, mut missing, mut compared) = (Vec::new(), Vec::new(), 0);
    for step in steps(&read("discovery.txt")) {
        let Step::Command { line, answer, .. } = step else { continue };
        let theirs: Value = serde_json::from_str(&answer.output).unwrap();
        let ours: Value = serde_json::from_str(&kubectl.ok(line.strip_prefix("kubectl ").unwrap())).unwrap();
        for field in ["kind", "groupVersion"] {
            assert_eq!(theirs[field], ours[field], "{line}");
        }
        let here = members(&ours);
        for (name, theirs) in members(&theirs) {
            let what = format!("{} {name}", line.rsplit(' ').next().unwrap_or_default());
            match here.get(&name) {
                None => missing.push(what),
                Some(ours) => {
                    compared += 1;
                    found.extend(differences(&theirs, ours).into_iter().map(|text| format!("{what}: {text}")));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    let known: Vec<&str> = NOT_SERVED.iter().map(|(what, _)| *what).collect();
    assert_eq!(missing, known, "what only the recorded server serves");
    assert!(compared >= 85, "{compared}");
}
