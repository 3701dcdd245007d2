//! Server-side apply, and the record of who manages which field that every write keeps.
//!
//! [`track`] follows plain creates, updates and patches; [`apply`] merges a configuration and finds conflicts. Both work on
//! objects of one type; defaults are the caller's, before `track` and after `apply`.
//! Source of the rules and texts: `k8s.io/apimachinery/pkg/util/managedfields`, `sigs.k8s.io/structured-merge-diff/merge`.

mod managers;
mod scale;
mod set;
mod typed;

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use stead_api::schema::{Shape, schema};
use stead_api::{Kind, Subresource, convert, kinds};

use self::managers::{Entry, Id, Managers};
pub use self::scale::{to_parent, to_scale};
use self::set::{Element, Set, show};
use self::typed::{Comparison, Place};
use crate::ApiError;
use crate::decode::{self, Target};
use crate::field::{FieldErrorKind, FieldErrors, Path};
use crate::status::Reason;

/// Longest name of a manager, in bytes.
pub const MAX_MANAGER_BYTES: usize = 128;
/// Who managed the fields of an object that nobody had applied to.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager that `kubectl apply --server-side` goes by, which may take over from `kubectl apply`.
const KUBECTL: &str = "kubectl";
/// What `kubectl apply` remembers.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A write, as far as field management is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    pub manager: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub now: Timestamp,
}

/// What an apply came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub object: Value,
    /// False when the configuration changes nothing but, at most, who manages what.
    pub changed: bool,
}

/// The name of a request's manager: what it says, or else the program of its user agent.
#[must_use]
pub fn manager_name(field_manager: &str, user_agent: &str) -> String {
    if !field_manager.is_empty() {
        return field_manager.to_owned();
    }
    let program = user_agent.split('/').next().unwrap_or_default();
    let printable: String = program.chars().filter(|c| !c.is_control()).collect();
    let mut end = printable.len().min(MAX_MANAGER_BYTES);
    while !printable.is_char_boundary(end) {
        end -= 1;
    }
    if end == 0 { "unknown".to_owned() } else { printable[..end].to_owned() }
}

/// Checks the query parameter `fieldManager` of a request with these options: `PatchOptions`, `CreateOptions`, `UpdateOptions`.
///
/// # Errors
/// `Invalid` with upstream's text when it is missing from an apply, too long or not printable.
pub fn check_manager(options: &str, manager: &str, apply: bool) -> Result<(), ApiError> {
    let mut errors = FieldErrors::default();
    let path = Path::new("fieldManager");
    if apply && manager.is_empty() {
        errors.required(&path, "is required for apply patch");
    }
    if manager.len() > MAX_MANAGER_BYTES {
        errors.too_long(&path, MAX_MANAGER_BYTES);
    }
    if manager.chars().any(char::is_control) {
        errors.invalid(&path, &manager, "should only contain printable characters");
    }
    if errors.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
    let list = if list.len() == 1 { list.concat() } else { format!("[{}]", list.join(", ")) };
    let cause = |e: &crate::FieldError| json!({"reason": FieldErrorKind::reason(e.kind), "message": e.message, "field": e.field});
    let causes: Vec<Value> = errors.0.iter().map(cause).collect();
    let mut error = ApiError::new(Reason::Invalid, format!("{options}.meta.k8s.io \"\" is invalid: {list}"));
    error.details = json!({"group": "meta.k8s.io", "kind": options, "causes": causes});
    Err(error)
}

/// Writes into `new` who manages its fields after a create (`live` is none), update or patch.
///
/// As upstream, it is to be called when defaults are set and before admission and the kind's own preparation: what those add
/// belongs to nobody.
pub fn track(target: &Target<'_>, live: Option<&Value>, new: &mut Value, write: Write<'_>) {
    let empty = json!({});
    let live = live.unwrap_or(&empty);
    let managers = managers_of_update(live, new, !write.subresource.is_empty());
    let created = live["metadata"]["uid"].as_str().unwrap_or_default().is_empty();
    // when nobody has tracked an object so far, an update is no reason to begin
    let tracked = if managers.is_empty() && !created {
        managers
    } else {
        let mut managers = updated(target, live, new, managers, write);
        managers.cap();
        managers
    };
    put_managers(new, &tracked);
}

