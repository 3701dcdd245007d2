//! Room on a node: amounts of resources, number of pods, host ports.

use super::{Cause, Refusal};
use crate::pod::PodInfo;
use crate::view::NodeInfo;

pub(crate) fn ports(pod: &PodInfo, info: &NodeInfo) -> Result<(), Refusal> {
    let taken = || info.pods.values().filter(|other| other.uid() != pod.uid()).flat_map(|other| &other.ports);
    match pod.ports.iter().any(|port| taken().any(|other| port.conflicts(other))) {
        true => Err(Refusal::new(Cause::NodePorts, "node(s) didn't have free ports for the requested pod ports")),
        false => Ok(()),
    }
}

/// Every resource that is short is told. When more is asked for than the node has at all, no eviction helps.
pub(super) fn fit(pod: &PodInfo, info: &NodeInfo) -> Result<(), Refusal> {
    let mut refusal = Refusal { cause: Cause::NodeResourcesFit, reasons: Vec::new(), helpless: false };
    let count = i64::try_from(info.pods.len()).unwrap_or(i64::MAX);
    if count.saturating_add(1) > info.allocatable.pods() {
        refusal.reasons.push("Too many pods".to_owned());
    }
    for (name, amount) in pod.requests.iter().filter(|(_, amount)| *amount > 0) {
        let all = info.allocatable.get(name);
        if amount > all.saturating_sub(info.requested.get(name)) {
            refusal.reasons.push(format!("Insufficient {name}"));
            refusal.helpless |= amount > all;
        }
    }
    if refusal.reasons.is_empty() { Ok(()) } else { Err(refusal) }
}
