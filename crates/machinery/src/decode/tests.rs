//! Stories of decoding: a body, and what comes of it.

use serde_json::json;

use super::*;
use crate::status::Reason;

fn kind(name: &str) -> &'static Kind {
    kinds::by_name(name).expect("a kind")
}

fn text(kind_name: &str, body: &str, validation: FieldValidation) -> Result<(Value, Vec<String>), String> {
    decode(kind(kind_name), Content::Json(body.as_bytes()), validation).map_err(|e| e.message)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_body_that_cannot_be_decoded_is_refused_in_upstreams_words() {
    let sts = |rest: &str| format!(r#"{{"spec":{{{rest}}}}}"#);
    let pod = |rest: &str| sts(&format!(r#""template":{{"spec":{{"containers":[{rest}]}}}}"#));
    let handled = "StatefulSet in version \"v1\" cannot be handled as a StatefulSet: ";
    for (kind, body, want) in [
        (
            "sts",
            sts(r#""replicas":"two""#),
            format!("{handled}json: cannot unmarshal string into Go struct field StatefulSetSpec.spec.replicas of type int32"),
        ),
        (
            "sts",
            sts(r#""replicas":3000000000"#),
            format!("{handled}json: cannot unmarshal number 3000000000 into Go struct field StatefulSetSpec.spec.replicas of type int32"),
        ),
        (
            "sts",
            sts(r#""replicas":1.5"#),
            format!("{handled}json: cannot unmarshal number 1.5 into Go struct field StatefulSetSpec.spec.replicas of type int32"),
        ),
        (
            "sts",
            sts(r#""template":{"spec":{"containers":{"name":"x"}}}"#),
            format!("{handled}json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container"),
        ),
        (
            "sts",
            sts(r#""template":{"metadata":{"labels":{"app":5}}}"#),
            format!("{handled}json: cannot unmarshal number into Go struct field ObjectMeta.spec.template.metadata.labels of type string"),
        ),
        (
            "sts",
            pod(r#"{"env":[{"name":"A","value":5}]}"#),
            format!("{handled}json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string"),
        ),
        (
            "sts",
            pod(r#"{"command":"ls"}"#),
            format!("{handled}json: cannot unmarshal string into Go struct field Container.spec.template.spec.containers.command of type []string"),
        ),
        (
            "sts",
            pod(r#"{"readinessProbe":{"httpGet":{"port":{"a":"b"}}}}"#),
            format!("{handled}json: cannot unmarshal object into Go struct field HTTPGetAction.spec.template.spec.containers.readinessProbe.httpGet.port of type int32"),
        ),
        (
            "sts",
            pod(r#"{"resources":{"requests":{"memory":"1GiB"}}}"#),
            format!("{handled}quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ),
        (
            "sts",
            r#"{"metadata":{"labels":{"a":1}},"spec":{"replicas":"two"}}"#.to_owned(),
            format!("{handled}json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"),
        ),
        ("sts", "[]".to_owned(), format!("{handled}json: cannot unmarshal array into Go value of type v1.StatefulSet")),
        (
            "secrets",
            r#"{"data":{"a":"not-base64!"}}"#.to_owned(),
            "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 3".to_owned(),
        ),
        (
            "cm",
            r#"{"data":{"a":1,"b":true}}"#.to_owned(),
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string".to_owned(),
        ),
        (
            "po",
            r#"{"spec":{"containers":[{"name":true}]}}"#.to_owned(),
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal bool into Go struct field Container.spec.containers.name of type string".to_owned(),
        ),
        (
            "sts",
            "{\"kind\":\"StatefulSet\"".to_owned(),
            "the object provided is unrecognized (must be of type StatefulSet): couldn't get version/kind; json parse error: unexpected end of JSON input ({\"kind\":\"StatefulSet\")".to_owned(),
        ),
        (
            "sts",
            "hello".to_owned(),
            "the object provided is unrecognized (must be of type StatefulSet): couldn't get version/kind; json parse error: invalid character 'h' looking for beginning of value (68656c6c6f)".to_owned(),
        ),
        (
            "sts",
            String::new(),
            "the object provided is unrecognized (must be of type StatefulSet): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)".to_owned(),
        ),
        (
            "sts",
            r#"{"apiVersion":"v1","kind":"Pod"}"#.to_owned(),
            "Pod in version \"v1\" cannot be handled as a StatefulSet: converting (v1.Pod) to (apps.StatefulSet): unknown conversion".to_owned(),
        ),
        (
            "sts",
            r#"{"apiVersion":"apps/v1","kind":"Frob"}"#.to_owned(),
            "Frob in version \"v1\" cannot be handled as a StatefulSet: no kind \"Frob\" is registered for version \"apps/v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"".to_owned(),
        ),
        (
            "hpa",
            r#"{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler"}"#.to_owned(),
            "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)".to_owned(),
        ),
    ] {
        assert_eq!(text(kind, &body, FieldValidation::Ignore).map(|_| ()), Err(want), "{body}");
    }
}

#[test]
fn unknown_and_duplicate_fields_are_pruned_and_told() {
    let body = r#"{"spec":{"replica":3,"replicas":1,"replicas":2,
        "template":{"metadata":{"labels":{"a":"1","a":"2"}},"spec":{"containers":[{"name":"a"},{"name":"b","imagee":"x"}]}}},"nope":{"x":[1]}}"#;
    let containers = json!([{"name": "a", "resources": {}}, {"name": "b", "resources": {}}]);
    let template = json!({"metadata": {"labels": {"a": "2"}}, "spec": {"containers": containers}});
    let pruned = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {},
        "spec": {"replicas": 2, "serviceName": "", "template": template, "updateStrategy": {}}, "status": {"replicas": 0, "availableReplicas": 0}});
    let told = [
        r#"unknown field "spec.replica""#,
        r#"duplicate field "spec.replicas""#,
        r#"duplicate field "spec.template.metadata.labels.a""#,
        r#"unknown field "spec.template.spec.containers[1].imagee""#,
        r#"unknown field "nope""#,
    ];
    assert_eq!(text("sts", body, FieldValidation::Ignore), Ok((pruned.clone(), vec![])));
    assert_eq!(text("sts", body, FieldValidation::Warn), Ok((pruned, told.map(str::to_owned).to_vec())));
    let strict = format!(
        "StatefulSet in version \"v1\" cannot be handled as a StatefulSet: strict decoding error: {}",
        told.join(", ")
    );
    assert_eq!(text("sts", body, FieldValidation::Strict), Err(strict));
}

#[test]
fn what_a_round_trip_through_go_loses_is_lost() {
    let body = json!({
        "metadata": {"name": "a", "creationTimestamp": null, "labels": {}, "annotations": {"x": null},
            "deletionTimestamp": "2026-11-20T15:00:00.5+01:00"},
        "spec": {"containers": [null, {"name": "c", "command": [], "args": [null, "x"], "resources": {"requests": {"cpu": 0.5, "memory": "1024Ki"}}}],
            "volumes": [{"name": "v", "emptyDir": {}}], "nodeName": null, "tolerations": [], "nodeSelector": null},
    });
    let want = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "annotations": {"x": ""}, "deletionTimestamp": "2026-11-20T14:00:00Z"},
        "spec": {"containers": [{"name": "", "resources": {}}, {"name": "c", "args": ["", "x"], "resources": {"requests": {"cpu": "500m", "memory": "1Mi"}}}],
            "volumes": [{"name": "v", "emptyDir": {}}]},
        "status": {},
    });
    let from_text = text("po", &body.to_string(), FieldValidation::Strict);
    assert_eq!(from_text, Ok((want.clone(), vec![])));
    let from_value = decode(kind("po"), Content::Value(body), FieldValidation::Strict);
    assert_eq!(from_value, Ok((want, vec![])));
}

/// One pod template: its fields as given, and as Go's types write them again.
#[test]
fn a_zero_value_is_left_out_kept_behind_a_pointer_or_always_written() {
    for (given, kept) in [
        // by value with omitempty: left out
        (json!({"hostNetwork": false, "nodeName": "", "nodeSelector": {}, "tolerations": []}), json!({})),
        (
            json!({"containers": [{"name": "c", "env": [{"name": "A", "value": ""}, {"name": "B", "value": "0"}], "tty": false}]}),
            json!({"containers": [{"name": "c", "env": [{"name": "A"}, {"name": "B", "value": "0"}], "resources": {}}]}),
        ),
        (
            json!({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/", "readOnly": false}}]}),
            json!({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}]}),
        ),
        // behind a pointer: as given
        (
            json!({"automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0, "securityContext": {}}),
            json!({"automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0, "securityContext": {}}),
        ),
        (
            json!({"securityContext": {"runAsUser": 0, "supplementalGroups": [], "sysctls": null}}),
            json!({"securityContext": {"runAsUser": 0}}),
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {"medium": ""}}]}),
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        ),
        // by value without omitempty, and structs by value: there, given or not
        (
            json!({"containers": [{"name": "c", "volumeMounts": [{"mountPath": "/d"}], "livenessProbe": {"httpGet": {"httpHeaders": [{"name": "X"}]}}}]}),
            json!({"containers": [{"name": "c", "resources": {}, "volumeMounts": [{"name": "", "mountPath": "/d"}],
                "livenessProbe": {"httpGet": {"port": 0, "httpHeaders": [{"name": "X", "value": ""}]}}}]}),
        ),
        (
            json!({"volumes": [{"name": "v", "downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"resource": "limits.cpu"}}]}}]}),
            json!({"volumes": [{"name": "v", "downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}}]}}]}),
        ),
    ] {
        let body = json!({"template": {"metadata": {"labels": {}, "annotations": {"a": ""}}, "spec": given}});
        let want = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {},
            "template": {"metadata": {"annotations": {"a": ""}}, "spec": kept}});
        let got = text("podtemplates", &body.to_string(), FieldValidation::Strict).map(|(object, _)| object);
        assert_eq!(got, Ok(want), "{body}");
    }
}

/// What no schema describes is somebody's value, empty or not.
#[test]
fn an_empty_value_of_any_form_stays() {
    let managed = json!([{"manager": "m", "fieldsType": "FieldsV1", "fieldsV1": {}}]);
    let body = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r", "managedFields": managed},
        "data": {}, "revision": 0});
    assert_eq!(text("controllerrevisions", &body.to_string(), FieldValidation::Strict), Ok((body, vec![])));
}

#[test]
fn bodies_of_subresources_and_requests_decode_too() {
    let scale = Target::named("autoscaling", "v1", "Scale").expect("a type");
    let got = decode_as(&scale, Content::Json(br#"{"spec":{"replicas":2}}"#), FieldValidation::Strict);
    let want = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {}, "spec": {"replicas": 2}, "status": {"replicas": 0}});
    assert_eq!(got, Ok((want, vec![])));
    let options = Target::named("", "v1", "DeleteOptions").expect("a type");
    let got = decode_as(&options, Content::Json(br#"{"gracePeriodSeconds":0}"#), FieldValidation::Strict);
    assert!(got.is_ok_and(|(object, _)| object["gracePeriodSeconds"] == 0));
    assert!(Target::named("policy", "v1", "Eviction").is_some());
    assert!(Target::named("", "v1", "Frob").is_none());
}

#[test]
fn a_body_is_limited_in_size_and_depth() {
    let long = vec![b' '; MAX_BODY_BYTES + 1];
    let error = decode(kind("po"), Content::Json(&long), FieldValidation::Ignore).expect_err("too long");
    assert_eq!(error.reason, Reason::RequestEntityTooLarge);
    let deep = format!("{{\"data\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let error = decode(kind("controllerrevisions"), Content::Json(deep.as_bytes()), FieldValidation::Ignore);
    assert!(error.is_err_and(|e| e.message.contains("exceeded max depth")));
}

/// What a real API server answers decodes without a complaint, and comes out the same.
#[test]
fn objects_of_the_wild_are_known_whole() {
    let revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "w-1"},
        "data": {"spec": {"template": {"$patch": "replace", "x": null}}}, "revision": 1});
    let got = decode(kind("controllerrevisions"), Content::Value(revision.clone()), FieldValidation::Strict);
    assert_eq!(got, Ok((revision, vec![])));
}
