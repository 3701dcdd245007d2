//! Amounts of resources, and what a pod asks for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use stead_machinery::quantity::Quantity;

/// What a pod without a request counts as when nodes are scored: 0.1 core.
const SCORED_CPU_MILLI: i64 = 100;
/// As above: 200 MiB.
const SCORED_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

pub(crate) const CPU: &str = "cpu";
pub(crate) const MEMORY: &str = "memory";
const PODS: &str = "pods";

/// Amounts by resource name: cpu in thousandths of a core, all others in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, i64>);

impl Amounts {
    /// A quantity that cannot be parsed counts as nothing; the API server lets none through.
    #[must_use]
    pub fn of(list: Option<&BTreeMap<String, ApiQuantity>>) -> Self {
        let amount = |(name, quantity): (&String, &ApiQuantity)| {
            let quantity: Quantity = quantity.0.parse().unwrap_or_default();
            let value = if name == CPU { quantity.milli_value() } else { quantity.value() };
            (name.clone(), value)
        };
        Self(list.into_iter().flatten().map(amount).collect())
    }

    #[must_use]
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Pods that may run at the same time.
    #[must_use]
    pub fn pods(&self) -> i64 {
        self.get(PODS)
    }

    /// Names and amounts in upstream's order: cpu, memory, ephemeral-storage, then the others by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        const FIRST: [&str; 3] = [CPU, MEMORY, "ephemeral-storage"];
        let first = FIRST.into_iter().filter_map(|name| self.0.get(name).map(|amount| (name, *amount)));
        let rest = self.0.iter().filter(|(name, _)| !FIRST.contains(&name.as_str()));
        first.chain(rest.map(|(name, amount)| (name.as_str(), *amount)))
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    pub(crate) fn sub(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let rest = self.0.entry(name.clone()).or_default();
            *rest = rest.saturating_sub(*amount);
        }
    }

    fn plus(mut self, other: &Self) -> Self {
        self.add(other);
        self
    }

    /// The larger of each.
    fn max(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let largest = self.0.entry(name.clone()).or_default();
            *largest = (*largest).max(*amount);
        }
    }

    /// For scoring: pods without a request of cpu or memory count as small ones.
    pub(crate) fn scored(mut self) -> Self {
        for (name, least) in [(CPU, SCORED_CPU_MILLI), (MEMORY, SCORED_MEMORY_BYTES)] {
            self.0.entry(name.to_owned()).or_insert(least);
        }
        self
    }
}

/// What the pod asks for at its largest moment: all containers and sidecars, or an init container beside the sidecars that
/// started before it; requests of the pod as a whole count instead where given; plus overhead.
#[must_use]
pub fn pod_requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::default() };
    let requests = |container: &Container| {
        Amounts::of(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
    };
    let mut sum = Amounts::default();
    spec.containers.iter().for_each(|container| sum.add(&requests(container)));
    let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&requests(container));
            peak.max(&sidecars);
        } else {
            peak.max(&sidecars.clone().plus(&requests(container)));
        }
    }
    sum.add(&sidecars);
    sum.max(&peak);
    let whole = Amounts::of(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    sum.0.extend(whole.0);
    sum.plus(&Amounts::of(spec.overhead.as_ref()))
}
