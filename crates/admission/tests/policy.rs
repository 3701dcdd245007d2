//! What the plugins change and refuse: namespaces, limits, quota, priority, nodes; and who may do what.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tables of stories")]

mod support;

use serde_json::{Value, json};
use stead_admission::authz::{Attributes, Decision, Resource, Target, authorize, bootstrap, forbidden};
use stead_admission::{create, delete, quota_usage, update};
use support::{Fixed, World, kind_of, with_context};

fn pod(name: &str, resources: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "obj", "uid": "1"},
        "spec": {"containers": [{"name": "c", "image": "i:1", "resources": resources}]}})
}

fn made(world: &World, object: &Value) -> Result<Value, Value> {
    let mut object = object.clone();
    let fixed = Fixed::new("10.96.1.1", 30001);
    with_context(world, &fixed, "abcde", |ctx| create(kind_of(&object.clone()), &mut object, ctx))
        .map(|_| object)
        .map_err(|e| e.to_status())
}

fn refusal(result: Result<Value, Value>) -> String {
    result.expect_err("refused")["message"].as_str().unwrap().to_owned()
}

#[test]
fn namespaces() {
    let mut world = World::new();
    let mut dying = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dying"}});
    dying["metadata"]["deletionTimestamp"] = "2026-11-20T14:00:00Z".into();
    world.add(dying);
    let mut object = pod("p", json!({}));
    object["metadata"]["namespace"] = "dying".into();
    let status = made(&world, &object).expect_err("refused");
    assert_eq!(
        status["message"],
        "pods \"p\" is forbidden: unable to create new content in namespace dying because it is being terminated"
    );
    assert_eq!(status["details"]["causes"][0]["reason"], "NamespaceTerminating");
    object["metadata"]["namespace"] = "nowhere".into();
    let status = made(&world, &object).expect_err("refused");
    assert_eq!((&status["message"], &status["code"]), (&json!("namespaces \"nowhere\" not found"), &json!(404)));
    for (name, allowed) in [("default", false), ("kube-system", false), ("kube-public", false), ("obj", true)] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let fixed = Fixed::new("", 0);
        let result = with_context(&world, &fixed, "", |ctx| delete(kind_of(&namespace), &namespace, ctx));
        let text = format!("namespaces {name:?} is forbidden: this namespace may not be deleted");
        assert_eq!(result.map_err(|e| e.message), if allowed { Ok(()) } else { Err(text) });
    }
}

#[test]
fn limits() {
    let mut world = World::new();
    world.add(json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l", "namespace": "obj"}, "spec": {"limits": [
        {"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}]}}));
    let filled = made(&world, &pod("p", json!({}))).unwrap();
    let resources = &filled["spec"]["containers"][0]["resources"];
    assert_eq!(resources, &json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}));
    assert_eq!(filled["status"]["qosClass"], "Burstable");
    let note = &filled["metadata"]["annotations"]["kubernetes.io/limit-ranger"];
    assert_eq!(note, "LimitRanger plugin set: cpu request for container c; cpu limit for container c");
    let text = refusal(made(&world, &pod("toomuch", json!({"limits": {"cpu": "3"}}))));
    assert_eq!(text, "pods \"toomuch\" is forbidden: maximum cpu usage per Container is 1, but limit is 3");
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "toobig", "namespace": "obj"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}});
    let text = refusal(made(&world, &claim));
    assert_eq!(
        text,
        "persistentvolumeclaims \"toobig\" is forbidden: maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 5Gi"
    );
}

