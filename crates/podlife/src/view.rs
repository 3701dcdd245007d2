//! Everything that a plan may look at: the pod as the API has it, and what the engine says is there.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::memory::Memory;

/// The facts about one pod at one moment. Built in one place (the node's `observe`).
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub pod: &'a Pod,
    /// The object is gone from the API; the pod is taken down with the grace that it last had.
    pub gone: bool,
    /// Sandboxes of this pod, in any order.
    pub sandboxes: &'a [Sandbox],
    /// Containers of this pod, every attempt, of every sandbox, in any order.
    pub containers: &'a [Container],
    /// What the node remembers besides: work under way, failures and their back-off, probe results.
    pub memory: &'a Memory,
    pub now: Timestamp,
}

/// A sandbox of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub ready: bool,
    /// How many sandboxes the pod had before this one.
    pub attempt: u32,
}

/// One attempt of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub sandbox: String,
    pub name: String,
    /// Times the container was started before: `restartCount` while this attempt is the newest.
    pub attempt: u32,
    /// [`crate::spec::hash`] of the specification that it was made from.
    pub hash: String,
    pub image: String,
    pub image_id: String,
    pub state: State,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Made, and not started.
    Created,
    /// The engine starts it at the request of a node process that is gone.
    Starting,
    Running {
        started: Timestamp,
    },
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub started: Timestamp,
    pub finished: Timestamp,
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    /// Why the process could not be started, when it never ran.
    pub start_error: Option<String>,
    /// From `terminationMessagePath`, or the end of the log.
    pub message: Option<String>,
}

impl Container {
    #[must_use]
    pub fn running_since(&self) -> Option<Timestamp> {
        match &self.state {
            State::Running { started } => Some(*started),
            State::Created | State::Starting | State::Exited(_) => None,
        }
    }

    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            State::Exited(exit) => Some(exit),
            State::Created | State::Starting | State::Running { .. } => None,
        }
    }
}

impl<'a> Snapshot<'a> {
    /// The sandbox that containers are started in.
    #[must_use]
    pub fn sandbox(&self) -> Option<&'a Sandbox> {
        self.sandboxes.iter().filter(|sandbox| sandbox.ready).max_by_key(|sandbox| sandbox.attempt)
    }

    /// The newest attempt of a container, in whichever sandbox.
    #[must_use]
    pub fn newest(&self, name: &str) -> Option<&'a Container> {
        self.containers.iter().filter(|container| container.name == name).max_by_key(|container| container.attempt)
    }

    /// The newest attempt in the current sandbox.
    #[must_use]
    pub fn current(&self, name: &str) -> Option<&'a Container> {
        let sandbox = self.sandbox()?;
        self.newest(name).filter(|container| container.sandbox == sandbox.id)
    }

    /// The attempt before the newest one.
    #[must_use]
    pub fn previous(&self, name: &str) -> Option<&'a Container> {
        let newest = self.newest(name)?;
        self.containers
            .iter()
            .filter(|container| container.name == name && container.attempt < newest.attempt)
            .max_by_key(|container| container.attempt)
    }

    /// Containers whose process runs.
    pub fn running(&self) -> impl Iterator<Item = &'a Container> {
        self.containers.iter().filter(|container| container.running_since().is_some())
    }
}
