//! Quality of service, and the limits that follow from requests and limits (upstream: `pkg/apis/core/v1/helper/qos`,
//! `pkg/kubelet/cm/helpers_linux.go`, `pkg/kubelet/qos/policy.go`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::spec;

/// Quality-of-service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    /// As `status.qosClass` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }

    /// Cgroup below the root in which such pods lie; guaranteed ones lie in the root.
    #[must_use]
    pub fn folder(self) -> Option<&'static str> {
        match self {
            Qos::Guaranteed => None,
            Qos::Burstable => Some("burstable"),
            Qos::BestEffort => Some("besteffort"),
        }
    }
}

/// Limits for the kernel. `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu_shares: Option<u64>,
    pub cpu_quota_micros: Option<i64>,
    pub cpu_period_micros: Option<u64>,
    pub memory_bytes: Option<i64>,
    pub oom_score_adj: Option<i32>,
}

const CPU_PERIOD_MICROS: i64 = 100_000;
const CPU_QUOTA_MICROS_MIN: i64 = 1_000;
const CPU_SHARES_MIN: i64 = 2;
const CPU_SHARES_MAX: i64 = 262_144;
/// Score of a pod that must live: guaranteed, or of a node-critical class.
const OOM_SCORE_GUARANTEED: i64 = -997;
const OOM_SCORE_BEST_EFFORT: i64 = 1000;
const PRIORITY_NODE_CRITICAL: i32 = 2_000_001_000;