#[test]
fn runtime_classes() {
    let mut world = World::new();
    world.add(
        json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "kata"}, "handler": "kata",
        "overhead": {"podFixed": {"cpu": "250m"}}, "scheduling": {"nodeSelector": {"kata": "yes"},
        "tolerations": [{"key": "kata", "operator": "Exists", "effect": "NoSchedule"}]}}),
    );
    world.add(json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "bare"}, "handler": "bare"}));
    let with = |class: &str, more: Value| {
        let mut object = pod("p", json!({}));
        object["spec"]["runtimeClassName"] = class.into();
        for (key, value) in more.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        made(&world, &object)
    };
    let kata = with("kata", json!({"nodeSelector": {"a": "b"}})).unwrap();
    assert_eq!(kata["spec"]["overhead"], json!({"cpu": "250m"}));
    assert_eq!(kata["spec"]["nodeSelector"], json!({"a": "b", "kata": "yes"}));
    assert_eq!(kata["spec"]["tolerations"].as_array().unwrap().iter().filter(|one| one["key"] == "kata").count(), 1);
    assert!(with("kata", json!({"overhead": {"cpu": "0.25"}})).is_ok());
    for (class, more, why) in [
        ("gone", json!({}), "pod rejected: RuntimeClass \"gone\" not found"),
        (
            "kata",
            json!({"overhead": {"cpu": "1"}}),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            "bare",
            json!({"overhead": {"cpu": "1"}}),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            "kata",
            json!({"nodeSelector": {"kata": "no"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[kata] = yes; pod.spec.nodeSelector[kata] = no",
        ),
    ] {
        assert_eq!(refusal(with(class, more)), format!("pods \"p\" is forbidden: {why}"));
    }
}

#[test]
fn quotas() {
    let mut world = World::new();
    world.add(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "obj"},
        "spec": {"hard": {"pods": "2", "requests.cpu": "100m"}}}));
    let small = json!({"requests": {"cpu": "40m"}});
    let text = refusal(made(&world, &pod("extra", json!({}))));
    assert_eq!(text, "pods \"extra\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    for name in ["a", "b"] {
        let object = made(&world, &pod(name, small.clone())).unwrap();
        world.add(object);
    }
    let text = refusal(made(&world, &pod("extra", small.clone())));
    assert_eq!(
        text,
        "pods \"extra\" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=40m, used: pods=2,requests.cpu=80m, limited: pods=2,requests.cpu=100m"
    );
    // A pod that has ended does not count.
    let mut ended = world.objects.pop().map(|(_, object)| (*object).clone()).unwrap();
    ended["status"]["phase"] = "Succeeded".into();
    world.add(ended);
    assert!(made(&world, &pod("extra", small)).is_ok());
    // A quota is counted by its short name too.
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "obj"}});
    let counted: Vec<String> = quota_usage(kind_of(&quota), &quota).into_keys().collect();
    assert_eq!(counted, ["count/resourcequotas", "resourcequotas"]);
}

#[test]
fn priorities_and_tolerations() {
    let mut world = World::new();
    let class = |name: &str, value: i64, default: bool| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "globalDefault": default, "preemptionPolicy": "Never"})
    };
    world.add(class("high", 1000, false));
    world.add(class("usual", 10, true));
    let usual = made(&world, &pod("p", json!({}))).unwrap();
    assert_eq!((&usual["spec"]["priority"], &usual["spec"]["priorityClassName"]), (&json!(10), &json!("usual")));
    let mut object = pod("p", json!({}));
    object["spec"]["priorityClassName"] = "high".into();
    object["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    let high = made(&world, &object).unwrap();
    assert_eq!((&high["spec"]["priority"], &high["spec"]["preemptionPolicy"]), (&json!(1000), &json!("Never")));
    assert_eq!(high["spec"]["tolerations"].as_array().unwrap().len(), 1);
    let text = refusal(made(&world, &class("second", 1, true)));
    assert_eq!(
        text,
        "priorityclasses.scheduling.k8s.io \"second\" is forbidden: PriorityClass usual is already marked as default. Only one default can exist"
    );
}

#[test]
fn claims_get_the_newest_default_class() {
    let mut world = World::new();
    world.add(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "x", "metadata": {
        "name": "newer", "creationTimestamp": "2026-11-20T14:00:00Z",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}));
    let claim = |class: Value| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "obj"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}}})
    };
    for (given, class) in [(json!(null), "newer"), (json!(""), ""), (json!("standard"), "standard")] {
        assert_eq!(made(&world, &claim(given)).unwrap()["spec"]["storageClassName"], class);
    }
}