/// Those that the request gives, when it gives any; those of the live object otherwise.
fn managers_of_update(live: &Value, new: &Value, subresource: bool) -> Managers {
    let given = &new["metadata"]["managedFields"];
    let of_live = || Managers::decode(&live["metadata"]["managedFields"]).unwrap_or_default();
    if subresource {
        return of_live();
    }
    let reset = given
        .as_array()
        .is_some_and(|list| list.is_empty() || (list.len() == 1 && list[0].as_object().is_some_and(Map::is_empty)));
    if reset {
        return Managers::default();
    }
    Managers::decode(given).filter(|m| !m.is_empty()).unwrap_or_else(of_live)
}

/// The managers after a change from `old` to `new` by an updater.
fn updated(target: &Target<'_>, old: &Value, new: &Value, mut managers: Managers, write: Write<'_>) -> Managers {
    let id = Id::update(write.manager, &target.api_version(), write.subresource);
    let change = yield_fields(target, old, new, &mut managers, None, write.subresource);
    let taken = stripped(change.modified.union(&change.added));
    if taken.is_empty() {
        return managers;
    }
    let set = managers.get(&id).map_or_else(|| taken.clone(), |earlier| taken.union(&earlier.set));
    managers.put(Entry { id: id.clone(), api_version: target.api_version(), set, time: None });
    managers.touch(&id, write.now);
    managers
}

/// Takes changed and removed fields away from all managers but `except`; gives what changed.
fn yield_fields(
    target: &Target<'_>,
    old: &Value,
    new: &Value,
    managers: &mut Managers,
    except: Option<&Id>,
    subresource: &str,
) -> Comparison {
    let change = comparison(target, old, new, subresource);
    let own = target.api_version();
    managers.retain(|entry| entry.api_version == own || version_of(target, &entry.api_version).is_some());
    let gone = change.all();
    for entry in managers.iter_mut().filter(|entry| Some(&entry.id) != except) {
        match version_of(target, &entry.api_version).filter(|_| entry.api_version != own) {
            Some(kind) => entry.set.subtract(&comparison_in(target, kind, old, new, subresource).all()),
            None => entry.set.subtract(&gone),
        }
    }
    managers.retain(|entry| !entry.set.is_empty());
    change
}

/// The conflicts of a change with all managers but `except`: manager and path.
fn conflicts(
    target: &Target<'_>,
    old: &Value,
    new: &Value,
    managers: &Managers,
    except: &Id,
    subresource: &str,
) -> Vec<(Id, Vec<Element>)> {
    let change = comparison(target, old, new, subresource);
    let mut out = Vec::new();
    for entry in managers.iter().filter(|entry| entry.id != *except) {
        let change = match version_of(target, &entry.api_version).filter(|_| entry.api_version != target.api_version())
        {
            Some(kind) => &comparison_in(target, kind, old, new, subresource),
            None => &change,
        };
        let common = entry.set.intersection(&change.modified.union(&change.added));
        out.extend(common.paths().into_iter().map(|path| (entry.id.clone(), path)));
    }
    out
}

