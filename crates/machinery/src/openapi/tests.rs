//! The documents are read back as clients read them.

use std::collections::BTreeSet;

use super::*;

fn references(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                out.insert(name.rsplit('/').next().unwrap_or(name).to_owned());
            }
            map.values().for_each(|value| references(value, out));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, out)),
        _ => {}
    }
}

#[test]
fn each_group_version_has_a_document_that_is_complete_in_itself() {
    let index = index("v1.37.0");
    let paths = index["paths"].as_object().expect("an object");
    assert!(paths.contains_key("api/v1") && paths.contains_key("apis/apps/v1"));
    for path in paths.keys() {
        let mut parts = path.split('/').skip(1);
        let (group, version) = match (parts.next(), parts.next()) {
            (Some(version), None) => ("", version),
            (Some(group), Some(version)) => (group, version),
            _ => panic!("{path}"),
        };
        let text = v3(group, version, "v1.37.0").expect("a document");
        let document: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut used = BTreeSet::new();
        references(&document, &mut used);
        for name in used {
            assert!(document["components"]["schemas"].get(&name).is_some(), "{path} lacks {name}");
        }
    }
    assert_eq!(v3("apps", "v9", "v1.37.0"), None);
    assert_ne!(hash("v1.37.0", "api/v1"), hash("v1.37.0", "apis/apps/v1"));
}

#[test]
fn a_document_says_what_kubectl_looks_for() {
    let document: Value = serde_json::from_str(&v3("apps", "v1", "v1.37.0").expect("a document")).expect("JSON");
    let schemas = &document["components"]["schemas"];
    let sts = &schemas["io.k8s.api.apps.v1.StatefulSet"];
    let kind = json!([{"group": "apps", "version": "v1", "kind": "StatefulSet"}]);
    assert_eq!(sts["x-kubernetes-group-version-kind"], kind);
    let reference = json!([{"$ref": "#/components/schemas/io.k8s.api.apps.v1.StatefulSetSpec"}]);
    assert_eq!(sts["properties"]["spec"]["allOf"], reference);
    let ports = &schemas["io.k8s.api.core.v1.Container"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
    assert_eq!(ports["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
    let path = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}"];
    assert_eq!(path["patch"]["x-kubernetes-group-version-kind"]["kind"], "StatefulSet");
    assert_eq!(path["get"]["operationId"], "readAppsV1NamespacedStatefulSet");
    let names: Vec<&str> =
        path["patch"]["parameters"].as_array().expect("a list").iter().filter_map(|p| p["name"].as_str()).collect();
    assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun"));
    let list = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/statefulsets"];
    assert_eq!(list["delete"]["operationId"], "deleteAppsV1CollectionNamespacedStatefulSet");
    assert_eq!(list["get"]["x-kubernetes-action"], "list");
}

#[test]
fn version_two_is_complete_in_itself() {
    let document: Value = serde_json::from_str(&v2("v1.37.0")).expect("JSON");
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    for name in used {
        assert!(document["definitions"].get(&name).is_some(), "lacks {name}");
    }
    let either = &document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!((&either["type"], &either["format"]), (&json!("string"), &json!("int-or-string")));
}

/// The fields of a protobuf message: number and content.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let length = varint(&mut bytes);
        let length = if tag & 7 == 2 { usize::try_from(length).expect("short") } else { 0 };
        out.push((tag >> 3, bytes[..length].to_vec()));
        bytes = &bytes[length..];
    }
    out
}

fn only(message: &[u8], number: u64) -> Vec<Vec<u8>> {
    fields(message).into_iter().filter(|(n, _)| *n == number).map(|(_, content)| content).collect()
}

#[test]
fn the_protobuf_form_says_the_same_as_the_json_form() {
    let json: Value = serde_json::from_str(&v2("v1.37.0")).expect("JSON");
    let document = v2_protobuf("v1.37.0");
    assert_eq!(only(&document, 1), [b"2.0"]);
    let definitions = only(&only(&document, 9)[0], 1);
    assert_eq!(Some(definitions.len()), json["definitions"].as_object().map(serde_json::Map::len));
    let of = |name: &str| {
        let found = definitions.iter().find(|d| only(d, 1)[0] == name.as_bytes()).expect("a definition");
        only(found, 2)[0].clone()
    };
    let container = of("io.k8s.api.core.v1.Container");
    assert_eq!(only(&only(&container, 22)[0], 1), [b"object"]);
    assert_eq!(only(&container, 19), [b"name"]);
    let properties = only(&only(&container, 25)[0], 1);
    let ports = properties.iter().find(|p| only(p, 1)[0] == b"ports").expect("a property");
    let ports = &only(ports, 2)[0];
    let extensions: Vec<(Vec<u8>, Vec<u8>)> =
        only(ports, 31).iter().map(|e| (only(e, 1)[0].clone(), only(&only(e, 2)[0], 2)[0].clone())).collect();
    assert!(extensions.contains(&(b"x-kubernetes-patch-merge-key".to_vec(), b"\"containerPort\"".to_vec())));
    let item = only(&only(&only(ports, 23)[0], 1)[0], 1);
    assert_eq!(item, [b"#/definitions/io.k8s.api.core.v1.ContainerPort"]);
    let paths = only(&only(&document, 8)[0], 2);
    assert_eq!(Some(paths.len()), json["paths"].as_object().map(serde_json::Map::len));
}