#[test]
fn what_a_node_may_write() {
    let world = World::new();
    let fixed = Fixed::new("", 0);
    let old = made(&world, &pod("p", json!({}))).unwrap();
    let bound = |node: &str| {
        let mut pod = old.clone();
        pod["spec"]["nodeName"] = node.into();
        pod["metadata"]["resourceVersion"] = "1".into();
        pod
    };
    let as_node = |old: &Value, sub| {
        let mut new = old.clone();
        new["status"]["phase"] = "Running".into();
        let (groups, mut random) = (vec!["system:nodes".to_owned()], |_: usize| String::new());
        let mut ctx = stead_admission::Context {
            now: jiff::Timestamp::UNIX_EPOCH,
            user: "system:node:peer",
            groups: &groups,
            lookup: &world,
            random: &mut random,
            addresses: &fixed,
            dry_run: false,
        };
        update(kind_of(old), &mut new, old, sub, &mut ctx).map(|_| new).map_err(|e| e.message)
    };
    let status = Some(stead_api::Subresource::Status);
    assert_eq!(as_node(&bound("peer"), status).unwrap()["status"]["phase"], "Running");
    assert_eq!(
        as_node(&bound("other"), status),
        Err("pods \"p\" is forbidden: node \"peer\" can only update pod status for pods with spec.nodeName set to itself".to_owned())
    );
    assert!(as_node(&bound("peer"), None).is_err());
}

fn ask<'a>(user: &'a str, groups: &'a [String], verb: &'a str, target: Target<'a>) -> Attributes<'a> {
    Attributes { user, groups, verb, target }
}

fn of<'a>(group: &'a str, resource: &'a str, namespace: &'a str, name: &'a str) -> Target<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Target::Resource(Resource { group, resource, subresource, namespace, name, selector: "" })
}

fn authority() -> World {
    let mut world = World::new();
    world.add(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "err"}}));
    bootstrap::objects().into_iter().for_each(|object| world.add(object));
    let bind = |name: &str, role: Value, subject: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": "err"}, "roleRef": role, "subjects": [subject]})
    };
    let viewer = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    world.add(bind("viewer", viewer, json!({"kind": "User", "name": "vera"})));
    world.add(bind("own", json!({"kind": "Role", "name": "one"}), json!({"kind": "ServiceAccount", "name": "app"})));
    world.add(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "one", "namespace": "err"},
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["c"]},
            {"verbs": ["update"], "apiGroups": ["*"], "resources": ["*/scale"]}]}));
    world
}

#[test]
fn who_may_do_what() {
    let world = authority();
    let authenticated = vec!["system:authenticated".to_owned()];
    let masters = vec!["system:masters".to_owned()];
    let app = "system:serviceaccount:err:app";
    let stories = [
        ("jane", &authenticated, "list", of("", "pods", "err", ""), false),
        ("jane", &authenticated, "get", Target::Path("/api/v1"), true),
        ("jane", &authenticated, "get", Target::Path("/metrics"), false),
        ("jane", &authenticated, "create", of("authorization.k8s.io", "selfsubjectaccessreviews", "", ""), true),
        ("jane", &masters, "delete", of("", "nodes", "", "x"), true),
        ("vera", &authenticated, "list", of("", "pods", "err", ""), true),
        ("vera", &authenticated, "get", of("", "pods/log", "err", "web-0"), true),
        ("vera", &authenticated, "get", of("", "secrets", "err", "s"), false),
        ("vera", &authenticated, "list", of("", "pods", "other", ""), false),
        ("vera", &authenticated, "delete", of("apps", "statefulsets", "err", "web"), false),
        (app, &authenticated, "get", of("", "configmaps", "err", "c"), true),
        (app, &authenticated, "get", of("", "configmaps", "err", "d"), false),
        (app, &authenticated, "update", of("apps", "statefulsets/scale", "err", "web"), true),
        ("system:serviceaccount:other:app", &authenticated, "get", of("", "configmaps", "err", "c"), false),
        ("system:kube-scheduler", &authenticated, "create", of("", "pods/binding", "err", "p"), true),
        (
            "system:serviceaccount:kube-system:statefulset-controller",
            &authenticated,
            "create",
            of("", "pods", "err", ""),
            true,
        ),
    ];
    for (user, groups, verb, target, allowed) in stories {
        let decision = authorize(&ask(user, groups, verb, target), &world);
        assert_eq!(decision.allowed(), allowed, "{user} {verb} {target:?}");
    }
    let question = ask("vera", &authenticated, "list", of("", "pods", "err", ""));
    let reason = "RBAC: allowed by RoleBinding \"viewer/err\" of ClusterRole \"view\" to User \"vera\"";
    assert_eq!(authorize(&question, &world), Decision::Allow(reason.to_owned()));
}

