//! How fast a target may grow and shrink: stabilization windows, policies and bounds, over what was recommended and done before.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

use super::Observed;
use super::status::Conditions;

/// Without a behavior the target at most doubles at once, or grows to this.
const GROWTH_FACTOR: i32 = 2;
const GROWTH_MIN: i32 = 4;
const LOWER: &str = "recent recommendations were lower than current one, applying the lowest recent recommendation";
const HIGHER: &str = "recent recommendations were higher than current one, applying the highest recent recommendation";

/// Something with its time: a recommended number of replicas, or by how many it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dated {
    at: Timestamp,
    replicas: i32,
}

/// What was recommended and done of late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    recommended: Vec<Dated>,
    grown: Vec<Dated>,
    shrunk: Vec<Dated>,
}

impl History {
    /// An autoscaler that has just come to be begins with what it found.
    pub(super) fn begin(&mut self, replicas: i32, at: Timestamp) {
        if self.recommended.is_empty() {
            self.recommended.push(Dated { at, replicas });
        }
    }

    /// Notes a scaling, for the policies of the behavior.
    pub(super) fn scaled(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        from: i32,
        to: i32,
        at: Timestamp,
    ) {
        let Some(behavior) = behavior else { return };
        let (list, rules, replicas) = if to > from {
            (&mut self.grown, &behavior.scale_up, to - from)
        } else {
            (&mut self.shrunk, &behavior.scale_down, from - to)
        };
        let longest =
            rules.iter().flat_map(|rules| rules.policies.iter().flatten()).map(|policy| policy.period_seconds).max();
        let oldest = before(at, longest.unwrap_or(0));
        list.retain(|one| one.at >= oldest);
        list.push(Dated { at, replicas });
    }

    fn recommend(&mut self, replicas: i32, at: Timestamp, oldest: Timestamp) {
        self.recommended.retain(|one| one.at >= oldest);
        self.recommended.push(Dated { at, replicas });
    }
}

fn before(now: Timestamp, seconds: i32) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(seconds.into())).unwrap_or(Timestamp::MIN)
}

/// By how many replicas the target changed within a period.
fn changed(list: &[Dated], now: Timestamp, seconds: i32) -> i32 {
    let since = before(now, seconds);
    list.iter().filter(|one| one.at > since).fold(0, |sum, one| sum.saturating_add(one.replicas))
}

/// Where the target is and may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub current: i32,
    pub least: i32,
    pub most: i32,
}

/// A number of replicas with the reason and message of `ScalingLimited`.
type Limited = (i32, &'static str, &'static str);

const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: (&str, &str) = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: (&str, &str) = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FAST_UP: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

fn limited(replicas: i32, (reason, message): (&'static str, &'static str)) -> Limited {
    (replicas, reason, message)
}

/// From what the metrics ask for to what the target gets.
pub(super) fn normalize(
    o: &Observed<'_>,
    bounds: Bounds,
    asked: i32,
    history: &mut History,
    conditions: &mut Conditions,
) -> i32 {
    let (stable, reason, message) = match &o.autoscaler.spec.behavior {
        None => {
            let oldest = o.now.checked_sub(o.settings.downscale_stabilization).unwrap_or(Timestamp::MIN);
            let recent = history.recommended.iter().filter(|one| one.at >= oldest).map(|one| one.replicas);
            let highest = recent.fold(asked, i32::max);
            history.recommend(asked, o.now, oldest);
            (highest, "ScaleDownStabilized", HIGHER)
        }
        Some(behavior) => stabilized(o, behavior, bounds.current, asked, history),
    };
    if stable == asked {
        conditions.set("AbleToScale", true, "ReadyForNewScale", "recommended size matches current size");
    } else {
        conditions.set("AbleToScale", true, reason, message);
    }
    let (replicas, reason, message) = match &o.autoscaler.spec.behavior {
        None => plain_limit(bounds, stable),
        Some(behavior) => paced(o.now, behavior, bounds, stable, history),
    };
    conditions.set("ScalingLimited", replicas != stable, reason, message);
    replicas
}