fn place(target: &Target<'_>) -> Place<'static> {
    Place::new(schema(), Shape::Struct(target.schema))
}

fn comparison(target: &Target<'_>, old: &Value, new: &Value, subresource: &str) -> Comparison {
    typed::compare(place(target), old, new).map(|set| without_ignored(target, subresource, set))
}

/// The change in the form of another version of the kind.
fn comparison_in(target: &Target<'_>, kind: &'static Kind, old: &Value, new: &Value, subresource: &str) -> Comparison {
    let Some(from) = kinds::by_kind(target.group, target.version, target.kind) else {
        return comparison(target, old, new, subresource);
    };
    let to = |object: &Value| convert::convert(from, kind, object.clone());
    comparison(&Target::of(kind), &to(old), &to(new), subresource)
}

/// Another version of the target's kind that shares its storage.
fn version_of(target: &Target<'_>, api_version: &str) -> Option<&'static Kind> {
    kinds::by_api_version(api_version, target.kind)
}

/// Without the fields that a write of this kind cannot change: the status by the object itself, the rest by the status.
fn without_ignored(target: &Target<'_>, subresource: &str, set: Set) -> Set {
    let kind = kinds::by_kind(target.group, target.version, target.kind);
    if !kind.is_some_and(|kind| kind.has(Subresource::Status)) {
        return set;
    }
    match subresource {
        "" => set.without_all_below(&["f:status"]),
        "status" if target.kind == "Pod" => set
            .without_all_below(&["f:spec"])
            .without_all_below(&["f:metadata", "f:deletionTimestamp"])
            .without_all_below(&["f:metadata", "f:ownerReferences"]),
        "status" => set.without_all_below(&["f:spec"]),
        _ => set,
    }
}

/// Without the fields that nobody manages: what identifies the object, and what the server alone writes.
fn stripped(mut set: Set) -> Set {
    static STRIP: LazyLock<Set> = LazyLock::new(unmanaged);
    set.subtract(&STRIP);
    set
}

fn unmanaged() -> Set {
    const METADATA: [&str; 9] = [
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:clusterName",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
    ];
    let mut strip = Set::default();
    for top in ["f:apiVersion", "f:kind", "f:metadata"] {
        strip.add_member(top);
    }
    for name in METADATA {
        strip.insert(&["f:metadata".to_owned(), name.to_owned()]);
    }
    strip
}

fn put_managers(object: &mut Value, managers: &Managers) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    match managers.encode() {
        Value::Null => _ = metadata.remove("managedFields"),
        fields => _ = metadata.insert("managedFields".to_owned(), fields),
    }
}

/// Applies a configuration to the live object (none: it does not exist yet).
///
/// # Errors
/// `Conflict` with a cause for each field that another manager owns with another value, unless `force`; `BadRequest` for a
/// configuration of another version or with managed fields; HTTP 500 as upstream for one that does not fit the schema.
pub fn apply(
    target: &Target<'_>,
    live: Option<&Value>,
    config: &Value,
    write: Write<'_>,
    force: bool,
) -> Result<Applied, ApiError> {
    check_config(target, config)?;
    let empty = json!({"apiVersion": target.api_version(), "kind": target.kind});
    let live = live.unwrap_or(&empty);
    let Some(mut managers) = Managers::decode(&live["metadata"]["managedFields"]) else {
        return Err(ApiError::new(Reason::Unknown, "failed to decode managed fields: not well formed"));
    };
    if managers.is_empty() {
        let before = Write { manager: BEFORE_FIRST_APPLY, ..write };
        managers = updated(target, &json!({}), live, managers, before);
    }
    let id = Id::apply(write.manager, write.subresource);
    let first = managers.get(&id).is_none();
    let (mut object, mut managers) = merged(target, live, config, managers, &id);
    let mut found = conflicts(target, live, &object, &managers, &id, write.subresource);
    if write.manager == KUBECTL && !found.is_empty() {
        let allowed = last_applied_fields(target, live);
        found.retain(|(_, path)| !allowed.has(path));
    }
    if !force && !found.is_empty() {
        return Err(conflict_error(&found));
    }
    yield_fields(target, live, &object, &mut managers, Some(&id), write.subresource);
    if let Some(entry) = managers.remove(&id) {
        let set = stripped(without_ignored(target, write.subresource, entry.set));
        if !set.is_empty() {
            managers.put(Entry { set, ..entry });
        }
    }
    // Only here, as upstream: what the configuration says is the applier's, even where Go's types do not keep it.
    object = through_types(target, &object, config)?;
    refresh_last_applied(&mut object, config, write.manager);
    let changed = object != *live;
    if changed || first {
        managers.touch(&id, write.now);
    }
    put_managers(&mut object, &managers);
    Ok(Applied { object, changed })
}

/// The merged object, and the managers with the applier's new set.
fn merged(target: &Target<'_>, live: &Value, config: &Value, mut managers: Managers, id: &Id) -> (Value, Managers) {
    let at = place(target);
    let merged = typed::merge(at, Some(live), Some(config));
    let last = managers.get(id).cloned();
    let set = typed::field_set(at, config);
    let time = last.as_ref().and_then(|entry| entry.time.clone());
    managers.put(Entry { id: id.clone(), api_version: target.api_version(), set, time });
    let object = match &last {
        Some(last) if !last.set.is_empty() => prune(target, &merged, &managers, last),
        _ => merged,
    };
    (without_nulls(object), managers)
}

/// Removes what the applier applied last time and now leaves out, unless another manager has it. Sets of other versions of the
/// kind are looked at in those versions.
fn prune(target: &Target<'_>, merged: &Value, managers: &Managers, last: &Entry) -> Value {
    let own = target.api_version();
    let Some(merged_then) = in_version(target, merged, &own, &last.api_version) else { return merged.clone() };
    let mut pruned = without(target, &last.api_version, &merged_then, |named, _| named(&last.set));
    let mut versions: Vec<&str> = managers.iter().map(|entry| entry.api_version.as_str()).collect();
    versions.sort_by_key(|version| *version != last.api_version);
    versions.dedup();
    for version in versions {
        let owned = managers.iter().filter(|entry| entry.api_version == version);
        let owned = owned.fold(Set::default(), |all, entry| all.union(&entry.set));
        let of_version = |object: &Value| in_version(target, object, &last.api_version, version);
        let (Some(merged), Some(rest)) = (of_version(&merged_then), of_version(&pruned)) else { continue };
        let kept = without(target, version, &merged, |named, fields| {
            named(&fields(&merged)).difference(&named(&fields(&rest)).union(&named(&owned)))
        });
        pruned = in_version(target, &kept, version, &last.api_version).unwrap_or(pruned);
    }
    // what nobody owned at all comes back too
    let pruned = without(target, &last.api_version, &merged_then, |named, fields| {
        named(&fields(&merged_then)).difference(&named(&fields(&pruned))).intersection(&named(&last.set))
    });
    in_version(target, &pruned, &last.api_version, &own).unwrap_or_else(|| merged.clone())
}

/// The object without a set that is reckoned from two functions: a set with its named fields, the fields of an object.
fn without(
    target: &Target<'_>,
    api_version: &str,
    object: &Value,
    gone: impl Fn(&dyn Fn(&Set) -> Set, &dyn Fn(&Value) -> Set) -> Set,
) -> Value {
    let at = version_of(target, api_version).map_or_else(|| place(target), |kind| place(&Target::of(kind)));
    let gone = gone(&|set| typed::with_named_fields(at, set), &|object| typed::field_set(at, object));
    typed::remove(at, object, &gone).unwrap_or_else(|| json!({}))
}

/// An object of one version of the target's kind in another version; none when there is no such version.
fn in_version(target: &Target<'_>, object: &Value, from: &str, to: &str) -> Option<Value> {
    if from == to {
        return Some(object.clone());
    }
    Some(convert::convert(version_of(target, from)?, version_of(target, to)?, object.clone()))
}

/// The object as upstream's types keep it: without zero values, with quantities in their canonical form.
fn through_types(target: &Target<'_>, object: &Value, config: &Value) -> Result<Value, ApiError> {
    decode::recheck(target, object).map(|(object, _)| object.into()).map_err(|fault| {
        let shown = shown(target, config);
        let why = format!("failed to convert new object ({shown}) to proper version: {}", fault.convert);
        ApiError::new(Reason::Unknown, why)
    })
}

/// What upstream's errors call a configuration: `namespace/name; apps/v1, Kind=StatefulSet`.
fn shown(target: &Target<'_>, config: &Value) -> String {
    let metadata = |key: &str| config["metadata"][key].as_str().unwrap_or_default();
    let (group, version) = (target.group, target.version);
    format!("{}/{}; {group}/{version}, Kind={}", metadata("namespace"), metadata("name"), target.kind)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            kept.map(|(key, value)| (key, without_nulls(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn check_config(target: &Target<'_>, config: &Value) -> Result<(), ApiError> {
    let said = |key: &str| config[key].as_str().unwrap_or_default();
    let wanted = target.api_version();
    if said("apiVersion") != wanted {
        let text = format!(
            "Incorrect version specified in apply patch. Specified patch version: {}, expected: {wanted}",
            said("apiVersion")
        );
        return Err(ApiError::bad_request(text));
    }
    let (group, version) = (target.group, target.version);
    if said("kind") != target.kind {
        let text = format!("invalid object type: {group}/{version}, Kind={}", said("kind"));
        return Err(ApiError::bad_request(text));
    }
    if !config["metadata"]["managedFields"].is_null() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let errors = typed::check(place(target), config);
    if errors.is_empty() {
        return Ok(());
    }
    let list = if errors.len() == 1 { errors[0].clone() } else { format!("errors:\n  {}", errors.join("\n  ")) };
    let object = shown(target, config);
    Err(ApiError::new(Reason::Unknown, format!("failed to create typed patch object ({object}): {list}")))
}

/// Fields that `kubectl apply` set and that still are as it set them: its server-side successor may take them.
fn last_applied_fields(target: &Target<'_>, live: &Value) -> Set {
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or_default();
    let Ok(last) = serde_json::from_str::<Value>(text) else { return Set::default() };
    if last["apiVersion"].as_str() != Some(&target.api_version()) {
        return Set::default();
    }
    let at = place(target);
    let change = typed::compare(at, &last, live);
    typed::field_set(at, &last).difference(&change.modified).difference(&change.added).difference(&change.removed)
}

/// Keeps the annotation of `kubectl apply` true, where it is, so that one can go back to it.
fn refresh_last_applied(object: &mut Value, config: &Value, manager: &str) {
    let annotations = object.get_mut("metadata").and_then(|m| m.get_mut("annotations")).and_then(Value::as_object_mut);
    if let (KUBECTL, Some(annotations)) = (manager, annotations)
        && annotations.contains_key(LAST_APPLIED)
    {
        annotations.insert(LAST_APPLIED.to_owned(), format!("{config}\n").into());
    }
}

fn conflict_error(found: &[(Id, Vec<Element>)]) -> ApiError {
    let cause = |(id, path): &(Id, Vec<Element>)| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {}", id.show()), "field": show(path)});
    let message = match found {
        [(id, path)] => format!("Apply failed with 1 conflict: conflict with {}: {}", id.show(), show(path)),
        _ => {
            let mut lines: Vec<String> = Vec::new();
            let mut of: Option<&Id> = None;
            for (id, path) in found {
                if of != Some(id) {
                    lines.push(format!("conflicts with {}:", id.show()));
                    of = Some(id);
                }
                lines.push(format!("- {}", show(path)));
            }
            format!("Apply failed with {} conflicts: {}", found.len(), lines.join("\n"))
        }
    };
    let causes: Vec<Value> = found.iter().map(cause).collect();
    let mut error = ApiError::new(Reason::Conflict, message);
    error.details = json!({"causes": causes});
    error
}

#[cfg(test)]
mod tests;