#[test]
fn refusals() {
    let stories = [
        (
            "list",
            of("", "pods", "http", ""),
            "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"http\"",
        ),
        (
            "list",
            of("", "nodes", "", ""),
            "nodes is forbidden: User \"jane\" cannot list resource \"nodes\" in API group \"\" at the cluster scope",
        ),
        (
            "delete",
            of("apps", "statefulsets", "http", "web"),
            "statefulsets.apps \"web\" is forbidden: User \"jane\" cannot delete resource \"statefulsets\" in API group \"apps\" in the namespace \"http\"",
        ),
        ("get", Target::Path("/metrics"), "forbidden: User \"jane\" cannot get path \"/metrics\""),
    ];
    for (verb, target, text) in stories {
        let question = ask("jane", &[], verb, target);
        assert_eq!(forbidden(&question, &Decision::NoOpinion(String::new())).message, text);
    }
}

/// A pod on node `peer` that refers to one of each, a pod elsewhere, and volumes of both.
fn world_of_nodes() -> World {
    let mut world = authority();
    let mut own = pod("p", json!({}));
    own["spec"]["nodeName"] = "peer".into();
    own["spec"]["serviceAccountName"] = "default".into();
    own["spec"]["imagePullSecrets"] = json!([{"name": "pull"}]);
    own["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    own["spec"]["volumes"] = json!([
        {"name": "s", "secret": {"secretName": "mine"}}, {"name": "c", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
        {"name": "all", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}},
            {"serviceAccountToken": {"path": "token"}}, {"serviceAccountToken": {"path": "vault", "audience": "vault"}}]}},
    ]);
    world.add(own);
    let mut elsewhere = pod("q", json!({}));
    elsewhere["spec"]["nodeName"] = "other".into();
    elsewhere["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "other"}}]);
    world.add(elsewhere);
    let volume = |name: &str, claim: &str| {
        let key = json!({"namespace": "vault", "name": format!("key-of-{name}")});
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {"claimRef": {"namespace": "obj", "name": claim}, "csi": {"nodeStageSecretRef": key}}})
    };
    world.add(volume("pv", "data"));
    world.add(volume("pv2", "foreign"));
    world
}

/// The question that a story in words asks: `get secrets obj/mine`, `watch pods ?spec.nodeName=peer`.
fn asked<'a>(user: &'a str, groups: &'a [String], story: &'a str) -> Attributes<'a> {
    let mut words = story.split(' ');
    let (verb, full, what) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or(""));
    let (resource, group) = full.split_once('.').unwrap_or((full, ""));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (place, selector) = what.split_once('?').unwrap_or((what, ""));
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    ask(user, groups, verb, Target::Resource(Resource { group, resource, subresource, namespace, name, selector }))
}

#[test]
fn a_node_sees_what_its_pods_need() {
    let world = world_of_nodes();
    let groups = vec!["system:nodes".to_owned(), "system:authenticated".to_owned()];
    let stories = [
        ("get secrets obj/mine", true),
        ("watch secrets obj/mine", true),
        ("get secrets obj/pull", true),
        ("get secrets vault/key-of-pv", true),
        ("watch secrets vault/key-of-pv", false),
        ("get secrets obj/key-of-pv", false),
        ("get secrets vault/key-of-pv2", false),
        ("get secrets obj/other", false),
        ("get secrets err/mine", false),
        ("update secrets obj/mine", false),
        ("list secrets obj/", false),
        ("list secrets", false),
        ("get configmaps obj/settings", true),
        ("watch configmaps obj/kube-root-ca.crt", true),
        ("get configmaps obj/mine", false),
        ("get persistentvolumeclaims obj/data", true),
        ("get persistentvolumeclaims obj/p-scratch", true),
        ("patch persistentvolumeclaims/status obj/data", true),
        ("delete persistentvolumeclaims obj/data", false),
        ("update persistentvolumeclaims obj/data", false),
        ("get persistentvolumes pv", true),
        ("get persistentvolumes pv2", false),
        ("list persistentvolumes", false),
        ("delete persistentvolumes pv", false),
        ("create serviceaccounts/token obj/default", true),
        ("create serviceaccounts/token obj/admin", false),
        ("get serviceaccounts obj/default", false),
        ("update leases.coordination.k8s.io kube-node-lease/peer", true),
        ("create leases.coordination.k8s.io kube-node-lease/", true),
        ("update leases.coordination.k8s.io kube-node-lease/other", false),
        ("update leases.coordination.k8s.io kube-system/peer", false),
        ("get nodes peer", true),
        ("get nodes other", false),
        ("list nodes", false),
        ("patch nodes/status peer", true),
        ("delete nodes peer", false),
        ("watch pods ?spec.nodeName=peer", true),
        ("list pods ?metadata.name=p,spec.nodeName==peer", true),
        ("list pods ?spec.nodeName=other", false),
        ("watch pods", false),
        ("get pods obj/p", true),
        ("get pods obj/q", false),
        ("patch pods/status obj/p", true),
        ("create pods/exec obj/p", false),
        ("create pods/binding obj/p", false),
        ("delete statefulsets.apps obj/web", false),
        ("list services", true),
        ("create events obj/", true),
    ];
    for (story, allowed) in stories {
        let decision = authorize(&asked("system:node:peer", &groups, story), &world);
        assert_eq!(decision.allowed(), allowed, "{story}: {decision:?}");
    }
    let refusals = [
        ("get secrets obj/other", "no relationship found between node 'peer' and this object"),
        ("get nodes other", "node 'peer' cannot read 'other', only its own Node object"),
        ("watch pods", "can only list/watch pods with spec.nodeName field selector"),
    ];
    for (story, text) in refusals {
        let decision = authorize(&asked("system:node:peer", &groups, story), &world);
        assert_eq!(decision, Decision::NoOpinion(text.to_owned()), "{story}");
    }
    let stranger = authorize(&asked("system:node:peer", &groups[1..], "get secrets obj/mine"), &world);
    assert!(!stranger.allowed(), "only members of system:nodes are nodes");
}

