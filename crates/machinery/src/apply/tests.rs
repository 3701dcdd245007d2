//! Stories of field management: who writes what in turn, and what the object, its managers or the refusal are then.

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

/// One object and its writes.
struct Story {
    kind: &'static Kind,
    live: Option<Value>,
    clock: i64,
}

impl Story {
    fn of(kind: &str) -> Self {
        Self { kind: kinds::by_name(kind).expect("a kind"), live: None, clock: 0 }
    }

    fn write<'a>(&mut self, manager: &'a str, subresource: &'a str) -> Write<'a> {
        self.clock += 1;
        Write { manager, subresource, now: at(self.clock) }
    }

    fn config(&self, body: &Value) -> Value {
        let mut config = json!({"apiVersion": self.kind.api_version(), "kind": self.kind.kind, "metadata": {"name": "x", "namespace": "n"}});
        crate::patch::merge::apply(&mut config, body.clone());
        config
    }

    fn try_apply(&mut self, manager: &str, body: &Value, force: bool) -> Result<Applied, ApiError> {
        let write = self.write(manager, "");
        let config = self.config(body);
        let mut applied = apply(&Target::of(self.kind), self.live.as_ref(), &config, write, force)?;
        applied.object["metadata"]["uid"] = "u".into();
        self.live = Some(applied.object.clone());
        Ok(applied)
    }

    fn apply(&mut self, manager: &str, body: &Value) -> &mut Self {
        self.try_apply(manager, body, false).unwrap_or_else(|e| panic!("{}", e.message));
        self
    }

    fn refused(&mut self, manager: &str, body: &Value) -> String {
        self.try_apply(manager, body, false).expect_err("refused").message
    }

    /// A plain update: a merge patch by somebody.
    fn patch(&mut self, manager: &str, body: &Value) -> &mut Self {
        let write = self.write(manager, "");
        let mut new = self.live.clone().unwrap_or_else(|| self.config(&json!({})));
        crate::patch::merge::apply(&mut new, body.clone());
        track(&Target::of(self.kind), self.live.as_ref(), &mut new, write);
        new["metadata"]["uid"] = "u".into();
        self.live = Some(new);
        self
    }

    fn get(&self, pointer: &str) -> Value {
        self.live.as_ref().and_then(|live| live.pointer(pointer)).cloned().unwrap_or_default()
    }

    /// `MANAGER OPERATION SECOND: paths`, an entry a line.
    fn managers(&self) -> Vec<String> {
        let entries = self.get("/metadata/managedFields");
        let line = |entry: &Value| {
            let time: Timestamp = entry["time"].as_str().expect("a time").parse().expect("a time");
            let set = Set::from_fields(&entry["fieldsV1"]).expect("a set");
            let paths: Vec<String> = set.paths().iter().map(|p| show(p)).collect();
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {} {}: {}",
                text("manager"),
                text("operation"),
                time.as_second() - 1_800_000_000,
                paths.join(" ")
            )
        };
        entries.as_array().into_iter().flatten().map(line).collect()
    }
}

#[test]
fn appliers_own_what_they_apply_share_what_is_alike_and_conflict_otherwise() {
    let mut story = Story::of("cm");
    story.apply("one", &json!({"data": {"a": "1"}}));
    assert_eq!(story.managers(), ["one Apply 1: .data.a"]);
    let again = story.try_apply("one", &json!({"data": {"a": "1"}}), false).expect("applied");
    assert!(!again.changed);
    assert_eq!(story.managers(), ["one Apply 1: .data.a"], "nothing changed, so the time stays");
    let refusal = story.try_apply("two", &json!({"data": {"a": "2"}}), false).expect_err("a conflict");
    assert_eq!(refusal.message, "Apply failed with 1 conflict: conflict with \"one\": .data.a");
    let causes =
        json!({"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.a"}]});
    assert_eq!((refusal.reason, refusal.details), (Reason::Conflict, causes));
    story.apply("two", &json!({"data": {"a": "1"}}));
    assert_eq!(story.get("/metadata/managedFields/1/fieldsV1"), json!({"f:data": {"f:a": {}}}));
    story.try_apply("two", &json!({"data": {"a": "3"}}), true).expect("forced");
    assert_eq!(story.managers(), ["two Apply 5: .data.a"]);
    assert_eq!(story.get("/data"), json!({"a": "3"}));
}

