//! The managers of a scale: its one field is a field of the object that it scales.
//!
//! Source: `k8s.io/apimachinery/pkg/util/managedfields` (scale handler).

use serde_json::Value;

use super::managers::{Entry, Id, Managers};
use super::set::{Element, Set};

const SCALE_VERSION: &str = "autoscaling/v1";

fn replicas() -> [Element; 2] {
    ["f:spec".to_owned(), "f:replicas".to_owned()]
}

fn replicas_alone() -> Set {
    let mut set = Set::default();
    set.insert(&replicas());
    set
}

/// The `managedFields` of a Scale, from those of the scaled object.
#[must_use]
pub fn to_scale(parent: &Value) -> Value {
    let mut out = Managers::default();
    for entry in Managers::decode(parent).unwrap_or_default().iter().filter(|e| e.set.has(&replicas())) {
        let id = in_version(&entry.id, SCALE_VERSION);
        out.put(Entry { id, api_version: SCALE_VERSION.to_owned(), set: replicas_alone(), time: entry.time.clone() });
    }
    out.encode()
}

/// The `managedFields` of the scaled object (of this `apiVersion`) after its Scale was written.
#[must_use]
pub fn to_parent(parent: &Value, scale: &Value, api_version: &str) -> Value {
    let mut scale = Managers::decode(scale).unwrap_or_default();
    let mut out = Managers::default();
    for entry in Managers::decode(parent).unwrap_or_default().iter() {
        let kept = !entry.set.has(&replicas()) || scale.remove(&in_version(&entry.id, SCALE_VERSION)).is_some();
        let set = if kept { entry.set.clone() } else { entry.set.difference(&replicas_alone()) };
        if !set.is_empty() {
            out.put(Entry { set, ..entry.clone() });
        }
    }
    for entry in scale.iter().filter(|e| e.set.has(&replicas())) {
        let id = in_version(&entry.id, api_version);
        out.put(Entry { id, api_version: api_version.to_owned(), set: replicas_alone(), time: entry.time.clone() });
    }
    out.encode()
}

/// The same manager writing another version; appliers have none in their identity.
fn in_version(id: &Id, api_version: &str) -> Id {
    if id.applied { id.clone() } else { Id { api_version: api_version.to_owned(), ..id.clone() } }
}
