//! What pods use, as the Metrics API (`metrics.k8s.io`) says it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use stead_machinery::quantity::Quantity;
use stead_machinery::time;

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub namespace: String,
    pub pod: String,
    pub timestamp: Timestamp,
    /// Over how long it was measured.
    pub window: SignedDuration,
    /// Thousandths in use by container and resource.
    pub containers: BTreeMap<String, BTreeMap<String, i64>>,
}

/// Reads the items of a `PodMetricsList`.
#[must_use]
pub fn read_figures(items: &[Value]) -> Vec<Figures> {
    items.iter().map(read).collect()
}

fn read(item: &Value) -> Figures {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let container = |one: &Value| {
        let usage = one["usage"].as_object().into_iter().flatten();
        let amounts = usage.filter_map(|(resource, amount)| {
            Some((resource.clone(), amount.as_str()?.parse::<Quantity>().ok()?.milli_value()))
        });
        (text(&one["name"]), amounts.collect())
    };
    Figures {
        namespace: text(&item["metadata"]["namespace"]),
        pod: text(&item["metadata"]["name"]),
        timestamp: time::parse(&item["timestamp"]).unwrap_or_default(),
        window: go_duration(item["window"].as_str().unwrap_or_default()),
        containers: item["containers"].as_array().into_iter().flatten().map(container).collect(),
    }
}

/// A duration as Go writes it: `1h2m3.5s`, `500ms`. What is no such thing is none.
fn go_duration(text: &str) -> SignedDuration {
    let mut rest = text;
    let mut total = SignedDuration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let letters =
            rest[digits..].chars().take_while(|letter| letter.is_alphabetic()).map(char::len_utf8).sum::<usize>();
        let (number, unit) = (&rest[..digits], &rest[digits..digits + letters]);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return SignedDuration::ZERO,
        };
        let Ok(number) = number.parse::<f64>() else { return SignedDuration::ZERO };
        let Ok(part) = SignedDuration::try_from_secs_f64(number * seconds) else { return SignedDuration::ZERO };
        let Some(sum) = total.checked_add(part) else { return SignedDuration::ZERO };
        total = sum;
        rest = &rest[digits + letters..];
    }
    total
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_read_from_the_api() {
        let item = json!({
            "metadata": {"namespace": "a", "name": "web-0"}, "timestamp": "2026-01-01T00:00:00Z", "window": "15.5s",
            "containers": [{"name": "c", "usage": {"cpu": "1500u", "memory": "1Ki"}}, {"name": "d", "usage": {}}],
        });
        let [figures] = read_figures(&[item]).try_into().expect("one");
        assert_eq!(figures.window, SignedDuration::from_millis(15_500));
        assert_eq!(figures.containers["c"], BTreeMap::from([("cpu".to_owned(), 2), ("memory".to_owned(), 1_024_000)]));
        assert!(figures.containers["d"].is_empty());
    }

    #[test]
    fn durations_are_gos() {
        for (text, millis) in [
            ("15.062s", 15_062),
            ("1m2s", 62_000),
            ("500ms", 500),
            ("1h0m0.5s", 3_600_500),
            ("0s", 0),
            ("", 0),
            ("x", 0),
            ("5", 0),
        ] {
            assert_eq!(go_duration(text), SignedDuration::from_millis(millis), "{text}");
        }
    }
}
