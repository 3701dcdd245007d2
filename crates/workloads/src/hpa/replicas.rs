//! How many replicas what the pods use comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use stead_machinery::quantity::Quantity;

use super::{Figures, Observed};
use crate::pod::{condition, phase};

const CPU: &str = "cpu";

/// What one pod uses of one resource, in thousandths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub at: Timestamp,
    pub window: SignedDuration,
    pub value: i64,
}

pub(super) type Samples = BTreeMap<String, Sample>;

/// How much a ratio may be off in either direction without anything being done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerances {
    pub up: f64,
    pub down: f64,
}

impl Tolerances {
    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What is asked about one resource.
pub(super) struct Question<'a> {
    pub observed: &'a Observed<'a>,
    pub current: i32,
    pub resource: &'a str,
    /// Only this container of each pod.
    pub container: Option<&'a str>,
    pub tolerances: Tolerances,
}

/// A number of replicas, with the utilization in percent (where that is the target) and the average use per pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub replicas: i32,
    pub utilization: i32,
    pub average: i64,
}

/// The pods by what may be made of them.
#[derive(Debug, Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

impl Question<'_> {
    /// By a share of what the pods request.
    pub(super) fn by_utilization(&self, target: i32) -> Result<Answer, String> {
        let (mut samples, groups) = self.grouped()?;
        let requests = self.requests()?;
        let (ratio, utilization, average) = utilization_ratio(&samples, &requests, target)?;
        let answer = |replicas| Ok(Answer { replicas, utilization, average });
        let grows_with_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !grows_with_unready && groups.missing.is_empty() {
            let replicas = if self.tolerances.covers(ratio) { self.current } else { ceil(ratio, groups.ready) };
            return answer(replicas);
        }
        // What is not known argues against every change: all of the request when shrinking, nothing when growing.
        let fallback = i64::from(target.max(100));
        for name in &groups.missing {
            let all = requests.get(name).copied().unwrap_or(0) * fallback / 100;
            assume(&mut samples, name, ratio, all);
        }
        if grows_with_unready {
            groups.unready.iter().for_each(|name| put(&mut samples, name, 0));
        }
        let (again, ..) = utilization_ratio(&samples, &requests, target)?;
        answer(self.settled(ratio, again, samples.len()))
    }

    /// By an average amount per pod.
    pub(super) fn by_average(&self, target: i64) -> Result<Answer, String> {
        let (mut samples, groups) = self.grouped()?;
        let (ratio, average) = average_ratio(&samples, target);
        let answer = |replicas| Ok(Answer { replicas, utilization: 0, average });
        let grows_with_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !grows_with_unready && groups.missing.is_empty() {
            let replicas = if self.tolerances.covers(ratio) { self.current } else { ceil(ratio, groups.ready) };
            return answer(replicas);
        }
        for name in &groups.missing {
            put(&mut samples, name, if ratio < 1.0 { target } else { 0 });
        }
        if grows_with_unready {
            groups.unready.iter().for_each(|name| put(&mut samples, name, 0));
        }
        let (again, _) = average_ratio(&samples, target);
        answer(self.settled(ratio, again, samples.len()))
    }

    /// The number of replicas once assumptions were made, unless they turn the direction round.
    fn settled(&self, before: f64, after: f64, counted: usize) -> i32 {
        let turned = (before < 1.0 && after > 1.0) || (before > 1.0 && after < 1.0);
        if self.tolerances.covers(after) || turned {
            return self.current;
        }
        let replicas = ceil(after, counted);
        let against = (after < 1.0 && replicas > self.current) || (after > 1.0 && replicas < self.current);
        if against { self.current } else { replicas }
    }

    /// The samples of the pods that count, and how the pods fall into groups.
    fn grouped(&self) -> Result<(Samples, Groups), String> {
        let mut samples =
            self.samples().map_err(|why| format!("unable to get metrics for resource {}: {why}", self.resource))?;
        if self.observed.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".to_owned());
        }
        let mut groups = Groups::default();
        for pod in self.observed.pods {
            self.place(pod, &samples, &mut groups);
        }
        samples.retain(|name, _| !groups.ignored.contains(name) && !groups.unready.contains(name));
        if samples.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
        }
        Ok((samples, groups))
    }

    fn samples(&self) -> Result<Samples, String> {
        let figures =
            self.observed.figures.map_err(|why| format!("unable to fetch metrics from resource metrics API: {why}"))?;
        if figures.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        let mut samples = Samples::new();
        for one in figures {
            if let Some(value) = self.value(one)? {
                samples.insert(one.pod.clone(), Sample { at: one.timestamp, window: one.window, value });
            }
        }
        Ok(samples)
    }

    /// What a pod uses, or its container; nothing when a container does not say.
    fn value(&self, figures: &Figures) -> Result<Option<i64>, String> {
        let Some(name) = self.container else {
            let values = figures.containers.values().map(|usage| usage.get(self.resource).copied());
            return Ok(values.sum());
        };
        match figures.containers.get(name) {
            Some(usage) => Ok(usage.get(self.resource).copied()),
            None => Err(format!(
                "failed to get container metrics: container {name} not present in metrics for pod {}/{}",
                figures.namespace, figures.pod
            )),
        }
    }

    fn place(&self, pod: &Arc<Pod>, samples: &Samples, groups: &mut Groups) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() || phase(pod) == "Failed" {
            groups.ignored.insert(name);
        } else if phase(pod) == "Pending" {
            groups.unready.insert(name);
        } else if let Some(sample) = samples.get(&name) {
            if self.resource == CPU && self.is_unready(pod, sample) {
                groups.unready.insert(name);
            } else {
                groups.ready += 1;
            }
        } else {
            groups.missing.insert(name);
        }
    }

    /// Whether the CPU of a pod says nothing yet: it is starting, or has never been ready.
    fn is_unready(&self, pod: &Pod, sample: &Sample) -> bool {
        let settings = self.observed.settings;
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let (Some(ready), Some(started)) = (condition(pod, "Ready"), started) else { return true };
        let changed = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let is_false = ready.status == "False";
        let after = |start: Timestamp, length: SignedDuration| start.checked_add(length).unwrap_or(Timestamp::MAX);
        if after(started.0, settings.cpu_initialization) > self.observed.now {
            // The sample has to be of the time since it became ready.
            is_false || sample.at < after(changed, sample.window)
        } else {
            is_false && after(started.0, settings.initial_readiness) > changed
        }
    }

    /// What each pod requests, in thousandths.
    fn requests(&self) -> Result<BTreeMap<String, i64>, String> {
        let one = |pod: &Arc<Pod>| {
            let name = pod.metadata.name.clone().unwrap_or_default();
            Ok((name.clone(), self.request(pod, &name)?))
        };
        self.observed.pods.iter().map(one).collect()
    }

    fn request(&self, pod: &Pod, name: &str) -> Result<i64, String> {
        let Some(spec) = &pod.spec else { return Ok(0) };
        let own = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        if let (Some(own), None) = (own.filter(|own| !own.is_empty()), self.container) {
            let missing = || format!("missing pod-level request for {} in Pod {name}", self.resource);
            return own.get(self.resource).map(milli).ok_or_else(missing);
        }
        let is_sidecar = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
        let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
        let mut total = 0_i64;
        for one in spec.containers.iter().chain(sidecars) {
            if self.container.is_some_and(|wanted| wanted != one.name) {
                continue;
            }
            let request = one.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(self.resource));
            let Some(request) = request else {
                return Err(format!("missing request for {} in container {} of Pod {name}", self.resource, one.name));
            };
            total = total.saturating_add(milli(request));
        }
        Ok(total)
    }
}

