//! Scale: the replicas of any kind that has them, in the form of autoscaling/v1.

use http::StatusCode;
use serde_json::{Map, Value, json};
use stead_machinery::apply;
use stead_machinery::decode::Target as Schema;
use stead_machinery::selector::Selector;
use stead_machinery::{ApiError, FieldErrors, Path};

use super::present;
use crate::chain::Call;
use crate::decode;
use crate::negotiate::{self, Form};
use crate::objects;
use crate::options::{WriteOptions, judged_as};
use crate::response::{self, Answer};
use crate::server::ApiServer;
use crate::verbs::Target;
use crate::verbs::patch::{PatchKind, patched};
use crate::verbs::update::Change;

/// The name of the sub-resource, for the record of managers.
const SCALE: &str = "scale";

pub(super) async fn get(server: &ApiServer, target: &Target, call: &Call) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, false, false)?;
    let object = present(server, target).await?;
    Ok(response::json_value(StatusCode::OK, form, &scale_of(&object)))
}

pub(super) async fn update(server: &ApiServer, target: &Target, call: &Call) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, false, false)?;
    let options = WriteOptions::read("UpdateOptions", &call.query, false)?;
    let (wanted, _) = decode::object_as(&schema()?, call, &options)?;
    let name = wanted["metadata"]["name"].as_str().unwrap_or("");
    if name != target.name {
        let text = format!("the name of the object ({name}) does not match the name on the URL ({})", target.name);
        return Err(ApiError::bad_request(text));
    }
    change(server, target, call, form, &options, &mut |_| Ok((wanted.clone(), false))).await
}

pub(super) async fn patch(server: &ApiServer, target: &Target, call: &Call) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, false, false)?;
    let how = PatchKind::read(call)?;
    let options = WriteOptions::read("PatchOptions", &call.query, how == PatchKind::Apply)?;
    let schema = schema()?;
    if how == PatchKind::Apply {
        let config = decode::yaml(&call.body)?;
        let write = decode::written(&options.field_manager, SCALE);
        return change(server, target, call, form, &options, &mut |scale| {
            Ok((apply::apply(&schema, Some(scale), &config, write, options.force)?.object, true))
        })
        .await;
    }
    change(server, target, call, form, &options, &mut |scale| {
        patched(how, &schema, scale, &call.body, &options).map(|(scale, _)| (scale, false))
    })
    .await
}

fn schema() -> Result<Schema<'static>, ApiError> {
    Schema::named("autoscaling", "v1", "Scale").ok_or_else(|| ApiError::internal("there is no schema of Scale"))
}

/// Makes the wanted Scale from the present one, and says whether its managers are noted already.
type Wanted<'a> = &'a mut (dyn FnMut(&Value) -> Result<(Value, bool), ApiError> + Send);

/// Sets the replicas of the object that is scaled.
async fn change(
    server: &ApiServer,
    target: &Target,
    call: &Call,
    form: Form,
    options: &WriteOptions,
    wanted: Wanted<'_>,
) -> Result<Answer, ApiError> {
    let change = Change { target, sub: None, user: &call.user, dry_run: options.dry_run };
    let schema = schema()?;
    let manager = decode::manager(options, call);
    let done = change
        .run(server, &mut |old| {
            let managers = &old["metadata"]["managedFields"];
            let mut present = scale_of(old);
            put(&mut present["metadata"], "managedFields", apply::to_scale(managers));
            let (mut scale, noted) = wanted(&present)?;
            let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
            judge(&target.name, replicas)?;
            if !noted {
                apply::track(&schema, Some(&present), &mut scale, decode::written(&manager, SCALE));
            }
            let mut new = old.clone();
            let managers = apply::to_parent(managers, &scale["metadata"]["managedFields"], &target.kind.api_version());
            put(&mut new["metadata"], "managedFields", managers);
            new["spec"]["replicas"] = replicas.into();
            for key in ["resourceVersion", "uid"] {
                if let Some(text) = scale["metadata"][key].as_str().filter(|v| !v.is_empty()) {
                    new["metadata"][key] = text.into();
                }
            }
            Ok(new)
        })
        .await?;
    let object =
        objects::decode(&done.entry.value, done.entry.modified).map_err(|e| ApiError::internal(&e.to_string()))?;
    Ok(response::json_value(StatusCode::OK, form, &scale_of(&object)))
}

/// Sets a field, or removes it when there is nothing to set.
fn put(object: &mut Value, key: &str, value: Value) {
    match object.as_object_mut() {
        Some(map) if value.is_null() => drop(map.remove(key)),
        Some(map) => drop(map.insert(key.to_owned(), value)),
        None => {}
    }
}

fn judge(name: &str, replicas: i64) -> Result<(), ApiError> {
    let mut errors = FieldErrors::default();
    if replicas < 0 {
        errors.invalid(&Path::new("spec").child("replicas"), &replicas, "must be greater than or equal to 0");
    }
    judged_as("autoscaling", "Scale", name, &errors)
}

/// The Scale that an object shows.
fn scale_of(object: &Value) -> Value {
    let mut metadata = Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !object["metadata"][key].is_null() {
            metadata.insert(key.to_owned(), object["metadata"][key].clone());
        }
    }
    let mut status = json!({"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)});
    let selector = selector_text(&object["spec"]["selector"]);
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let mut spec = json!({});
    match object["spec"]["replicas"].as_i64() {
        Some(0) | None => {}
        Some(replicas) => spec["replicas"] = replicas.into(),
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// A selector as text: `app=web,tier in (a,b)`. Replication controllers have a bare map.
fn selector_text(selector: &Value) -> String {
    let Some(fields) = selector.as_object() else { return String::new() };
    if fields.contains_key("matchLabels") || fields.contains_key("matchExpressions") {
        return Selector::from_object(selector).map(|s| s.to_string()).unwrap_or_default();
    }
    Selector::from_map(fields.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))).to_string()
}

#[cfg(test)]
mod tests {
    use stead_machinery::decode::{Content, decode_as};

    use super::*;

    #[test]
    fn selectors_as_text() {
        for (selector, want) in [
            (json!({"matchLabels": {"b": "2", "a": "1"}}), "a=1,b=2"),
            (json!({"a": "1"}), "a=1"),
            (
                json!({"matchExpressions": [{"key": "t", "operator": "In", "values": ["y", "x"]}, {"key": "q", "operator": "DoesNotExist"}]}),
                "!q,t in (x,y)",
            ),
            (Value::Null, ""),
        ] {
            assert_eq!(selector_text(&selector), want);
        }
    }

    #[test]
    fn a_scale_has_a_schema() {
        let schema = schema().unwrap();
        let body = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "spec": {"replicas": 2}});
        assert!(decode_as(&schema, Content::Value(body), stead_machinery::decode::FieldValidation::Strict).is_ok());
    }
}
