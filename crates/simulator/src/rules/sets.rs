//! Sets: what people asked for stays what they asked for.

use serde_json::Value;

use crate::model::Set;
use crate::world::{Actor, Part};

/// A write to a set: only people change its spec, but for the controller that undoes a roll-out.
pub(crate) fn set(actor: Actor, before: Option<&Set>, now: Option<&Set>) -> Vec<String> {
    let (Some(before), Some(now)) = (before, now) else { return Vec::new() };
    if actor.part == Part::User || before.uid != now.uid || before.json["spec"] == now.json["spec"] {
        return Vec::new();
    }
    let but_template = |set: &Set| {
        let mut spec = set.json["spec"].clone();
        spec["template"] = Value::Null;
        spec
    };
    let undoes = actor.part == Part::Sets && before.annotation("stead.dev/progress-deadline-seconds").is_some();
    if undoes && but_template(before) == but_template(now) {
        return Vec::new();
    }
    vec!["changes what people asked for".to_owned()]
}