fn milli(quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> i64 {
    quantity.0.parse::<Quantity>().map_or(0, |quantity| quantity.milli_value())
}

fn put(samples: &mut Samples, name: &str, value: i64) {
    samples.insert(name.to_owned(), Sample { at: Timestamp::UNIX_EPOCH, window: SignedDuration::ZERO, value });
}

/// A missing pod in the reckoning by utilization: at a ratio of exactly one it stays out.
fn assume(samples: &mut Samples, name: &str, ratio: f64, all: i64) {
    if ratio < 1.0 {
        put(samples, name, all);
    } else if ratio > 1.0 {
        put(samples, name, 0);
    }
}

/// Ratio to the target, utilization in percent, average use.
fn utilization_ratio(
    samples: &Samples,
    requests: &BTreeMap<String, i64>,
    target: i32,
) -> Result<(f64, i32, i64), String> {
    let known = samples.iter().filter_map(|(name, sample)| Some((sample.value, *requests.get(name)?)));
    let (mut used, mut requested, mut pods) = (0_i64, 0_i64, 0_i64);
    for (value, request) in known {
        used = used.saturating_add(value);
        requested = requested.saturating_add(request);
        pods += 1;
    }
    if requested == 0 {
        return Err("no metrics returned matched known pods".to_owned());
    }
    let percent = i128::from(used) * 100 / i128::from(requested);
    let utilization = i32::try_from(percent).unwrap_or(i32::MAX);
    Ok((f64::from(utilization) / f64::from(target), utilization, used / pods))
}

/// Ratio to the target, average use.
fn average_ratio(samples: &Samples, target: i64) -> (f64, i64) {
    let used: i128 = samples.values().map(|sample| i128::from(sample.value)).sum();
    let pods = i128::try_from(samples.len()).unwrap_or(1).max(1);
    let average = i64::try_from(used / pods).unwrap_or(i64::MAX);
    (average as f64 / target as f64, average)
}

/// So many times the pods, rounded up.
fn ceil(ratio: f64, pods: usize) -> i32 {
    // A cast of a float stops at the ends of the range.
    (ratio * pods as f64).ceil() as i32
}
