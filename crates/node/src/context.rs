//! One pod as its tasks see it: the object as it was when the task began, and the way back to the worker.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Resource;
use parking_lot::Mutex;
use stead_informer::Severity;
use stead_podlife::spec::{self, Role};
use tokio_util::sync::CancellationToken;

use crate::Node;
use crate::inbox::Inbox;
use crate::volumes::{Mounted, Tokens};

/// Cheap to clone; every task of a pod has one.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub node: Arc<Node>,
    pub pod: Arc<Pod>,
    pub uid: String,
    pub inbox: Arc<Inbox>,
    pub mounted: Arc<Mutex<Mounted>>,
    pub tokens: Arc<Tokens>,
    /// Ends pulls and hooks of a pod that is ending.
    pub cancel: CancellationToken,
}

impl Context {
    /// Tells an event of the pod.
    pub(crate) fn event(&self, severity: Severity, reason: &str, message: &str) {
        self.node.recorder.event_ref(self.reference(), severity, reason, message);
    }

    /// Tells an event of one of its containers.
    pub(crate) fn event_of(&self, container: &str, severity: Severity, reason: &str, message: &str) {
        let list = match spec::role(&self.pod, container) {
            Some(Role::Init | Role::Sidecar) => "initContainers",
            Some(Role::Ephemeral) => "ephemeralContainers",
            Some(Role::Main) | None => "containers",
        };
        let regarding = ObjectReference { field_path: Some(format!("spec.{list}{{{container}}}")), ..self.reference() };
        self.node.recorder.event_ref(regarding, severity, reason, message);
    }

    fn reference(&self) -> ObjectReference {
        self.pod.object_ref(&())
    }
}
