//! The verbs against what a real Kubernetes answered: codes and texts as tables, state of the world after.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic where a test would")]

mod support;

use serde_json::{Value, json};
use support::{CM, PODS, SET, SETS, World, pod};

#[tokio::test]
async fn refusals_have_upstreams_codes_and_texts() {
    let w = World::new().await;
    w.ok(&format!("POST {SETS}"), SET).await;
    w.ok(&format!("POST {CM}"), r#"{"metadata":{"name":"cm2"}}"#).await;
    let set_uid = w.get(&format!("{SETS}/web")).await["metadata"]["uid"].as_str().unwrap().to_owned();
    let cm2 = w.get(&format!("{CM}/cm2")).await;
    let (uid, version) =
        (cm2["metadata"]["uid"].as_str().unwrap(), cm2["metadata"]["resourceVersion"].as_str().unwrap());
    let other = SET.replace(r#""name":"web""#, r#""name":"other""#);
    let old = SET.replace(r#"{"name":"web"}"#, r#"{"name":"web","resourceVersion":"1"}"#);
    let stranger = SET.replace(r#"{"name":"web"}"#, r#"{"name":"web","uid":"x"}"#);
    let big = format!(r#"{{"metadata":{{"name":"big"}},"data":{{"x":"{}"}}}}"#, "y".repeat(3 * 1024 * 1024));
    let cases: Vec<(String, String, String)> = [
        ("GET /api/v1/namespaces/http/pods/nothere", "", "404 pods \"nothere\" not found"),
        ("GET {SETS}/nothere", "", "404 statefulsets.apps \"nothere\" not found"),
        ("GET {SETS}/web/nothere", "", "404 the server could not find the requested resource"),
        ("GET /apis/apps/v1/namespaces/http/nothere", "", "404 the server could not find the requested resource"),
        ("GET /apis/apps/v9/statefulsets", "", "404 the server could not find the requested resource"),
        ("GET /api/v2", "", "404 the server could not find the requested resource"),
        ("OPTIONS /api/v1/namespaces/default", "", "405 the server does not allow this method on the requested resource"),
        ("PUT {SETS}", "", "405 the server does not allow this method on the requested resource"),
        ("PATCH {SETS}", "", "405 the server does not allow this method on the requested resource"),
        ("POST {SETS}/web", "{}", "405 the server does not allow this method on the requested resource"),
        ("DELETE /api/v1/namespaces", "", "405 the server does not allow this method on the requested resource"),
        ("POST {SETS}", SET, "409 statefulsets.apps \"web\" already exists"),
        ("POST /apis/apps/v1/namespaces/other/statefulsets", &SET.replace(r#"{"name":"web"}"#, r#"{"name":"x","namespace":"http"}"#), "400 the namespace of the provided object does not match the namespace sent on the request"),
        ("POST /api/v1/namespaces/nowhere/configmaps", r#"{"metadata":{"name":"x"}}"#, "404 namespaces \"nowhere\" not found"),
        ("POST {CM}", r#"{"metadata":{"name":"x","resourceVersion":"5"}}"#, "500 resourceVersion should not be set on objects to be created"),
        ("POST {CM}", &big, "413 Request entity too large: limit is 3145728"),
        ("PUT {SETS}/web", &other, "400 the name of the object (other) does not match the name on the URL (web)"),
        ("PUT {SETS}/web", &old, "409 Operation cannot be fulfilled on statefulsets.apps \"web\": the object has been modified; please apply your changes to the latest version and try again"),
        ("PUT {SETS}/web", &stranger, "409 Operation cannot be fulfilled on statefulsets.apps \"web\": StorageError: invalid object, Code: 4, Key: /registry/statefulsets/http/web, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: x, UID in object meta: {SETUID}"),
        ("PUT {SETS}/nothere", &SET.replace(r#"{"name":"web"}"#, r#"{"name":"nothere"}"#), "404 statefulsets.apps \"nothere\" not found"),
        ("DELETE {CM}/nothere", "", "404 configmaps \"nothere\" not found"),
        ("DELETE {CM}/cm2", r#"{"preconditions":{"uid":"nothere"}}"#, "409 Operation cannot be fulfilled on ConfigMap \"cm2\": the UID in the precondition (nothere) does not match the UID in record ({UID}). The object might have been deleted and then recreated"),
        ("DELETE {CM}/cm2", r#"{"preconditions":{"resourceVersion":"1"}}"#, "409 Operation cannot be fulfilled on ConfigMap \"cm2\": the ResourceVersion in the precondition (1) does not match the ResourceVersion in record ({RV}). The object might have been modified"),
        ("DELETE {PODS}/nothere", r#"{"gracePeriodSeconds":-1}"#, "404 pods \"nothere\" not found"),
        ("GET {CM}?limit=2&continue=nonsense", "", "400 invalid continue token: continue key is not valid: *"),
        ("GET {CM}?limit=x", "", "400 strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("GET {CM}?resourceVersion=999999999", "", "504 Timeout: Too large resource version: 999999999, current: *"),
        ("GET {CM}/cm2?resourceVersion=999999999", "", "504 Timeout: Too large resource version: 999999999, current: *"),
        ("GET {CM}/cm2?resourceVersion=abc", "", "500 resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax"),
        ("GET {PODS}?fieldSelector=spec.nothere%3D1", "", "400 field label not supported: spec.nothere"),
        ("GET {SETS}?fieldSelector=spec.replicas%3D1", "", "400 \"spec.replicas\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
        ("GET {PODS}?fieldSelector=x", "", "400 invalid selector: 'x'; can't understand 'x'"),
        ("GET {PODS}?labelSelector=a%20in%20b", "", "400 unable to parse requirement: found 'b' expected: '('"),
        ("GET {CM}?watch=1&resourceVersion=abc", "", "500 resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax"),
        ("GET {CM}?watch=1&resourceVersionMatch=NotOlderThan&resourceVersion=1", "", "422 ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"),
        ("GET {SETS}/nothere/scale", "", "404 statefulsets.apps \"nothere\" not found"),
        ("PUT {SETS}/web/scale", r#"{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"web","namespace":"http"},"spec":{"replicas":-2}}"#, "422 Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -2: must be greater than or equal to 0"),
        ("PUT {SETS}/web/scale", r#"{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"web","namespace":"http","resourceVersion":"1"},"spec":{"replicas":2}}"#, "409 Operation cannot be fulfilled on statefulsets.apps \"web\": the object has been modified; please apply your changes to the latest version and try again"),
        ("POST /api/v1/namespaces/http/serviceaccounts/default/token", r#"{"spec":{"expirationSeconds":5}}"#, "422 TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes"),
        ("DELETE /api/v1/nodes/nothere", "", "404 nodes \"nothere\" not found"),
    ]
    .map(|(request, body, want)| {
        let fill = |text: &str| {
            text.replace("{SETS}", SETS).replace("{CM}", CM).replace("{PODS}", PODS).replace("{SETUID}", &set_uid).replace("{UID}", uid).replace("{RV}", version)
        };
        (fill(request), body.to_owned(), fill(want))
    })
    .to_vec();
    for (request, body, want) in cases {
        let got = w.ask(&request, &body).await.line();
        let fits = want.strip_suffix('*').map_or(got == want, |start| got.starts_with(start));
        assert!(fits, "{request}\n got {got}\nwant {want}");
    }
}

#[tokio::test]
async fn unknown_paths_are_plain_text() {
    let w = World::new().await;
    for url in ["/nothere", "/apis/nothere.io/v1", "/apis/nothere.io/v1/things"] {
        let answer = w.ask(&format!("GET {url}"), "").await;
        assert_eq!((answer.code, answer.text.as_str()), (404, "404 page not found\n"), "{url}");
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
        assert!(answer.headers.contains_key("audit-id"));
    }
}

#[tokio::test]
async fn an_object_from_create_to_delete() {
    let w = World::new().await;
    let made = w.ok(&format!("POST {CM}"), r#"{"metadata":{"name":"a","uid":"5","creationTimestamp":"2020-01-01T00:00:00Z","selfLink":"/x","generation":7},"data":{"k":"v"}}"#).await;
    let m = &made["metadata"];
    assert_eq!(
        (&made["kind"], &made["apiVersion"], &m["namespace"]),
        (&json!("ConfigMap"), &json!("v1"), &json!("http"))
    );
    assert!(m["uid"].as_str().unwrap().len() == 36 && m["creationTimestamp"] != "2020-01-01T00:00:00Z");
    assert!(m.get("selfLink").is_none() && m.get("generation").is_none());
    assert_eq!(w.get(&format!("{CM}/a")).await, made);

    let mut wanted = made.clone();
    wanted["data"]["k"] = "w".into();
    let changed = w.ok(&format!("PUT {CM}/a"), &wanted.to_string()).await;
    assert_ne!(changed["metadata"]["resourceVersion"], m["resourceVersion"]);
    assert_eq!(changed["metadata"]["uid"], m["uid"]);
    // A write that changes nothing leaves the version alone.
    let again = w.ok(&format!("PUT {CM}/a"), &changed.to_string()).await;
    assert_eq!(again, changed);

    let dry = w.ok(&format!("DELETE {CM}/a?dryRun=All"), "").await;
    assert_eq!(dry["status"], "Success");
    let gone = w.ok(&format!("DELETE {CM}/a"), "").await;
    assert_eq!(gone["details"], json!({"name": "a", "kind": "configmaps", "uid": m["uid"]}));
    assert_eq!(w.ask(&format!("GET {CM}/a"), "").await.code, 404);
    // Dry runs leave nothing.
    let dry = w.ok(&format!("POST {CM}?dryRun=All"), r#"{"metadata":{"name":"dry"}}"#).await;
    assert!(dry["metadata"].get("resourceVersion").is_none());
    assert_eq!(w.ask(&format!("GET {CM}/dry"), "").await.code, 404);
    let generated = w.ok(&format!("POST {CM}"), r#"{"metadata":{"generateName":"gen-"}}"#).await;
    assert_eq!(generated["metadata"]["name"].as_str().unwrap().len(), 9);
}

#[tokio::test]
async fn pages_of_a_list_show_one_moment() {
    let w = World::new().await;
    for i in 0..5 {
        w.ok(&format!("POST {CM}"), &format!(r#"{{"metadata":{{"name":"cm{i}","labels":{{"odd":"{}"}}}}}}"#, i % 2))
            .await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = w.get(&format!("{CM}?limit=2")).await;
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["cm0".into(), "cm1".into()], &json!(3))
    );
    assert!(first["items"][0].get("kind").is_none());
    w.ok(&format!("DELETE {CM}/cm3"), "").await;
    let next = first["metadata"]["continue"].as_str().unwrap();
    let second = w.get(&format!("{CM}?limit=2&continue={next}")).await;
    assert_eq!(names(&second), ["cm2", "cm3"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let next = second["metadata"]["continue"].as_str().unwrap();
    let third = w.get(&format!("{CM}?limit=2&continue={next}")).await;
    assert_eq!((names(&third), third["metadata"].get("continue")), (vec!["cm4".into()], None));
    // With a selector, the limit counts matches and nobody counts the rest.
    let odd = w.get(&format!("{CM}?limit=1&labelSelector=odd%3D0")).await;
    assert_eq!((names(&odd), odd["metadata"].get("remainingItemCount")), (vec!["cm0".into()], None));
    let next = odd["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&w.get(&format!("{CM}?labelSelector=odd%3D0&continue={next}")).await), ["cm2", "cm4"]);
    // A token whose moment is forgotten says how to go on.
    w.ok("POST /api/v1/namespaces/http/secrets", r#"{"metadata":{"name":"s"}}"#).await;
    let revision = w.store.revision();
    w.store.compact(revision).await.unwrap();
    let next = first["metadata"]["continue"].as_str().unwrap();
    let expired = w.ask(&format!("GET {CM}?limit=2&continue={next}"), "").await;
    assert_eq!((expired.code, &expired.json()["reason"]), (410, &json!("Expired")));
    let token = expired.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    assert_eq!(names(&w.get(&format!("{CM}?limit=2&continue={token}")).await), ["cm2", "cm4"]);
    let old = w.ask(&format!("GET {CM}?resourceVersion=1&resourceVersionMatch=Exact"), "").await;
    assert_eq!(old.line(), "410 The resourceVersion for the provided list is too old.");
}

#[tokio::test]
async fn forms_of_an_answer() {
    let w = World::new().await;
    w.ok(&format!("POST {SETS}"), SET).await;
    let ask = async |accept: &str, url: &str| w.ask_with(&format!("GET {url}"), &[("accept", accept)], "").await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let list = ask(table, SETS).await.json();
    assert_eq!((&list["kind"], &list["columnDefinitions"][0]["name"]), (&json!("Table"), &json!("Name")));
    assert_eq!(list["rows"][0]["cells"][0], "web");
    assert_eq!(list["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let bare = ask(table, &format!("{SETS}?includeObject=None")).await.json();
    assert_eq!(bare["rows"][0]["object"], Value::Null);
    let wrong = ask(table, &format!("{SETS}?includeObject=Frob")).await;
    assert_eq!(
        wrong.line(),
        "400 Unable to convert to Table as requested: includeObject: Invalid value: \"Frob\": must be 'Metadata', 'Object', 'None', or empty"
    );
    let partial =
        ask("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", &format!("{SETS}/web")).await.json();
    assert_eq!(
        (&partial["kind"], partial.get("spec"), &partial["metadata"]["name"]),
        (&json!("PartialObjectMetadata"), None, &json!("web"))
    );
    let partials = ask("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", SETS).await.json();
    assert_eq!(
        (&partials["kind"], &partials["items"][0]["metadata"]["name"]),
        (&json!("PartialObjectMetadataList"), &json!("web"))
    );
    let yaml = ask("application/yaml", &format!("{SETS}/web")).await;
    assert!(yaml.text.contains("serviceName: web\n") && yaml.headers["content-type"] == "application/yaml");
    assert_eq!(ask("application/xml", SETS).await.line(), "406 406: Not Acceptable");
    let scale = ask("application/json;as=Table;v=v1;g=meta.k8s.io", &format!("{SETS}/web/scale")).await;
    assert_eq!(scale.code, 406);
    let pretty = w.ask_with(&format!("GET {SETS}/web"), &[("user-agent", "curl/8")], "").await;
    assert!(
        pretty.text.starts_with("{\n  \"kind\": \"StatefulSet\",\n  \"apiVersion\": \"apps/v1\",\n  \"metadata\": {\n")
    );
}

#[tokio::test]
async fn status_and_spec_have_separate_doors() {
    let w = World::new().await;
    let made = w.ok(&format!("POST {SETS}"), SET).await;
    assert_eq!(made["metadata"]["generation"], 1);
    let a = w.merge(&format!("{SETS}/web"), r#"{"spec":{"replicas":3},"status":{"replicas":9}}"#).await;
    assert_eq!(
        (&a["spec"]["replicas"], &a["status"]["replicas"], &a["metadata"]["generation"]),
        (&json!(3), &json!(0), &json!(2))
    );
    let b = w
        .merge(
            &format!("{SETS}/web/status"),
            r#"{"spec":{"replicas":7},"status":{"replicas":2},"metadata":{"annotations":{"b":"2"}}}"#,
        )
        .await;
    assert_eq!(
        (&b["spec"]["replicas"], &b["status"]["replicas"], &b["metadata"]["generation"]),
        (&json!(3), &json!(2), &json!(2))
    );
    let scale = w.get(&format!("{SETS}/web/scale")).await;
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({"replicas": 3}), &json!({"replicas": 2, "selector": "app=web"}))
    );
    let scale = w.merge(&format!("{SETS}/web/scale"), r#"{"spec":{"replicas":1}}"#).await;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    assert_eq!(w.get(&format!("{SETS}/web")).await["metadata"]["generation"], 3);
}

#[tokio::test]
async fn the_status_of_a_deployment_leaves_its_labels() {
    let w = World::new().await;
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1.21"}]}});
    let made = json!({"metadata": {"name": "web", "labels": {"is": "old"}},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}});
    let deployments = "/apis/apps/v1/namespaces/http/deployments";
    w.ok(&format!("POST {deployments}"), &made.to_string()).await;
    let patch = r#"{"metadata":{"labels":{"is":"new"},"annotations":{"a":"b"}},"status":{"replicas":1}}"#;
    let after = w.merge(&format!("{deployments}/web/status"), patch).await;
    assert_eq!(
        (&after["metadata"]["labels"]["is"], &after["metadata"]["annotations"]["a"], &after["status"]["replicas"]),
        (&json!("old"), &json!("b"), &json!(1)),
        "annotations change, labels do not"
    );
}

#[tokio::test]
async fn a_pod_is_bound_once_and_goes_gracefully() {
    let w = World::new().await;
    w.ok(&format!("POST {PODS}"), &pod("web-0")).await;
    let binding = r#"{"apiVersion":"v1","kind":"Binding","metadata":{"name":"web-0","annotations":{"by":"test"}},"target":{"kind":"Node","name":"peer"}}"#;
    let done = w.ask(&format!("POST {PODS}/web-0/binding"), binding).await;
    assert_eq!((done.code, &done.json()["status"]), (201, &json!("Success")));
    let bound = w.get(&format!("{PODS}/web-0")).await;
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["annotations"]["by"]), (&json!("peer"), &json!("test")));
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let again = w.ask(&format!("POST {PODS}/web-0/binding"), binding).await;
    assert_eq!(
        again.line(),
        "409 Operation cannot be fulfilled on pods/binding \"web-0\": pod web-0 is already assigned to node \"peer\""
    );
    assert_eq!(again.json()["details"], json!({"name": "web-0", "kind": "pods/binding"}));
    let dying = w.ok(&format!("DELETE {PODS}/web-0?gracePeriodSeconds=5"), "").await;
    assert_eq!(dying["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(dying["metadata"]["deletionTimestamp"].is_string());
    w.ok(&format!("DELETE {PODS}/web-0?gracePeriodSeconds=0"), "").await;
    assert_eq!(w.ask(&format!("GET {PODS}/web-0"), "").await.code, 404);
    // A pod that nobody runs is gone at once.
    w.ok(&format!("POST {PODS}"), &pod("web-1")).await;
    w.ok(&format!("DELETE {PODS}/web-1"), "").await;
    assert_eq!(w.ask(&format!("GET {PODS}/web-1"), "").await.code, 404);
    w.ok(&format!("POST {PODS}"), &pod("web-2")).await;
    let evicted = w
        .ask(
            &format!("POST {PODS}/web-2/eviction"),
            r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"web-2"}}"#,
        )
        .await;
    assert_eq!((evicted.code, w.ask(&format!("GET {PODS}/web-2"), "").await.code), (201, 404));
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let w = World::new().await;
    w.ok(&format!("POST {CM}"), r#"{"metadata":{"name":"a","finalizers":["x.io/y"]}}"#).await;
    let marked = w.ok(&format!("DELETE {CM}/a"), "").await;
    assert_eq!(marked["kind"], "ConfigMap");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    w.merge(&format!("{CM}/a"), r#"{"metadata":{"finalizers":null}}"#).await;
    assert_eq!(w.ask(&format!("GET {CM}/a"), "").await.code, 404);

    w.ok(&format!("POST {SETS}"), SET).await;
    let held = w.ok(&format!("DELETE {SETS}/web?propagationPolicy=Foreground"), "").await;
    assert_eq!(
        (&held["metadata"]["finalizers"], &held["metadata"]["generation"]),
        (&json!(["foregroundDeletion"]), &json!(2))
    );

    let ns = w.ok("DELETE /api/v1/namespaces/http", "").await;
    assert_eq!((&ns["status"]["phase"], &ns["spec"]["finalizers"]), (&json!("Terminating"), &json!(["kubernetes"])));
    let full = w.ask(&format!("POST {CM}"), r#"{"metadata":{"name":"late"}}"#).await;
    assert_eq!(full.code, 403, "{}", full.text);
    let mut finalized = w.get("/api/v1/namespaces/http").await;
    finalized["spec"]["finalizers"] = json!([]);
    w.ok("PUT /api/v1/namespaces/http/finalize", &finalized.to_string()).await;
    assert_eq!(w.ask("GET /api/v1/namespaces/http", "").await.code, 404);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let w = World::new().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        w.ok(&format!("POST {CM}"), &format!(r#"{{"metadata":{{"name":"{name}","labels":{{"l":"{label}"}}}}}}"#)).await;
    }
    let deleted = w.ok(&format!("DELETE {CM}?labelSelector=l%3Dx"), "").await;
    assert_eq!((&deleted["kind"], deleted["items"].as_array().unwrap().len()), (&json!("ConfigMapList"), 2));
    let left = w.get(CM).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn two_versions_show_one_event() {
    let w = World::new().await;
    w.ok("POST /apis/events.k8s.io/v1/namespaces/http/events", r#"{"metadata":{"name":"e"},"eventTime":"2026-01-01T00:00:00.000000Z","action":"Act","reason":"Why","note":"hello","type":"Normal","reportingController":"c","reportingInstance":"i","regarding":{"kind":"Pod","name":"p","namespace":"http"}}"#).await;
    let core = w.get("/api/v1/namespaces/http/events/e").await;
    assert_eq!(
        (&core["apiVersion"], &core["message"], &core["involvedObject"]["name"]),
        (&json!("v1"), &json!("hello"), &json!("p"))
    );
    let newer = w.get("/apis/events.k8s.io/v1/namespaces/http/events?fieldSelector=regarding.name%3Dp").await;
    assert_eq!((&newer["kind"], &newer["items"][0]["note"]), (&json!("EventList"), &json!("hello")));
}

#[tokio::test]
async fn services_never_share_an_address() {
    let w = std::sync::Arc::new(World::new().await);
    let body =
        |i: usize| format!(r#"{{"metadata":{{"name":"s{i}"}},"spec":{{"type":"NodePort","ports":[{{"port":80}}]}}}}"#);
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let (w, body) = (w.clone(), body(i));
            tokio::spawn(async move { w.ok("POST /api/v1/namespaces/http/services", &body).await })
        })
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    for task in tasks {
        let service = task.await.unwrap();
        assert!(seen.insert(service["spec"]["clusterIP"].to_string()));
        assert!(seen.insert(service["spec"]["ports"][0]["nodePort"].to_string()));
    }
    // An address that is given back can be had again.
    let ip = w.get("/api/v1/namespaces/http/services/s0").await["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let wanted = format!(r#"{{"metadata":{{"name":"again"}},"spec":{{"clusterIP":"{ip}","ports":[{{"port":80}}]}}}}"#);
    assert_eq!(w.ask("POST /api/v1/namespaces/http/services", &wanted).await.code, 422);
    w.ok("DELETE /api/v1/namespaces/http/services/s0", "").await;
    w.ok("POST /api/v1/namespaces/http/services", &wanted).await;
}

#[tokio::test]
async fn unknown_fields_are_warned_of_or_refused() {
    let w = World::new().await;
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"nope":1}"#;
    let warned = w.ask(&format!("POST {CM}?dryRun=All"), body).await;
    assert_eq!(
        (warned.code, warned.headers["warning"].to_str().unwrap()),
        (201, "299 - \"unknown field \\\"nope\\\"\"")
    );
    let ignored = w.ask(&format!("POST {CM}?dryRun=All&fieldValidation=Ignore"), body).await;
    assert!(ignored.code == 201 && !ignored.headers.contains_key("warning"));
    let strict = w.ask(&format!("POST {CM}?dryRun=All&fieldValidation=Strict"), body).await;
    assert_eq!(
        strict.line(),
        "400 ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"nope\""
    );
}

#[tokio::test]
async fn server_side_apply() {
    let w = World::new().await;
    let apply = [("content-type", "application/apply-patch+yaml")];
    let one = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"ssa"},"data":{"a":"1"}}"#;
    let two = one.replace(r#""1""#, r#""2""#);
    let url = format!("{CM}/ssa");
    w.ok(&format!("POST {SETS}"), SET).await;
    for (query, body, want) in [
        (
            "",
            one,
            "422 PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        ("?fieldManager=one", one, "201"),
        ("?fieldManager=one", one, "200"),
        ("?fieldManager=two", &two, "409 Apply failed with 1 conflict: conflict with \"one\": .data.a"),
        ("?fieldManager=two", one, "200"),
        ("?fieldManager=two&force=true", &two, "200"),
        (
            "?fieldManager=two",
            &one.replace("ssa", "other"),
            "400 the name of the object (other) does not match the name on the URL (ssa)",
        ),
        (
            "?fieldManager=two",
            r#"{"data":{}}"#,
            "400 Incorrect version specified in apply patch. Specified patch version: , expected: v1",
        ),
        (
            "?fieldManager=two",
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"ssa","managedFields":[{"manager":"x"}]}}"#,
            "400 metadata.managedFields must be nil",
        ),
        (
            "?fieldManager=two",
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"ssa"},"nothere":1}"#,
            "500 failed to create typed patch object (/ssa; /v1, Kind=ConfigMap): .nothere: field not declared in schema",
        ),
    ] {
        let got = w.ask_with(&format!("PATCH {url}{query}"), &apply, body).await;
        assert_eq!(got.line(), want, "{query} {body}");
    }
    let object = w.get(&url).await;
    let managers = object["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(
        (managers.len(), &managers[0]["manager"], &managers[0]["operation"]),
        (1, &json!("two"), &json!("Apply"))
    );
    assert_eq!(managers[0]["fieldsV1"], json!({"f:data": {"f:a": {}}}));
    // Nothing new: nothing written.
    let again = w.ask_with(&format!("PATCH {url}?fieldManager=two"), &apply, &two).await;
    assert_eq!(again.json(), object);
    // A plain update says who made it.
    let changed = w.merge(&format!("{url}?fieldManager=me"), r#"{"data":{"b":"3"}}"#).await;
    assert!(
        changed["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .any(|m| m["manager"] == "me" && m["operation"] == "Update")
    );
    // A Scale is managed as the one field that it is.
    w.merge(&format!("{SETS}/web/scale?fieldManager=scaler"), r#"{"spec":{"replicas":3}}"#).await;
    let set = w.get(&format!("{SETS}/web")).await;
    let scaler =
        set["metadata"]["managedFields"].as_array().unwrap().iter().find(|m| m["manager"] == "scaler").unwrap();
    assert_eq!(
        (&scaler["subresource"], &scaler["fieldsV1"]),
        (&json!("scale"), &json!({"f:spec": {"f:replicas": {}}}))
    );
}

#[tokio::test]
async fn a_created_set_says_who_made_what() {
    let w = World::new().await;
    let answer = w.ask_with(&format!("POST {SETS}"), &[("user-agent", "curl/7.88.1")], SET).await.json();
    let managed = &answer["metadata"]["managedFields"];
    assert_eq!(
        (managed.as_array().unwrap().len(), &managed[0]["manager"], &managed[0]["operation"]),
        (1, &json!("curl"), &json!("Update"))
    );
    let fields = &managed[0]["fieldsV1"]["f:spec"];
    assert_eq!(fields["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"]["f:image"], json!({}));
    assert_eq!((&fields["f:podManagementPolicy"], &fields["f:volumeClaimTemplates"]), (&json!({}), &json!({})));
}

#[tokio::test]
async fn an_eviction_asks_the_disruption_budget() {
    let w = World::new().await;
    for name in ["a", "b"] {
        w.ok(&format!("POST {PODS}"), &pod(name)).await;
        w.merge(
            &format!("{PODS}/{name}/status"),
            r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#,
        )
        .await;
    }
    let budget = "/apis/policy/v1/namespaces/http/poddisruptionbudgets";
    w.ok(
        &format!("POST {budget}"),
        r#"{"metadata":{"name":"p"},"spec":{"minAvailable":1,"selector":{"matchLabels":{"app":"web"}}}}"#,
    )
    .await;
    let evict = async |name: &str| {
        let body = format!(r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{name}"}}}}"#);
        w.ask(&format!("POST {PODS}/{name}/eviction"), &body).await
    };
    let early = evict("a").await;
    assert_eq!(
        (early.code, &early.json()["details"]["causes"][0]["message"]),
        (429, &json!("The disruption budget p is still being processed by the server."))
    );
    w.merge(&format!("{budget}/p/status"), r#"{"status":{"observedGeneration":1,"disruptionsAllowed":1,"currentHealthy":2,"desiredHealthy":1,"expectedPods":2}}"#).await;
    assert_eq!(evict("a").await.code, 201);
    let refused = evict("b").await;
    assert_eq!(refused.line(), "429 Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(
        refused.json()["details"]["causes"][0]["message"],
        "The disruption budget p does not allow evicting pods currently"
    );
    let status = w.get(&format!("{budget}/p")).await["status"].clone();
    assert_eq!((&status["disruptionsAllowed"], status["disruptedPods"]["a"].is_string()), (&json!(0), true));
}

#[tokio::test]
async fn an_eviction_takes_the_pod_as_it_was_seen_or_none() {
    let w = World::new().await;
    w.ok(&format!("POST {PODS}"), &pod("a")).await;
    let seen = w.get(&format!("{PODS}/a")).await["metadata"]["resourceVersion"].clone();
    w.merge(&format!("{PODS}/a"), r#"{"metadata":{"labels":{"more":"yes"}}}"#).await;
    let evict = async |version: &Value| {
        let options = json!({"preconditions": {"resourceVersion": version}});
        let body =
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}, "deleteOptions": options});
        w.ask(&format!("POST {PODS}/a/eviction"), &body.to_string()).await.code
    };
    assert_eq!(evict(&seen).await, 409);
    let now = w.get(&format!("{PODS}/a")).await["metadata"]["resourceVersion"].clone();
    assert_eq!(evict(&now).await, 201);
}
