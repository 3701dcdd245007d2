//! What must never happen, judged at every write, before the model takes it in.
//!
//! A controller acts on what it sees, and may see it late. So a rule that compares with the present state counts only
//! what has been true for longer than anybody's view can be behind ([`BEHIND_MAX`]), or what the same process did itself.

mod pods;
mod server;
mod sets;
mod storage;

use std::time::Duration;

use tokio::time::Instant;

use crate::model::Model;

pub(crate) use pods::pod;
pub(crate) use server::undone;
pub(crate) use sets::set;
pub(crate) use storage::{claim, volume};

/// How far behind the present a controller's view may be while there are faults.
pub(crate) const BEHIND_MAX: Duration = Duration::from_secs(90);

pub(crate) fn long(since: Instant) -> bool {
    since.elapsed() > BEHIND_MAX
}

/// The garbage collector removes only what has lost every owner.
fn still_owned(model: &Model, json: &serde_json::Value) -> Option<String> {
    let owners = json["metadata"]["ownerReferences"].as_array()?;
    let alive = owners.iter().find(|owner| {
        let uid = owner["uid"].as_str().unwrap_or("");
        let pod = model.pods.values().any(|pod| pod.uid == uid && !pod.terminating);
        pod || model.sets.values().any(|set| set.uid == uid && !set.deleting)
    })?;
    Some(format!("collects what still has its owner {} {}", alive["kind"], alive["name"]))
}