/// The pod's class: the pod's own resources decide when it has any, else its containers, init containers included.
#[must_use]
pub fn qos(pod: &Pod) -> Qos {
    let own = spec::pod_spec(pod).resources.as_ref();
    let own_counts =
        own.is_some_and(|own| !amounts(own.requests.as_ref()).is_empty() || !amounts(own.limits.as_ref()).is_empty());
    let all: Vec<Option<&ResourceRequirements>> = if own_counts {
        vec![own]
    } else {
        let containers = spec::main_containers(pod).iter().chain(spec::init_containers(pod));
        containers.map(|container| container.resources.as_ref()).collect()
    };
    let mut any = false;
    let mut guaranteed = true;
    for resources in all {
        let requests = amounts(resources.and_then(|resources| resources.requests.as_ref()));
        let limits = amounts(resources.and_then(|resources| resources.limits.as_ref()));
        any |= !requests.is_empty() || !limits.is_empty();
        let same =
            |name| limits.get(name).is_some_and(|limit| requests.get(name).is_none_or(|request| request == limit));
        guaranteed &= same("cpu") && same("memory");
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// CPU and memory that are not zero, in thousandths.
fn amounts(list: Option<&BTreeMap<String, Quantity>>) -> BTreeMap<&str, i128> {
    let known = list.into_iter().flatten().filter(|(name, _)| *name == "cpu" || *name == "memory");
    known.map(|(name, quantity)| (name.as_str(), milli(quantity))).filter(|(_, amount)| *amount != 0).collect()
}

/// Limits of one container. `capacity_bytes` is the node's memory.
#[must_use]
pub fn container_limits(pod: &Pod, container: &Container, capacity_bytes: u64) -> Limits {
    let (request, limit) = cpu_milli(container.resources.as_ref());
    let memory = amount(container.resources.as_ref(), "memory", false);
    Limits {
        cpu_shares: Some(shares(request.or(limit).unwrap_or(0))),
        cpu_quota_micros: limit.and_then(quota),
        cpu_period_micros: limit.and_then(quota).map(|_| CPU_PERIOD_MICROS.unsigned_abs()),
        memory_bytes: memory.map(bytes).filter(|bytes| *bytes > 0),
        oom_score_adj: Some(oom_score_adj(pod, container, capacity_bytes)),
    }
}

/// Limits of the pod's own cgroup: the sum of its containers', where all of them have one.
#[must_use]
pub fn pod_limits(pod: &Pod) -> Limits {
    let own = spec::pod_spec(pod).resources.as_ref();
    let each: Vec<Option<&ResourceRequirements>> =
        spec::main_containers(pod).iter().map(|container| container.resources.as_ref()).collect();
    let total = |of: &dyn Fn(Option<&ResourceRequirements>) -> Option<i64>| -> Option<i64> {
        of(own).or_else(|| each.iter().map(|one| of(*one)).sum())
    };
    let request: i64 = cpu_milli(own).0.unwrap_or_else(|| {
        each.iter()
            .map(|one| {
                let (request, limit) = cpu_milli(*one);
                request.or(limit).unwrap_or(0)
            })
            .sum()
    });
    let limit = total(&|one| cpu_milli(one).1);
    let memory = total(&|one| amount(one, "memory", false).map(bytes).filter(|bytes| *bytes > 0));
    Limits {
        cpu_shares: Some(shares(request)),
        cpu_quota_micros: limit.and_then(quota),
        cpu_period_micros: limit.and_then(quota).map(|_| CPU_PERIOD_MICROS.unsigned_abs()),
        memory_bytes: memory,
        oom_score_adj: None,
    }
}

/// How readily the kernel kills a container when memory is short: the more it asked for, the later.
#[must_use]
pub fn oom_score_adj(pod: &Pod, container: &Container, capacity_bytes: u64) -> i32 {
    let critical = spec::pod_spec(pod).priority.is_some_and(|priority| priority >= PRIORITY_NODE_CRITICAL);
    let score = match qos(pod) {
        _ if critical => OOM_SCORE_GUARANTEED,
        Qos::Guaranteed => OOM_SCORE_GUARANTEED,
        Qos::BestEffort => OOM_SCORE_BEST_EFFORT,
        Qos::Burstable => {
            let request = amount(container.resources.as_ref(), "memory", true).map_or(0, bytes);
            let capacity = i64::try_from(capacity_bytes).unwrap_or(i64::MAX).max(1);
            let share = i64::try_from(1000 * i128::from(request) / i128::from(capacity)).unwrap_or(1000);
            match 1000 - share {
                score if score < 1000 + OOM_SCORE_GUARANTEED => 1000 + OOM_SCORE_GUARANTEED,
                OOM_SCORE_BEST_EFFORT => OOM_SCORE_BEST_EFFORT - 1,
                score => score,
            }
        }
    };
    i32::try_from(score).unwrap_or(1000)
}

/// Requested and limited CPU in thousandths of a core.
fn cpu_milli(resources: Option<&ResourceRequirements>) -> (Option<i64>, Option<i64>) {
    let whole = |amount: i128| i64::try_from(amount).unwrap_or(i64::MAX);
    (amount(resources, "cpu", true).map(whole), amount(resources, "cpu", false).map(whole))
}

/// A requested or limited amount, in thousandths.
fn amount(resources: Option<&ResourceRequirements>, name: &str, request: bool) -> Option<i128> {
    let list = if request { &resources?.requests } else { &resources?.limits };
    list.as_ref()?.get(name).map(milli)
}

fn bytes(milli: i128) -> i64 {
    i64::try_from((milli + 999) / 1000).unwrap_or(i64::MAX)
}

fn shares(milli: i64) -> u64 {
    (milli.saturating_mul(1024) / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX).unsigned_abs()
}

fn quota(milli: i64) -> Option<i64> {
    (milli > 0).then(|| (milli.saturating_mul(CPU_PERIOD_MICROS) / 1000).max(CPU_QUOTA_MICROS_MIN))
}

/// A quantity in thousandths, rounded up; one that cannot be read is zero (the API server has checked it).
#[must_use]
pub fn milli(quantity: &Quantity) -> i128 {
    parse_milli(&quantity.0).unwrap_or(0)
}

fn parse_milli(text: &str) -> Option<i128> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (mul, div) = scale(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let negative = whole.starts_with('-');
    let digits = format!("{}{fraction}", whole.trim_start_matches(['-', '+']));
    let value: i128 = digits.parse().ok()?;
    let below = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(div)?;
    let scaled = value.checked_mul(mul)?.checked_mul(1000)?;
    let rounded = scaled.checked_add(below - 1)? / below;
    Some(if negative { -rounded } else { rounded })
}

/// Multiplier and divisor of a suffix.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1024_i128.pow(power), 1));
    let decimal = |power: u32| Some((10_i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let size = 10_i128.checked_pow(power.unsigned_abs())?;
            Some(if power < 0 { (1, size) } else { (size, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_thousandths() {
        let table = [
            ("1", 1000),
            ("250m", 250),
            ("0.5", 500),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("1e3", 1_000_000),
            ("100u", 1),
        ];
        for (text, expected) in table {
            assert_eq!(milli(&Quantity(text.to_owned())), expected, "{text}");
        }
    }
}
