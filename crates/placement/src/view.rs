//! What a placement looks at: nodes with the pods on them, and what there is of storage.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::amounts::Amounts;
use crate::pick::{Labels, node_name};
use crate::pod::PodInfo;
use crate::storage::Storage;

/// The cluster as one placement sees it. Cheap to clone: everything inside is shared.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub(crate) nodes: BTreeMap<Arc<str>, Arc<NodeInfo>>,
    /// Labels of the namespaces.
    pub(crate) namespaces: BTreeMap<String, Arc<Labels>>,
    pub storage: Arc<Storage>,
    /// Pods that shall get a node once their victims are gone, by that node.
    pub(crate) nominated: BTreeMap<Arc<str>, Vec<Arc<PodInfo>>>,
    pub(crate) budgets: Arc<Vec<Arc<PodDisruptionBudget>>>,
}

/// A node and the pods that are on it, or are on their way to it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// `None`: pods are known to be on it, but the node is not known (yet).
    pub node: Option<Arc<Node>>,
    pub pods: BTreeMap<Arc<str>, Arc<PodInfo>>,
    pub allocatable: Amounts,
    pub requested: Amounts,
    pub(crate) scored: Amounts,
    /// How many of the pods have inter-pod affinity of any form: most nodes have none, and are skipped.
    pub(crate) with_affinity: usize,
    /// Pods that stay, by the uid of their controller: what siblings are spread by.
    siblings: HashMap<String, usize>,
}

impl NodeInfo {
    fn new() -> Self {
        Self {
            node: None,
            pods: BTreeMap::new(),
            allocatable: Amounts::default(),
            requested: Amounts::default(),
            scored: Amounts::default(),
            with_affinity: 0,
            siblings: HashMap::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.node.as_ref().map(|node| node_name(node)).unwrap_or_default()
    }

    pub(crate) fn insert(&mut self, pod: Arc<PodInfo>) {
        self.remove(pod.uid());
        self.requested.add(&pod.requests);
        self.scored.add(&pod.scored);
        self.with_affinity += usize::from(pod.has_affinity());
        if let Some(controller) = pod.spread_by() {
            *self.siblings.entry(controller.to_owned()).or_default() += 1;
        }
        self.pods.insert(pod.uid().into(), pod);
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.requested.sub(&pod.requests);
            self.scored.sub(&pod.scored);
            self.with_affinity -= usize::from(pod.has_affinity());
            if let Some(controller) = pod.spread_by()
                && let Some(count) = self.siblings.get_mut(controller)
            {
                *count -= 1;
                if *count == 0 {
                    self.siblings.remove(controller);
                }
            }
        }
    }

    /// How many pods of this controller are here and stay.
    pub(crate) fn siblings(&self, controller: &str) -> usize {
        self.siblings.get(controller).copied().unwrap_or(0)
    }
}

impl View {
    /// Adds a node or takes over its new state. Pods that are known to be on it stay.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let allocatable = Amounts::of(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        let info = self.node_mut(node_name(&node));
        info.allocatable = allocatable;
        info.node = Some(node.clone());
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(info) = self.nodes.get_mut(name) else { return };
        if info.pods.is_empty() {
            self.nodes.remove(name);
        } else {
            Arc::make_mut(info).node = None;
        }
    }

    /// Puts a pod on a node, whether it is bound already or only going to be. Again is the same as once.
    pub fn add_pod(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.node_mut(node).insert(pod);
    }

    pub fn remove_pod(&mut self, node: &str, uid: &str) {
        let Some(info) = self.nodes.get_mut(node) else { return };
        if !info.pods.contains_key(uid) {
            return;
        }
        let info = Arc::make_mut(info);
        info.remove(uid);
        if info.pods.is_empty() && info.node.is_none() {
            self.nodes.remove(node);
        }
    }

    pub fn set_namespace(&mut self, name: &str, labels: Labels) {
        self.namespaces.insert(name.to_owned(), Arc::new(labels));
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Reserves a node for a pod whose victims are being evicted from it.
    pub fn nominate(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.unnominate(pod.uid());
        self.nominated.entry(node.into()).or_default().push(pod);
    }

    pub fn unnominate(&mut self, uid: &str) {
        self.nominated.retain(|_, pods| {
            pods.retain(|pod| pod.uid() != uid);
            !pods.is_empty()
        });
    }

    pub fn set_budgets(&mut self, budgets: Vec<Arc<PodDisruptionBudget>>) {
        self.budgets = Arc::new(budgets);
    }

    /// The storage, to change it.
    pub fn storage_mut(&mut self) -> &mut Storage {
        Arc::make_mut(&mut self.storage)
    }

    /// Nodes that exist, in the order of their names.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeInfo>> {
        self.nodes.values().filter(|info| info.node.is_some())
    }

    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.nodes.get(name)
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = (&Arc<NodeInfo>, &Arc<PodInfo>)> {
        self.nodes().flat_map(|info| info.pods.values().map(move |pod| (info, pod)))
    }

    pub(crate) fn namespace_labels(&self, namespace: &str) -> &Labels {
        static NONE: Labels = Labels::new();
        self.namespaces.get(namespace).map_or(&NONE, |labels| labels)
    }

    /// The same with another state of one node.
    pub(crate) fn with_node(&self, info: NodeInfo) -> Self {
        let mut view = self.clone();
        view.nodes.insert(info.name().into(), Arc::new(info));
        view
    }

    fn node_mut(&mut self, name: &str) -> &mut NodeInfo {
        if !self.nodes.contains_key(name) {
            self.nodes.insert(name.into(), Arc::new(NodeInfo::new()));
        }
        Arc::make_mut(self.nodes.get_mut(name).expect("it was put there just now"))
    }
}
