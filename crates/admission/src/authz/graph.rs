//! Which node needs what: the edges from nodes over their pods to what these refer to, kept change by change.
//!
//! Source of the idea: `k8s.io/kubernetes/plugin/pkg/auth/authorizer/node/graph.go`.

use std::collections::HashMap;

use serde_json::Value;

use super::node::{Referent, references};
use crate::view::View;

/// Namespace, kind and name of what a pod refers to.
type Vertex = (String, Referent, String);

/// The edges of all pods that are placed. Pods are known by a key that is the caller's (for example `default/web-0`).
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pods: HashMap<String, (String, Vec<Vertex>)>,
    /// How many pods of each node refer to a vertex.
    needed: HashMap<Vertex, HashMap<String, usize>>,
}

impl Graph {
    /// The pod is now as given.
    pub fn set(&mut self, key: &str, pod: &Value) {
        self.remove(key);
        let node = pod.text("spec.nodeName");
        if node.is_empty() {
            return;
        }
        let namespace = pod.text("metadata.namespace");
        let edges: Vec<Vertex> =
            references(pod).into_iter().map(|(what, name)| (namespace.to_owned(), what, name)).collect();
        for edge in &edges {
            *self.needed.entry(edge.clone()).or_default().entry(node.to_owned()).or_default() += 1;
        }
        self.pods.insert(key.to_owned(), (node.to_owned(), edges));
    }

    /// The pod is gone.
    pub fn remove(&mut self, key: &str) {
        let Some((node, edges)) = self.pods.remove(key) else { return };
        for edge in edges {
            let Some(nodes) = self.needed.get_mut(&edge) else { continue };
            if let Some(count) = nodes.get_mut(&node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&node);
                }
            }
            if nodes.is_empty() {
                self.needed.remove(&edge);
            }
        }
    }

    /// Whether a pod of the node refers to the object.
    #[must_use]
    pub fn needs(&self, node: &str, namespace: &str, what: Referent, name: &str) -> bool {
        let vertex = (namespace.to_owned(), what, name.to_owned());
        self.needed.get(&vertex).is_some_and(|nodes| nodes.contains_key(node))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(node: &str, secret: &str) -> Value {
        json!({"metadata": {"name": "p", "namespace": "ns"},
            "spec": {"nodeName": node, "volumes": [{"name": "s", "secret": {"secretName": secret}}]}})
    }

    #[test]
    fn edges_come_and_go_with_pods() {
        let mut graph = Graph::default();
        let needs = |graph: &Graph, node: &str, name: &str| graph.needs(node, "ns", Referent::Secret, name);
        graph.set("ns/a", &pod("", "s"));
        assert!(!needs(&graph, "", "s"), "a pod without a node gives nobody a right");
        graph.set("ns/a", &pod("one", "s"));
        graph.set("ns/b", &pod("one", "s"));
        graph.set("ns/c", &pod("two", "t"));
        let seen =
            [("one", "s"), ("two", "s"), ("one", "t"), ("two", "t")].map(|(node, name)| needs(&graph, node, name));
        assert_eq!(seen, [true, false, false, true]);
        assert!(
            !graph.needs("one", "other", Referent::Secret, "s") && !graph.needs("one", "ns", Referent::ConfigMap, "s")
        );
        graph.remove("ns/a");
        assert!(needs(&graph, "one", "s"), "another pod of the node still needs it");
        graph.set("ns/b", &pod("one", "u"));
        assert!(!needs(&graph, "one", "s") && needs(&graph, "one", "u"));
        graph.remove("ns/b");
        graph.remove("ns/c");
        assert!(graph.pods.is_empty() && graph.needed.is_empty());
    }
}