#[test]
fn components_have_what_they_need_and_no_more() {
    let world = world_of_nodes();
    let groups = vec!["system:authenticated".to_owned()];
    let stories = [
        ("system:kube-proxy", "watch nodes", true),
        ("system:kube-proxy", "list endpointslices.discovery.k8s.io", true),
        ("system:kube-proxy", "list secrets", false),
        ("system:serviceaccount:kube-system:coredns", "watch namespaces", true),
        ("system:serviceaccount:kube-system:coredns", "create services kube-system/", false),
        ("system:serviceaccount:kube-system:cluster-dns", "create services kube-system/", true),
        ("system:serviceaccount:kube-system:cluster-dns", "create services default/", false),
        ("system:serviceaccount:kube-system:local-provisioner", "delete persistentvolumes pv", true),
        ("system:serviceaccount:kube-system:local-provisioner", "get secrets obj/mine", false),
        ("system:serviceaccount:kube-system:statefulset-controller", "patch statefulsets.apps obj/web", true),
        ("system:serviceaccount:kube-system:statefulset-controller", "get secrets obj/mine", false),
        ("system:kube-scheduler", "patch persistentvolumeclaims obj/data", true),
        ("system:kube-scheduler", "create pods obj/", false),
        ("system:kube-controller-manager", "watch statefulsets.apps", true),
        ("system:kube-controller-manager", "create pods obj/", false),
    ];
    for (user, story, allowed) in stories {
        let decision = authorize(&asked(user, &groups, story), &world);
        assert_eq!(decision.allowed(), allowed, "{user}: {story}: {decision:?}");
    }
}

#[test]
fn a_node_touches_only_pods_of_its_own() {
    let world = world_of_nodes();
    let groups = vec!["system:nodes".to_owned()];
    let kind = kind_of(&json!({"apiVersion": "v1", "kind": "ServiceAccount"}));
    let token = |reference: Value, audiences: Value| {
        let account = (kind, "obj", "default");
        let spec = json!({"boundObjectRef": reference, "audiences": audiences});
        stead_admission::node_token(("system:node:peer", &groups), account, &spec, &world).map_err(|e| e.message)
    };
    let for_api = |reference: Value| token(reference, json!([]));
    let of = |pod: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": "1"});
    let refused = |why: &str| Err(format!("serviceaccounts \"default\" is forbidden: {why}"));
    assert_eq!(for_api(of("p")), Ok(()));
    assert_eq!(token(of("p"), json!(["vault"])), Ok(()));
    assert_eq!(token(of("p"), json!(["other"])), refused("audience \"other\" not found in pod spec volume"));
    assert_eq!(token(of("p"), json!(["vault", "other"])), refused("node may only request 0 or 1 audiences"));
    assert_eq!(for_api(of("q")), refused("node requested token bound to a pod scheduled on a different node"));
    assert_eq!(for_api(Value::Null), refused("node requested token not bound to a pod"));
    let without_uid = json!({"apiVersion": "v1", "kind": "Pod", "name": "p"});
    assert_eq!(for_api(without_uid), refused("node requested token with a pod binding without a uid"));

    let delete_as_peer = |name: &str| {
        let (mut random, fixed) = (|_: usize| String::new(), Fixed::new("", 0));
        let ctx = stead_admission::Context {
            now: jiff::Timestamp::UNIX_EPOCH,
            user: "system:node:peer",
            groups: &groups,
            lookup: &world,
            random: &mut random,
            addresses: &fixed,
            dry_run: false,
        };
        let pod = world.objects.iter().find(|(_, object)| object["metadata"]["name"] == name).unwrap();
        delete(pod.0, &pod.1, &ctx).map_err(|e| e.message)
    };
    assert_eq!(delete_as_peer("p"), Ok(()));
    let text = "pods \"q\" is forbidden: node \"peer\" can only delete pods with spec.nodeName set to itself";
    assert_eq!(delete_as_peer("q"), Err(text.to_owned()));
}

