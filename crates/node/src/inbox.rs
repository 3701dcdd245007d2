//! What happened to one pod since its worker last looked. Level-triggered: facts are kept, repetitions merge, so it cannot
//! overflow.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use stead_podlife::{ProbeKind, Work};
use tokio::sync::Notify;

/// How a piece of work ended.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub work: Work,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Ok,
    /// The API server has accepted the deletion.
    Deleted,
    Failed,
    /// A container could not be made or started.
    NotStarted {
        reason: String,
        message: String,
    },
    /// Given up, because the pod ends.
    Cancelled,
    /// The command by which the pod hands over has ended.
    HandedOver {
        code: i32,
    },
}

/// An answer to a probe.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub name: String,
    pub kind: ProbeKind,
    pub container: String,
    /// `Err`: what the event says.
    pub result: Result<(), String>,
}

/// Everything since the last look.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub pod: Option<Arc<Pod>>,
    pub gone: bool,
    /// Containers or sandboxes may have changed.
    pub engine: bool,
    pub reference: bool,
    pub done: Vec<Done>,
    pub answers: Vec<Answer>,
    /// The status was written (or not): there may be a newer one to write.
    pub reported: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    news: Mutex<News>,
    notify: Notify,
}

impl Inbox {
    pub(crate) fn pod(&self, pod: Arc<Pod>) {
        self.put(|news| news.pod = Some(pod));
    }

    pub(crate) fn gone(&self) {
        self.put(|news| news.gone = true);
    }

    pub(crate) fn engine_changed(&self) {
        self.put(|news| news.engine = true);
    }

    pub(crate) fn reference_changed(&self) {
        self.put(|news| news.reference = true);
    }

    pub(crate) fn done(&self, work: Work, outcome: Outcome) {
        self.put(|news| news.done.push(Done { work, outcome }));
    }

    pub(crate) fn answer(&self, answer: Answer) {
        self.put(|news| news.answers.push(answer));
    }

    pub(crate) fn reported(&self) {
        self.put(|news| news.reported = true);
    }

    /// Takes everything, at once.
    pub(crate) fn take(&self) -> News {
        std::mem::take(&mut *self.news.lock())
    }

    /// Waits until there is something.
    pub(crate) async fn some(&self) {
        self.notify.notified().await;
    }

    fn put(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.news.lock());
        self.notify.notify_one();
    }
}
