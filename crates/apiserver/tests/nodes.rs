//! Nodes as callers: what they may do follows pods, roles and bindings at once.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic where a test would")]

mod support;

use serde_json::json;
use stead_apiserver::Identity;
use support::{PODS, World, pod};

const SECRETS: &str = "/api/v1/namespaces/http/secrets";

impl World {
    /// The answer's code when node `one` asks.
    async fn as_node(&self, request: &str) -> u16 {
        let node = World {
            server: self.server.clone(),
            store: self.store.clone(),
            user: Identity::new("system:node:one", &["system:nodes"]),
            dir: tempfile::tempdir().unwrap(),
        };
        node.ask(request, "").await.code
    }

    async fn place(&self, name: &str, node: &str) {
        let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": node}});
        self.ok(&format!("POST {PODS}/{name}/binding"), &binding.to_string()).await;
    }
}

#[tokio::test]
async fn a_node_sees_a_secret_while_a_pod_of_it_needs_it() {
    let world = World::new().await;
    world.ok(&format!("POST {SECRETS}"), r#"{"metadata":{"name":"s"},"stringData":{"k":"v"}}"#).await;
    let asked = format!("GET {SECRETS}/s");
    for name in ["a", "b"] {
        let mut pod: serde_json::Value = serde_json::from_str(&pod(name)).unwrap();
        pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
        world.ok(&format!("POST {PODS}"), &pod.to_string()).await;
    }
    assert_eq!(world.as_node(&asked).await, 403, "no pod is placed");
    world.place("a", "one").await;
    assert_eq!(world.as_node(&asked).await, 200);
    let listed = format!("GET {SECRETS}?fieldSelector=metadata.name%3Ds");
    assert_eq!(world.as_node(&listed).await, 200, "a list of one object by its name");
    assert_eq!(world.as_node(&format!("GET {SECRETS}")).await, 403);
    world.place("b", "two").await;
    world.ok(&format!("DELETE {PODS}/a?gracePeriodSeconds=0"), "").await;
    assert_eq!(world.as_node(&asked).await, 403, "the pod that is left is another node's");
    assert_eq!(world.as_node(&format!("DELETE {PODS}/b?gracePeriodSeconds=0")).await, 403);
    assert_eq!(world.as_node("GET /api/v1/pods?fieldSelector=spec.nodeName%3Done").await, 200);
    assert_eq!(world.as_node("GET /api/v1/pods").await, 403);
    let metrics = world.ask("GET /metrics", "").await.text;
    assert!(metrics.contains("stead_component_requests_refused_total 5"), "{metrics}");
}

#[tokio::test]
async fn rights_come_and_go_with_bindings() {
    let world = World::new().await;
    let jane = World {
        server: world.server.clone(),
        store: world.store.clone(),
        user: Identity::new("jane", &[]),
        dir: tempfile::tempdir().unwrap(),
    };
    let asked = format!("GET {SECRETS}");
    assert_eq!(jane.ask(&asked, "").await.code, 403);
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/http/rolebindings";
    let binding = json!({"metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "late"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    world.ok(&format!("POST {bindings}"), &binding.to_string()).await;
    let text = jane.ask(&asked, "").await.json()["message"].as_str().unwrap().to_owned();
    assert!(text.ends_with("RBAC: clusterrole.rbac.authorization.k8s.io \"late\" not found"), "{text}");
    let role = r#"{"metadata":{"name":"late"},"rules":[{"verbs":["list"],"apiGroups":[""],"resources":["secrets"]}]}"#;
    world.ok("POST /apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
    assert_eq!(jane.ask(&asked, "").await.code, 200);
    assert_eq!(jane.ask("GET /api/v1/secrets", "").await.code, 403, "elsewhere it does not hold");
    world.ok(&format!("DELETE {bindings}/b"), "").await;
    assert_eq!(jane.ask(&asked, "").await.code, 403);
}
