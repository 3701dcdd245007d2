//! Stories of patches: a live object, a patch, what comes of it; and diffs that lead from one object to another.

use proptest::prelude::*;
use serde_json::json;
use stead_api::kinds;

use super::*;

fn pod() -> (&'static stead_api::schema::Schema, Shape) {
    let schema = schema();
    (schema, Shape::Struct(schema.of(kinds::by_name("pods").expect("a kind"))))
}

fn strategic(live: &Value, patch: &Value) -> Result<Value, StrategicError> {
    let (schema, shape) = pod();
    strategic::apply(schema, shape, live.clone(), patch.clone())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn strategic_patches_merge_by_the_schema_and_obey_directives() {
    let containers = |list: Value| json!({"spec": {"containers": list}});
    for (what, live, patch, want) in [
        (
            "an item is merged by its key, a new one comes first",
            containers(json!([{"name": "a", "image": "1", "tty": true}, {"name": "b"}])),
            containers(json!([{"name": "c"}, {"name": "a", "image": "2", "tty": null}])),
            containers(json!([{"name": "c"}, {"name": "a", "image": "2"}, {"name": "b"}])),
        ),
        (
            "an item is deleted by a directive",
            containers(json!([{"name": "a"}, {"name": "b"}])),
            containers(json!([{"name": "a", "$patch": "delete"}])),
            containers(json!([{"name": "b"}])),
        ),
        (
            "a list is replaced by a directive",
            containers(json!([{"name": "a"}, {"name": "b"}])),
            containers(json!([{"$patch": "replace"}, {"name": "c"}])),
            containers(json!([{"name": "c"}])),
        ),
        (
            "an object is replaced by a directive",
            json!({"spec": {"securityContext": {"runAsUser": 1, "fsGroup": 2}}}),
            json!({"spec": {"securityContext": {"$patch": "replace", "runAsUser": 3}}}),
            json!({"spec": {"securityContext": {"runAsUser": 3}}}),
        ),
        (
            "an object is emptied by a directive",
            json!({"spec": {"securityContext": {"runAsUser": 1}}}),
            json!({"spec": {"securityContext": {"$patch": "delete"}}}),
            json!({"spec": {"securityContext": {}}}),
        ),
        (
            "the order of a list is set",
            containers(json!([{"name": "a"}, {"name": "b"}, {"name": "x"}, {"name": "c"}])),
            json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "n"}, {"name": "a"}],
                "containers": [{"name": "n", "image": "i"}]}}),
            containers(
                json!([{"name": "x"}, {"name": "c"}, {"name": "b"}, {"name": "n", "image": "i"}, {"name": "a"}]),
            ),
        ),
        (
            "an order for a list that nobody has does nothing",
            json!({"spec": {}}),
            json!({"spec": {"$setElementOrder/containers": [{"name": "c"}]}}),
            json!({"spec": {}}),
        ),
        (
            "scalars are added and deleted one by one",
            json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["a", "d"],
                "$setElementOrder/finalizers": ["a", "c", "d"]}}),
            json!({"metadata": {"finalizers": ["a", "c", "d"]}}),
        ),
        (
            "only the retained keys stay",
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["hostPath", "name"], "hostPath": {"path": "/"}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}),
        ),
        (
            "ports merge by their number alone",
            containers(json!([{"name": "a", "ports": [{"containerPort": 80, "name": "x"}, {"containerPort": 81}]}])),
            containers(json!([{"name": "a", "ports": [{"containerPort": 80, "protocol": "UDP"}]}])),
            containers(
                json!([{"name": "a", "ports": [{"containerPort": 80, "name": "x", "protocol": "UDP"}, {"containerPort": 81}]}]),
            ),
        ),
        (
            "a list without a strategy is replaced, null deletes",
            json!({"spec": {"containers": [{"name": "a", "command": ["x"], "args": ["y"]}], "nodeSelector": {"a": "b", "c": "d"}}}),
            json!({"spec": {"containers": [{"name": "a", "command": ["z"], "args": null}], "nodeSelector": {"a": null, "e": "f"}}}),
            json!({"spec": {"containers": [{"name": "a", "command": ["z"]}], "nodeSelector": {"c": "d", "e": "f"}}}),
        ),
        (
            "nulls and directives of a new value are dropped",
            json!({}),
            json!({"spec": {"nodeName": null, "$setElementOrder/containers": [], "containers": [{"name": "a", "tty": null}, {"name": "b", "$patch": "delete"}]}}),
            json!({"spec": {"containers": [{"name": "a"}]}}),
        ),
    ] {
        assert_eq!(strategic(&live, &patch), Ok(want), "{what}");
    }
}

