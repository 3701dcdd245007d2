//! What authorisation knows beside the newest objects: which node needs what, and what bindings give to whom. Both follow
//! the store by events and are brought up to date when they are asked, so an answer is never older than the newest write.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use parking_lot::Mutex;
use stead_admission::authz::{Grants, Graph, Referent};
use stead_store::{Change, Changes, Revision, Store};
use tokio::sync::mpsc::error::TryRecvError;

use crate::lookup::{Memo, StoreLookup};

const PODS: &str = "/registry/pods/";
/// Where roles and their bindings lie.
const RULES: [&str; 4] = [
    "/registry/clusterroles.rbac.authorization.k8s.io/",
    "/registry/clusterrolebindings.rbac.authorization.k8s.io/",
    "/registry/roles.rbac.authorization.k8s.io/",
    "/registry/rolebindings.rbac.authorization.k8s.io/",
];
/// Callers whose grants are kept. When there are more, all are forgotten and gathered again as needed.
const CALLERS_MAX: usize = 4096;

/// The changes below a prefix since it was last looked at.
#[derive(Debug, Default)]
struct Followed {
    changes: Option<Changes>,
}

impl Followed {
    /// Hands every change since the last call to `apply`; `false` when some were missed: [`Followed::restart`] comes next.
    fn drain(&mut self, mut apply: impl FnMut(&Change)) -> bool {
        loop {
            match self.changes.as_mut().map(Changes::try_recv) {
                Some(Ok(change)) => apply(&change),
                Some(Err(TryRecvError::Empty)) => return true,
                Some(Err(TryRecvError::Disconnected)) | None => return false,
            }
        }
    }

    /// Follows from `after` on.
    fn restart(&mut self, store: &dyn Store, prefix: &str, after: Revision) {
        self.changes = store.watch(prefix.as_bytes(), after).now_or_never().and_then(Result::ok);
    }
}

/// Which node needs what.
#[derive(Debug, Default)]
pub(crate) struct Relations(Mutex<RelationsState>);

#[derive(Debug, Default)]
struct RelationsState {
    graph: Graph,
    pods: Followed,
    /// Placed pods by key, with the revision that made them: what they refer to does not change after that, but for
    /// ephemeral containers.
    known: HashMap<Bytes, Revision>,
}

impl Relations {
    pub(crate) fn needs(
        &self,
        lookup: &StoreLookup<'_>,
        (node, namespace): (&str, &str),
        what: Referent,
        name: &str,
    ) -> bool {
        let mut state = self.0.lock();
        state.catch_up(lookup);
        state.graph.needs(node, namespace, what, name)
    }
}

impl RelationsState {
    fn catch_up(&mut self, lookup: &StoreLookup<'_>) {
        let (graph, known) = (&mut self.graph, &mut self.known);
        // After this, every change that the node can have seen is in the channel.
        let _ = lookup.store.delivered();
        if self.pods.drain(|change| apply(graph, known, lookup.memo, change)) {
            return;
        }
        (self.graph, self.known) = Default::default();
        let Some(Ok(range)) = lookup.store.range(PODS.as_bytes(), b"", 0, None).now_or_never() else { return };
        for entry in range.entries {
            let now = Some(entry);
            let key = now.as_ref().map(|entry| entry.key.clone()).unwrap_or_default();
            let change = Change { revision: range.revision, key, now, before: None };
            apply(&mut self.graph, &mut self.known, lookup.memo, &change);
        }
        self.pods.restart(lookup.store, PODS, range.revision);
    }
}

fn apply(graph: &mut Graph, known: &mut HashMap<Bytes, Revision>, memo: &Memo, change: &Change) {
    let key = String::from_utf8_lossy(&change.key);
    let Some(entry) = &change.now else {
        known.remove(&change.key);
        return graph.remove(&key);
    };
    let same = known.get(&change.key) == Some(&entry.created);
    if same && !entry.value.windows(EPHEMERAL.len()).any(|part| part == EPHEMERAL) {
        return;
    }
    let Some(pod) = memo.parse(entry) else { return };
    graph.set(&key, &pod);
    if pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty()) {
        known.insert(change.key.clone(), entry.created);
    } else {
        known.remove(&change.key);
    }
}

const EPHEMERAL: &[u8] = b"\"ephemeralContainers\"";

/// What bindings give to whom.
#[derive(Debug, Default)]
pub(crate) struct Granted(Mutex<GrantedState>);

#[derive(Debug, Default)]
struct GrantedState {
    rules: [Followed; 4],
    /// By user and groups.
    callers: HashMap<(String, Vec<String>), Arc<Grants>>,
}

impl Granted {
    pub(crate) fn of(&self, lookup: &StoreLookup<'_>, user: &str, groups: &[String]) -> Arc<Grants> {
        let mut state = self.0.lock();
        state.catch_up(lookup.store);
        let caller = (user.to_owned(), groups.to_vec());
        if let Some(known) = state.callers.get(&caller) {
            return known.clone();
        }
        let grants = Arc::new(stead_admission::authz::grants(user, groups, lookup));
        if state.callers.len() >= CALLERS_MAX {
            state.callers.clear();
        }
        state.callers.insert(caller, grants.clone());
        grants
    }
}

impl GrantedState {
    fn catch_up(&mut self, store: &dyn Store) {
        let mut changed = false;
        for (followed, prefix) in self.rules.iter_mut().zip(RULES) {
            let after = store.revision();
            if !followed.drain(|_| changed = true) {
                followed.restart(store, prefix, after);
                changed = true;
            }
        }
        if changed {
            self.callers.clear();
        }
    }
}
