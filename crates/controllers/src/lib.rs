//! The control loops: each brings one kind of object from what is to what is wanted.
//!
//! Every controller has the same shape, so that the tenth reads like the first:
//!
//! ```text
//! observe(key)  caches -> Snapshot          controllers::<name>::observe    looks, never writes
//! plan          Snapshot -> Plan            workloads::<name>::plan         pure: the decision
//! execute       Plan -> API calls, events   controllers::<name>::execute    does, never decides
//! ```
//!
//! # How to add one
//! 1. Put the decision into `stead-workloads` as a pure `plan(&Snapshot) -> Plan`, with its stories.
//! 2. Here, make a folder or file `src/<name>` with a type that implements [`Controller`]:
//!    - [`Controller::start`] opens the caches it reads (`cx.caches.of::<K>()`), adds the indexes it looks things up
//!      by, and says which change wakes which key ([`sources`]);
//!    - [`Controller::synced`] waits for those caches;
//!    - [`Controller::reconcile`] is observe, plan, execute. It must be harmless to run it at any time, twice, or
//!      from the middle after a crash: names are deterministic, creation is create-if-absent.
//! 3. Report every write with [`OwnWrites`] where acting twice on a state from before one's own write would do harm
//!    (creating pods with generated names, deleting one more): the frame then waits until the caches have seen it.
//! 4. Add a line to [`registry::all`].
//!
//! ```text
//! pub struct Example { pods: Cache<Pod>, writes: OwnWrites, cx: Context }
//!
//! impl Controller for Example {
//!     const NAME: &'static str = "example-controller";
//!     fn start(cx: Context, queue: &Queue<Key>) -> Self {
//!         let pods = cx.caches.of::<Pod>();
//!         pods.add_index(index::CONTROLLER_UID, index::by_controller);
//!         sources::wake_self(&pods, queue);
//!         Self { pods, writes: OwnWrites::default(), cx }
//!     }
//!     async fn synced(&self) { self.pods.synced().await }
//!     fn writes(&self) -> Option<&OwnWrites> { Some(&self.writes) }
//!     async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
//!         let Some(snapshot) = self.observe(key) else { return Ok(Next::Done) };
//!         self.execute(key, plan(&snapshot)).await
//!     }
//! }
//! ```
//!
//! Invariants:
//! - controllers never call each other: they meet in the API;
//! - one key is never worked on by two workers at once, and never on caches older than its own writes;
//! - no polling: a key is looked at again when something it depends on changes, at a time its plan names, or after a
//!   failure with growing back-off. A `Conflict` means that the world moved on: the plan is dropped.

#![forbid(unsafe_code)]

pub mod attachments;
mod batch;
pub mod claims;
mod config;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
mod error;
mod everything;
pub mod family;
mod frame;
pub mod gc;
mod history;
pub mod hpa;
pub mod job;
mod metrics;
pub mod namespace;
pub mod nodeipam;
pub mod nodelife;
pub mod podgc;
pub mod quota;
pub mod registry;
pub mod replicaset;
pub mod rootca;
pub mod serviceaccount;
pub mod sidecars;
pub mod sources;
pub mod statefulset;
pub mod taints;
mod writes;

pub use batch::slow_start;
pub use config::{Accounts, Config};
pub use error::Error;
pub use frame::{Context, Controller, run, run_only};
pub use metrics::Metrics;
pub use registry::Entry;
pub use stead_informer::{Key, Next, Queue, Severity};
pub use writes::OwnWrites;