/// As upstream: the set of an applier is what its configuration says, the object what Go's types keep of it.
#[test]
fn an_applied_zero_value_is_owned_but_not_kept() {
    let container = json!({"name": "c", "tty": false, "env": [{"name": "A", "value": ""}], "resources": {"requests": {"cpu": 0.5}}});
    let pod = json!({"spec": {"automountServiceAccountToken": false, "containers": [container]}});
    let mut story = Story::of("po");
    story.apply("one", &pod);
    let container = json!([{"name": "c", "env": [{"name": "A"}], "resources": {"requests": {"cpu": "500m"}}}]);
    assert_eq!(story.get("/spec"), json!({"automountServiceAccountToken": false, "containers": container}));
    let owned = story.managers().concat();
    assert!(owned.contains("[name=\"c\"].tty") && owned.contains(".env[name=\"A\"].value"), "{owned}");
    let again = story.try_apply("one", &pod, false).expect("applied");
    assert!(!again.changed, "what is not kept is no change");
    let conflict = "Apply failed with 1 conflict: conflict with \"one\": .spec.containers[name=\"c\"].tty";
    assert_eq!(story.refused("two", &json!({"spec": {"containers": [{"name": "c", "tty": true}]}})), conflict);
    story.patch("editor", &json!({"spec": {"nodeName": "n"}}));
    assert_eq!(story.managers()[0], owned, "another's write leaves it with its owner");
}

#[test]
fn what_an_applier_leaves_out_goes_unless_another_has_it() {
    let mut story = Story::of("cm");
    story.apply("one", &json!({"data": {"a": "1", "b": "2", "c": "3"}}));
    story.apply("two", &json!({"data": {"b": "2"}}));
    story.patch("editor", &json!({"data": {"d": "4"}}));
    story.apply("one", &json!({"data": {"a": "1"}}));
    assert_eq!(story.get("/data"), json!({"a": "1", "b": "2", "d": "4"}));
    assert_eq!(story.managers(), ["two Apply 2: .data.b", "one Apply 4: .data.a", "editor Update 3: .data.d"]);
    story.apply("one", &json!({}));
    assert_eq!(story.get("/data"), json!({"b": "2", "d": "4"}));
    assert_eq!(story.managers().len(), 2);
}

#[test]
fn plain_writes_take_fields_over_and_are_named_with_their_version() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "1"}]}});
    let spec = json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let mut story = Story::of("sts");
    story.patch("kubectl-create", &spec);
    assert_eq!(
        story.managers(),
        [
            "kubectl-create Update 1: .spec.replicas .spec.selector .spec.template.metadata.labels .spec.template.metadata.labels.a .spec.template.spec.containers[name=\"c\"] .spec.template.spec.containers[name=\"c\"].image .spec.template.spec.containers[name=\"c\"].name"
        ]
    );
    assert_eq!(
        story.refused("me", &json!({"spec": {"replicas": 3}})),
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
    );
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    story.patch("kubectl-set", &json!({"spec": {"replicas": 5}}));
    let mut wanted = image("2");
    wanted["spec"]["replicas"] = 3.into();
    assert_eq!(
        story.refused("me", &wanted),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-create\" using apps/v1:\n- .spec.template.spec.containers[name=\"c\"].image\nconflicts with \"kubectl-set\" using apps/v1:\n- .spec.replicas"
    );
    story.patch("kubectl-set", &json!({"spec": {"replicas": 5}}));
    assert!(story.managers().contains(&"kubectl-set Update 3: .spec.replicas".to_owned()), "{:?}", story.managers());
    story.try_apply("me", &wanted, true).expect("forced");
    assert_eq!(story.get("/spec/replicas"), 3);
    assert!(!story.managers().iter().any(|m| m.starts_with("kubectl-set")));
}