/// Between the lowest recommendation of the window for growth and the highest of that for shrinking.
fn stabilized(
    o: &Observed<'_>,
    behavior: &HorizontalPodAutoscalerBehavior,
    current: i32,
    asked: i32,
    history: &mut History,
) -> (i32, &'static str, &'static str) {
    let seconds = |rules: &Option<HPAScalingRules>, otherwise: i32| {
        rules.as_ref().and_then(|rules| rules.stabilization_window_seconds).unwrap_or(otherwise)
    };
    let usual = i32::try_from(o.settings.downscale_stabilization.as_secs()).unwrap_or(i32::MAX);
    let up = before(o.now, seconds(&behavior.scale_up, 0));
    let down = before(o.now, seconds(&behavior.scale_down, usual));
    let since =
        |cutoff: Timestamp| history.recommended.iter().filter(move |one| one.at > cutoff).map(|one| one.replicas);
    let lowest = since(up).fold(asked, i32::min);
    let highest = since(down).fold(asked, i32::max);
    let stable = current.max(lowest).min(highest);
    history.recommend(asked, o.now, up.min(down));
    if asked >= current { (stable, "ScaleUpStabilized", LOWER) } else { (stable, "ScaleDownStabilized", HIGHER) }
}

fn plain_limit(Bounds { current, least, most }: Bounds, wanted: i32) -> Limited {
    let fastest = current.saturating_mul(GROWTH_FACTOR).max(GROWTH_MIN);
    let (highest, why) = if most > fastest { (fastest, TOO_FAST_UP) } else { (most, TOO_MANY) };
    if wanted < least {
        limited(least, TOO_FEW)
    } else if wanted > highest {
        limited(highest, why)
    } else {
        limited(wanted, WITHIN)
    }
}

/// As fast as the policies allow.
fn paced(
    now: Timestamp,
    behavior: &HorizontalPodAutoscalerBehavior,
    Bounds { current, least, most }: Bounds,
    wanted: i32,
    history: &History,
) -> Limited {
    if wanted > current {
        let fastest =
            behavior.scale_up.as_ref().map_or(i32::MAX, |rules| up_to(now, rules, current, history)).max(current);
        let (highest, why) = if most > fastest { (fastest, TOO_FAST_UP) } else { (most, TOO_MANY) };
        if wanted > highest {
            return limited(highest, why);
        }
    } else if wanted < current {
        let fastest =
            behavior.scale_down.as_ref().map_or(i32::MIN, |rules| down_to(now, rules, current, history)).min(current);
        let (lowest, why) = if least < fastest { (fastest, TOO_FAST_DOWN) } else { (least, TOO_FEW) };
        if wanted < lowest {
            return limited(lowest, why);
        }
    }
    limited(wanted, WITHIN)
}

/// What a policy reckons from: the replicas at the start of its period.
fn at_start(now: Timestamp, seconds: i32, current: i32, history: &History) -> i32 {
    let (grown, shrunk) = (changed(&history.grown, now, seconds), changed(&history.shrunk, now, seconds));
    current.saturating_sub(grown).saturating_add(shrunk)
}

fn up_to(now: Timestamp, rules: &HPAScalingRules, current: i32, history: &History) -> i32 {
    let choice = rules.select_policy.as_deref().unwrap_or("Max");
    if choice == "Disabled" {
        return current;
    }
    let proposals = rules.policies.iter().flatten().map(|policy| {
        let start = at_start(now, policy.period_seconds, current, history);
        match policy.type_.as_str() {
            "Percent" => (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
            _ => start.saturating_add(policy.value),
        }
    });
    if choice == "Min" { proposals.fold(i32::MAX, i32::min) } else { proposals.fold(i32::MIN, i32::max) }
}

fn down_to(now: Timestamp, rules: &HPAScalingRules, current: i32, history: &History) -> i32 {
    let choice = rules.select_policy.as_deref().unwrap_or("Max");
    if choice == "Disabled" {
        return current;
    }
    let proposals = rules.policies.iter().flatten().map(|policy| {
        let start = at_start(now, policy.period_seconds, current, history);
        match policy.type_.as_str() {
            // Towards zero, so that something always goes.
            "Percent" => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            _ => start.saturating_sub(policy.value),
        }
    });
    if choice == "Min" { proposals.fold(i32::MIN, i32::max) } else { proposals.fold(i32::MAX, i32::min) }
}