#[test]
fn nobody_grants_what_he_has_not() {
    let world = authority();
    let as_vera = |mut object: Value| {
        object["metadata"]["uid"] = "1".into();
        let (groups, mut random) = (vec!["system:authenticated".to_owned()], |_: usize| String::new());
        let fixed = Fixed::new("", 0);
        let mut ctx = stead_admission::Context {
            now: jiff::Timestamp::UNIX_EPOCH,
            user: "vera",
            groups: &groups,
            lookup: &world,
            random: &mut random,
            addresses: &fixed,
            dry_run: false,
        };
        create(kind_of(&object.clone()), &mut object, &mut ctx).map_err(|e| e.message)
    };
    let rbac = "rbac.authorization.k8s.io/v1";
    let role = |verbs: Value| {
        json!({"apiVersion": rbac, "kind": "Role", "metadata": {"name": "r", "namespace": "err"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]})
    };
    let binding = |name: &str| {
        json!({"apiVersion": rbac, "kind": "RoleBinding", "metadata": {"name": "b", "namespace": "err"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]})
    };
    assert!(as_vera(role(json!(["get", "list"]))).is_ok());
    assert_eq!(
        as_vera(role(json!(["get", "delete"]))),
        Err("roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"vera\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\" \"delete\"]}".to_owned())
    );
    assert!(as_vera(binding("view")).is_ok());
    assert!(as_vera(binding("cluster-admin")).is_err_and(|text| text.contains("not currently held")));
    assert_eq!(as_vera(binding("none")), Err("clusterrole.rbac.authorization.k8s.io \"none\" not found".to_owned()));
}

#[test]
fn what_a_node_may_say_of_itself_and_of_claims() {
    let world = world_of_nodes();
    let changed = |old: &Value, change: Value, sub: Option<stead_api::Subresource>| {
        let (groups, mut random) = (vec!["system:nodes".to_owned()], |_: usize| String::new());
        let fixed = Fixed::new("", 0);
        let mut ctx = stead_admission::Context {
            now: jiff::Timestamp::UNIX_EPOCH,
            user: "system:node:peer",
            groups: &groups,
            lookup: &world,
            random: &mut random,
            addresses: &fixed,
            dry_run: false,
        };
        let mut new = old.clone();
        support::merge(&mut new, &change);
        update(kind_of(old), &mut new, old, sub, &mut ctx).map(|_| ()).map_err(|e| e.message)
    };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "peer", "uid": "1", "resourceVersion": "1",
        "labels": {"kubernetes.io/os": "linux", "node-role.kubernetes.io/x": ""}}});
    let labels = |labels: Value| changed(&node, json!({"metadata": {"labels": labels}}), None);
    assert_eq!(labels(json!({"disk": "fast", "node.kubernetes.io/x": "y"})), Ok(()));
    let text = "nodes \"peer\" is forbidden: is not allowed to modify labels: ";
    assert_eq!(labels(json!({"a.k8s.io/b": "c"})), Err(format!("{text}a.k8s.io/b")));
    assert_eq!(labels(json!({"node-role.kubernetes.io/x": null})), Err(format!("{text}node-role.kubernetes.io/x")));

    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "obj", "uid": "1", "resourceVersion": "1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Filesystem", "volumeName": "pv"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    let status = |change: Value| changed(&claim, json!({"status": change}), Some(stead_api::Subresource::Status));
    assert_eq!(status(json!({"capacity": {"storage": "2Gi"}})), Ok(()));
    let text = "persistentvolumeclaims \"data\" is forbidden: node \"peer\" is not allowed to update fields other than status.capacity and status.conditions";
    assert_eq!(status(json!({"phase": "Lost"})), Err(text.to_owned()));
}

