//! May a pod that has come to this node stay? Asked once, before anything is made for it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::Api;
use stead_placement::{Rejection, admit};
use stead_podlife::spec;

use crate::Node;

impl Node {
    /// What stands against the pod, if anything does. A node that has not told the API yet what it has takes every pod.
    ///
    /// # Errors
    /// When the node's own object, with its labels and taints, cannot be read: it cannot be said yet.
    pub(crate) async fn judge(&self, pod: &Arc<Pod>) -> Result<Option<Rejection>, kube::Error> {
        let api: Api<NodeObject> = Api::all(self.client.clone());
        let own = api.get_opt(&self.config.name).await?;
        let known = own.filter(|node| node.status.as_ref().is_some_and(|status| status.allocatable.is_some()));
        let (_, _, uid) = spec::identity(pod);
        let judged = self.pods.admit(uid, |others| match known {
            Some(node) => admit(&Arc::new(node), others, pod),
            None => Ok(()),
        });
        Ok(judged.err())
    }
}