#[test]
fn items_of_lists_are_owned_one_by_one_and_keep_their_places() {
    let pod = |list: Value| json!({"metadata": {"finalizers": ["a.b/x"]}, "spec": {"containers": list}});
    let mut story = Story::of("po");
    story.apply("me", &pod(json!([{"name": "a", "image": "1"}, {"name": "b", "ports": [{"containerPort": 80}]}])));
    story.patch("injector", &json!({"metadata": {"finalizers": ["c.d/y", "a.b/x"]}, "spec": {"containers": [
        {"name": "a", "image": "1"}, {"name": "side", "image": "s"}, {"name": "b", "tty": true, "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}));
    let port = ".spec.containers[name=\"b\"].ports[containerPort=80,protocol=\"TCP\"]";
    assert!(story.managers()[1].contains(&format!("{port}.protocol")), "the implied protocol tells the same port");
    assert!(!story.managers()[1].contains(&format!("{port} ")));
    story.apply("me", &pod(json!([{"name": "z"}, {"name": "a", "image": "1"}])));
    let names: Vec<Value> =
        story.get("/spec/containers").as_array().expect("a list").iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["z", "a", "side"], "who applied an item takes it away, with what others wrote into it");
    assert_eq!(story.get("/metadata/finalizers"), json!(["c.d/y", "a.b/x"]));
    let injector = story.managers().into_iter().find(|m| m.starts_with("injector")).expect("an entry");
    assert!(injector.contains("[name=\"side\"]") && injector.contains(".finalizers[=\"c.d/y\"]"), "{injector}");
}

#[test]
fn a_configuration_that_does_not_fit_is_refused_in_upstreams_words() {
    let head = "failed to create typed patch object (n/x; apps/v1, Kind=StatefulSet): ";
    let containers = |list: Value| json!({"spec": {"template": {"spec": {"containers": list}}}});
    for (body, want) in [
        (json!({"spec": {"replica": 3}}), format!("{head}.spec.replica: field not declared in schema")),
        (
            json!({"spec": {"replicas": "3"}}),
            format!("{head}.spec.replicas: expected numeric (int or float), got string"),
        ),
        (
            containers(json!([{"name": "a"}, {"name": "a"}])),
            format!("{head}.spec.template.spec.containers: duplicate entries for key [name=\"a\"]"),
        ),
        (
            containers(json!([{"image": "a"}])),
            format!(
                "{head}.spec.template.spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)"
            ),
        ),
        (
            json!({"spec": {"replicas": "3", "nothere": 1}, "x": 1}),
            format!("{head}errors:\n  .spec.nothere: field not declared in schema\n  .x: field not declared in schema"),
        ),
        (json!({"metadata": {"managedFields": [{}]}}), "metadata.managedFields must be nil".to_owned()),
        (
            json!({"apiVersion": null}),
            "Incorrect version specified in apply patch. Specified patch version: , expected: apps/v1".to_owned(),
        ),
    ] {
        assert_eq!(Story::of("sts").refused("me", &body), want, "{body}");
    }
}

#[test]
fn an_object_that_nobody_tracked_is_tracked_from_the_first_apply_on() {
    let mut story = Story::of("cm");
    story.patch("old", &json!({"data": {"a": "1", "b": "2"}}));
    if let Some(metadata) = story.live.as_mut().and_then(|l| l["metadata"].as_object_mut()) {
        metadata.remove("managedFields");
    }
    story.patch("old", &json!({"data": {"c": "3"}}));
    assert_eq!(story.managers(), [""; 0], "an update does not begin to track");
    assert_eq!(
        story.refused("me", &json!({"data": {"a": "x"}})),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
    story.apply("me", &json!({"data": {"a": "1"}}));
    assert_eq!(story.managers(), ["me Apply 4: .data.a", "before-first-apply Update 4: .data .data.a .data.b .data.c"]);
}

#[test]
fn kubectl_may_take_over_what_it_applied_by_itself_before() {
    let last =
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"n"},"data":{"a":"1","b":"2"}}"#;
    let mut story = Story::of("cm");
    story.patch(
        "kubectl-client-side-apply",
        &json!({"metadata": {"annotations": {LAST_APPLIED: last}}, "data": {"a": "1", "b": "2"}}),
    );
    story.patch("editor", &json!({"data": {"b": "9"}}));
    let refusal = story.refused("kubectl", &json!({"data": {"a": "x", "b": "y"}}));
    assert_eq!(refusal, "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.b");
    story.apply("kubectl", &json!({"data": {"a": "x", "b": "9"}}));
    assert_eq!(story.get("/data"), json!({"a": "x", "b": "9"}));
    let annotation = story.get("/metadata/annotations");
    assert!(annotation[LAST_APPLIED].as_str().is_some_and(|text| text.contains(r#""a":"x""#)), "{annotation}");
    assert!(story.try_apply("other", &json!({"data": {"a": "1"}}), false).is_err());
}

#[test]
fn the_record_can_be_reset_and_does_not_grow_without_end() {
    let mut story = Story::of("cm");
    for number in 0..30 {
        story.patch(&format!("m{number:02}"), &json!({"data": {format!("k{number:02}"): "v"}}));
    }
    let managers = story.managers();
    assert_eq!(managers.len(), 10);
    assert!(managers[0].starts_with("ancient-changes Update 21: .data .data.k00 "), "{managers:?}");
    assert_eq!(managers[9], "m29 Update 30: .data.k29");
    story.patch("m99", &json!({"metadata": {"managedFields": [{}]}, "data": {"z": "1"}}));
    assert_eq!(story.managers(), [""; 0], "reset: an update does not begin to track");
}

#[test]
fn a_scale_and_its_object_share_the_manager_of_replicas() {
    let mut story = Story::of("sts");
    story.patch("maker", &json!({"spec": {"replicas": 1, "serviceName": "s"}}));
    let parent = story.get("/metadata/managedFields");
    let live = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "x", "uid": "u", "managedFields": to_scale(&parent)}, "spec": {"replicas": 1}});
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = 3.into();
    let target = Target::named("autoscaling", "v1", "Scale").expect("a type");
    track(&target, Some(&live), &mut scaled, Write { manager: "kubectl", subresource: "scale", now: at(9) });
    let object = story.live.as_mut().expect("an object");
    object["spec"]["replicas"] = 3.into();
    object["metadata"]["managedFields"] = to_parent(&parent, &scaled["metadata"]["managedFields"], "apps/v1");
    assert_eq!(story.managers(), ["maker Update 1: .spec.serviceName", "kubectl Update 9: .spec.replicas"]);
    assert_eq!(
        story.refused("me", &json!({"spec": {"replicas": 2}})),
        "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn managers_of_another_version_are_heard_in_that_version() {
    let mut story = Story::of("hpa");
    story.kind = kinds::by_api_version("autoscaling/v1", "HorizontalPodAutoscaler").expect("a kind");
    story.apply("old", &json!({"spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 50}}));
    let v1 = story.kind;
    story.kind = kinds::by_name("hpa").expect("a kind");
    story.live = story.live.take().map(|live| convert::convert(v1, story.kind, live));
    let refusal = story.refused("new", &json!({"spec": {"maxReplicas": 7}}));
    assert_eq!(refusal, "Apply failed with 1 conflict: conflict with \"old\": .spec.maxReplicas");
    story.apply("new", &json!({"spec": {"minReplicas": 2}}));
    assert_eq!(
        story.managers(),
        ["old Apply 1: .spec.maxReplicas .spec.targetCPUUtilizationPercentage", "new Apply 3: .spec.minReplicas"]
    );
}

#[test]
fn the_status_belongs_to_those_who_write_the_status() {
    let kind = kinds::by_name("sts").expect("a kind");
    let target = Target::of(kind);
    let live = json!({"metadata": {"name": "x", "uid": "u", "managedFields": [
        {"manager": "a", "operation": "Update", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]},
        "spec": {"replicas": 1}});
    let mut new = live.clone();
    new["status"] = json!({"replicas": 1});
    let mut by_status = new.clone();
    track(&target, Some(&live), &mut by_status, Write { manager: "c", subresource: "status", now: at(1) });
    let entry = by_status["metadata"]["managedFields"][1].clone();
    assert_eq!(
        (&entry["subresource"], &entry["fieldsV1"]),
        (&json!("status"), &json!({"f:status": {"f:replicas": {}}}))
    );
    track(&target, Some(&live), &mut new, Write { manager: "c", subresource: "", now: at(1) });
    assert_eq!(new["metadata"]["managedFields"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_manager_is_named_by_the_request_or_its_program() {
    assert_eq!(manager_name("me", "kubectl/v1"), "me");
    assert_eq!(manager_name("", "kubectl/v1.32.5 (linux/amd64)"), "kubectl");
    assert_eq!(manager_name("", ""), "unknown");
    assert_eq!(manager_name("", &"x".repeat(500)).len(), 128);
    let refusal = check_manager("PatchOptions", "", true).expect_err("required");
    assert_eq!(
        refusal.message,
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    assert_eq!(refusal.details["group"], "meta.k8s.io");
    assert!(check_manager("PatchOptions", &"m".repeat(129), true).is_err_and(|e| e.message.contains("Too long")));
    assert!(check_manager("CreateOptions", "", false).is_ok());
}