#[test]
fn a_strategic_patch_that_is_not_well_formed_is_refused_in_upstreams_words() {
    let live = json!({"spec": {"containers": [{"name": "c"}], "volumes": [{"name": "v"}]}});
    for (patch, want) in [
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            json!({"spec": {"containers": [{"$patch": "frob", "name": "c"}]}}),
            "unknown patch type: frob in map: map[$patch:frob name:c]",
        ),
        (json!({"spec": {"$patch": "frob"}}), "unknown patch type: frob in map: map[$patch:frob]"),
        (
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]}}),
            "invalid patch format of retainKeys",
        ),
        (json!({"spec": {"containers": [["x"]]}}), "lists of lists are not supported"),
        (
            json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}),
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
        ),
    ] {
        assert_eq!(strategic(&live, &patch).map_err(|e| e.to_string()), Err(want.to_owned()), "{patch}");
    }
}

#[test]
fn merge_patches_are_those_of_the_rfc() {
    for (live, patch, want) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ] {
        let mut target = live;
        merge::apply(&mut target, patch);
        assert_eq!(target, want);
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_request_to_patch_answers_as_upstream() {
    use FieldValidation::{Ignore, Strict, Warn};
    let kind = kinds::by_name("sts").expect("a kind");
    let live =
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": {"replicas": 1}});
    let run = |patch_type, patch: &str, validation| {
        apply(kind, patch_type, &live, patch.as_bytes(), validation)
            .map(|(object, warnings)| (object["spec"].clone(), warnings))
            .map_err(|e| (e.reason.code(), e.message))
    };
    let hidden = "the server rejected our request due to an error in our request";
    for (patch_type, patch, validation, want) in [
        (PatchType::Json, r#"[{"op":"test","path":"/spec/replicas","value":7}]"#, Warn, (422, hidden)),
        (PatchType::Json, r#"[{"op":"remove","path":"/spec/nothere"}]"#, Warn, (422, hidden)),
        (PatchType::Json, r#"[{"op":"frob"}]"#, Warn, (422, hidden)),
        (
            PatchType::Json,
            r#"{"a":1}"#,
            Ignore,
            (400, "json: cannot unmarshal object into Go value of type jsonpatch.Patch"),
        ),
        (
            PatchType::Json,
            r#"{"a":1}"#,
            Warn,
            (400, "error decoding patch: json: cannot unmarshal object into Go value of type []interface {}"),
        ),
        (PatchType::Merge, r#"{"spec":"#, Ignore, (400, "Invalid JSON Patch")),
        (PatchType::Merge, r#"{"spec":"#, Warn, (400, "error decoding patch: unexpected end of JSON input")),
        (PatchType::Strategic, r#"{"spec":"#, Ignore, (400, "unexpected end of JSON input")),
        (
            PatchType::Strategic,
            "[]",
            Ignore,
            (400, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ),
        (
            PatchType::Strategic,
            r#"{"spec":{"replicas":"x"}}"#,
            Warn,
            (422, r#" "" is invalid: patch: Invalid value: "map[spec:map[replicas:x]]": unrecognized type: int32"#),
        ),
        (
            PatchType::Strategic,
            r#"{"spec":{"nothere":1}}"#,
            Strict,
            (
                422,
                r#" "" is invalid: patch: Invalid value: "map[spec:map[nothere:1]]": strict decoding error: unknown field "spec.nothere""#,
            ),
        ),
    ] {
        assert_eq!(run(patch_type, patch, validation), Err((want.0, want.1.to_owned())), "{patch}");
    }
    let error = run(PatchType::Merge, r#"{"kind":"Pod"}"#, Warn).expect_err("another kind");
    assert!(
        error.1.ends_with(
            r#"no kind "Pod" is registered for version "apps/v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#
        ),
        "{error:?}"
    );
    let error = run(PatchType::Merge, r#"{"spec":{"replicas":"x"}}"#, Warn).expect_err("a wrong type");
    assert!(
        error.1.ends_with(
            "json: cannot unmarshal string into Go struct field StatefulSetSpec.spec.replicas of type int32"
        )
    );
    // with what Go writes of every such object
    let spec = |mut spec: Value| {
        merge::apply(
            &mut spec,
            json!({"serviceName": "", "template": {"metadata": {}, "spec": {}}, "updateStrategy": {}}),
        );
        spec
    };
    let told = |fields: &[&str]| fields.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        run(PatchType::Strategic, r#"{"spec":{"nothere":1,"replicas":2,"replicas":3}}"#, Warn),
        Ok((
            spec(json!({"replicas": 3})),
            told(&[r#"duplicate field "spec.replicas""#, r#"unknown field "spec.nothere""#])
        ))
    );
    assert_eq!(run(PatchType::Merge, r#"{"spec":{"replicas":null}}"#, Warn), Ok((spec(json!({})), vec![])));
    assert_eq!(
        run(
            PatchType::Json,
            r#"[{"op":"add","path":"/spec/paused","value":1},{"op":"replace","path":"/spec/replicas","value":4}]"#,
            Ignore
        ),
        Ok((spec(json!({"replicas": 4})), vec![]))
    );
}

#[test]
fn a_three_way_patch_keeps_what_others_set() {
    let (schema, shape) = pod();
    let original = json!({"metadata": {"labels": {"a": "1", "gone": "x"}},
        "spec": {"containers": [{"name": "a", "image": "1", "tty": true}, {"name": "old"}], "volumes": [{"name": "v", "emptyDir": {}}]}});
    let modified = json!({"metadata": {"labels": {"a": "2"}},
        "spec": {"containers": [{"name": "a", "image": "2"}, {"name": "new"}], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}});
    let current = json!({"metadata": {"labels": {"a": "1", "gone": "x", "theirs": "y"}},
        "spec": {"nodeName": "n", "containers": [{"name": "injected"}, {"name": "a", "image": "1", "tty": true, "stdin": true}, {"name": "old"}],
            "volumes": [{"name": "v", "emptyDir": {}}]}});
    let patch = diff::three_way(schema, shape, &original, &modified, &current).expect("a patch");
    assert_eq!(
        patch,
        json!({"metadata": {"labels": {"a": "2", "gone": null}}, "spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "new"}],
            "containers": [{"name": "a", "image": "2", "tty": null}, {"name": "new"}, {"$patch": "delete", "name": "old"}],
            "$setElementOrder/volumes": [{"name": "v"}],
            "volumes": [{"name": "v", "$retainKeys": ["hostPath", "name"], "hostPath": {"path": "/"}, "emptyDir": null}]}})
    );
    assert_eq!(
        strategic(&current, &patch),
        Ok(json!({"metadata": {"labels": {"a": "2", "theirs": "y"}}, "spec": {"nodeName": "n",
            "containers": [{"name": "injected"}, {"name": "a", "image": "2", "stdin": true}, {"name": "new"}],
            "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}))
    );
    assert_eq!(
        merge::three_way(
            &json!({"a": 1, "b": {"x": 1}}),
            &json!({"b": {"y": 2}}),
            &json!({"a": 1, "b": {"x": 1}, "c": 3})
        ),
        json!({"a": null, "b": {"x": null, "y": 2}})
    );
}

/// Some pod, with the lists whose merging differs.
fn any_pod() -> impl Strategy<Value = Value> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d"]);
    let labels = || prop::collection::btree_map(name(), name(), 0..3);
    let ports = prop::collection::btree_map(80..84_i32, name(), 0..3)
        .prop_map(|ports| ports.into_iter().map(|(p, n)| json!({"containerPort": p, "name": n})).collect::<Vec<_>>());
    let container = (prop::option::of(name()), prop::collection::vec(name(), 0..3), ports.prop_shuffle());
    let containers = prop::collection::btree_map(name(), container, 1..4)
        .prop_map(|map| map.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(|list| {
            let item = |(name, (image, args, ports)): (_, (Option<&str>, Vec<&str>, Vec<Value>))| {
                let mut item = json!({"name": name, "args": args, "ports": ports});
                if let Some(image) = image {
                    item["image"] = image.into();
                }
                item
            };
            list.into_iter().map(item).collect::<Vec<_>>()
        });
    let volume = prop::sample::select(vec!["emptyDir", "hostPath", "secret"]);
    let volumes = prop::collection::btree_map(name(), volume, 0..3)
        .prop_map(|map| map.into_iter().map(|(n, source)| json!({"name": n, source: {}})).collect::<Vec<_>>())
        .prop_shuffle();
    let finalizers = prop::collection::btree_set(name(), 0..4).prop_map(|set| set.into_iter().collect::<Vec<_>>());
    (labels(), finalizers.prop_shuffle(), containers, volumes).prop_map(|(labels, finalizers, containers, volumes)| {
        json!({"metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"containers": containers, "volumes": volumes}})
    })
}

proptest! {
    #[test]
    fn a_diff_applied_gives_the_other_object(from in any_pod(), to in any_pod()) {
        let (schema, shape) = pod();
        let patch = diff::two_way(schema, shape, &from, &to).expect("a patch");
        prop_assert_eq!(strategic(&from, &patch), Ok(to.clone()), "patch {}", patch);
        prop_assert_eq!(patch == json!({}), from == to);
        let mut merged = from.clone();
        merge::apply(&mut merged, merge::diff(&from, &to));
        prop_assert_eq!(merged, to);
    }

    #[test]
    fn a_three_way_patch_of_an_untouched_object_gives_the_wanted_one(from in any_pod(), to in any_pod()) {
        let (schema, shape) = pod();
        let patch = diff::three_way(schema, shape, &from, &to, &from).expect("a patch");
        prop_assert_eq!(strategic(&from, &patch), Ok(to.clone()), "patch {}", patch);
        let mut merged = from.clone();
        merge::apply(&mut merged, merge::three_way(&from, &to, &from));
        prop_assert_eq!(merged, to);
    }
}