#[test]
fn pod_security() {
    let mut world = World::default();
    let labels =
        json!({"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "baseline"});
    world.add(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "obj", "labels": labels}}));
    world.add(
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "obj"}}),
    );
    let text = refusal(made(&world, &pod("p", json!({}))));
    assert_eq!(
        text,
        "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    let mut tight = pod("p", json!({}));
    tight["spec"]["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    tight["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    assert!(made(&world, &tight).is_ok());
    let mut loose = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web", "namespace": "obj", "uid": "1"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"hostNetwork": true,
            "containers": [{"name": "c", "image": "i:1", "securityContext": {"privileged": true, "capabilities": {"add": ["NET_ADMIN"]}}}],
            "volumes": [{"name": "h", "hostPath": {"path": "/x"}}]}}}});
    let fixed = Fixed::new("", 0);
    let warnings =
        with_context(&world, &fixed, "abcde", |ctx| create(kind_of(&loose.clone()), &mut loose, ctx)).unwrap();
    assert_eq!(
        warnings,
        [
            "would violate PodSecurity \"baseline:latest\": non-default capabilities (container \"c\" must not include \"NET_ADMIN\" in securityContext.capabilities.add), host namespaces (hostNetwork=true), hostPath volumes (volume \"h\"), privileged (container \"c\" must not set securityContext.privileged=true)"
        ]
    );
}

#[test]
fn wishes_of_a_set_that_cannot_be_understood_are_told() {
    let world = World::new();
    let fixed = Fixed::new("", 0);
    let warned = |key: &str, value: &str| {
        let mut set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "web", "namespace": "obj", "uid": "1", "annotations": {key: value}},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]},
            }},
        });
        with_context(&world, &fixed, "abcde", |ctx| create(kind_of(&set.clone()), &mut set, ctx)).unwrap()
    };
    for (key, value) in [
        ("heal", "false"),
        ("paused", "true"),
        ("progress-deadline-seconds", "600"),
        ("reserve-ordinals", "1,4-6"),
        ("stop-ordinals", ""),
        ("depends-on", "db, queue"),
        ("update-last", "role=leader"),
        ("evict", "true"),
        ("grow-claims", "true"),
        ("hand-over", "wait"),
        ("hand-over-seconds", "5"),
        ("hand-over-container", "c"),
        ("overrides", "0: {spec: {containers: [{name: c, image: \"i:2\"}]}}"),
        ("rolled-back-from", "web-1"),
    ] {
        assert_eq!(warned(&format!("stead.dev/{key}"), value), Vec::<String>::new(), "{key}");
    }
    assert_eq!(warned("example.com/paused", "yes"), Vec::<String>::new(), "others' annotations are others' business");
    for (key, value, expected) in [
        ("heal", "no", "\"no\" counts as not given: \"true\" or \"false\" is expected"),
        ("progress-deadline-seconds", "10m", "\"10m\" counts as not given: a number of seconds above 0 is expected"),
        (
            "stop-ordinals",
            "1;2",
            "\"1;2\" counts as not given: a list of ordinals and ranges such as \"1,4-6\" is expected",
        ),
        (
            "hand-over",
            "leave",
            "\"leave\" counts as not given: a command as a JSON list such as [\"redis-cli\", \"failover\"], or \"wait\", is expected",
        ),
        ("hand-over-seconds", "9999", "\"9999\" counts as not given: a number of seconds from 1 to 3600 is expected"),
        ("hand-over-container", "d", "\"d\" counts as not given: the name of a container of the template is expected"),
        ("pause", "true", "there is no such annotation for StatefulSets, and it does nothing"),
        (
            "overrides",
            "0: {metadata: {labels: {a: x}}}",
            "pods are neither made nor replaced with these overrides: \"0\": the label a is not for a patch to change: the set knows its pods by it",
        ),
        (
            "overrides",
            "0: {spec: {containers: [{name: c, resources: {requests: {cpu: -1}}}]}}",
            "the pods of \"0\" will be refused: spec.template.spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
    ] {
        assert_eq!(
            warned(&format!("stead.dev/{key}"), value),
            [format!("metadata.annotations[stead.dev/{key}]: {expected}")]
        );
    }
}
