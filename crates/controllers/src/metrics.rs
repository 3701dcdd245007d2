//! Figures of controllers for `/metrics`, in Prometheus' text format.
//!
//! Names and labels are upstream's: `pkg/controller/statefulset/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use stead_informer::Key;

/// What controllers of this process have to tell. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    stateful_sets: Arc<Mutex<BTreeMap<(String, String), StatefulSetFigures>>>,
}

/// What is told of one StatefulSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatefulSetFigures {
    /// `OrderedReady` or `Parallel`.
    pub policy: &'static str,
    /// Of a set that is rolled.
    pub max_unavailable: Option<u32>,
    /// Wanted pods that are missing or not available.
    pub unavailable: u32,
}

impl Metrics {
    pub(crate) fn stateful_set(&self, key: &Key, figures: StatefulSetFigures) {
        self.stateful_sets.lock().insert(name_of(key), figures);
    }

    /// The set is gone.
    pub(crate) fn no_stateful_set(&self, key: &Key) {
        self.stateful_sets.lock().remove(&name_of(key));
    }

    #[must_use]
    pub fn render(&self) -> String {
        let sets = self.stateful_sets.lock();
        let mut text = String::new();
        gauge(
            &mut text,
            "statefulset_controller_statefulset_max_unavailable",
            "Most pods that may be unavailable while a StatefulSet is rolled.",
            sets.iter().filter_map(|(name, set)| Some((name, set.policy, set.max_unavailable?))),
        );
        gauge(
            &mut text,
            "statefulset_controller_statefulset_unavailable_replicas",
            "Wanted pods of a StatefulSet that are missing or not available.",
            sets.iter().map(|(name, set)| (name, set.policy, set.unavailable)),
        );
        text
    }
}

fn name_of(key: &Key) -> (String, String) {
    (key.namespace.to_string(), key.name.to_string())
}

/// One figure of many sets. Names of objects need no escapes.
fn gauge<'a>(
    text: &mut String,
    metric: &str,
    help: &str,
    values: impl Iterator<Item = (&'a (String, String), &'static str, u32)>,
) {
    let _ = write!(text, "# HELP {metric} {help}\n# TYPE {metric} gauge\n");
    for ((namespace, name), policy, value) in values {
        let _ = writeln!(
            text,
            "{metric}{{pod_management_policy=\"{policy}\",statefulset_name=\"{name}\",\
             statefulset_namespace=\"{namespace}\"}} {value}"
        );
    }
}
