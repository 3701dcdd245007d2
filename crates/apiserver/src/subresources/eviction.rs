//! Eviction: a delete that asks the disruption budgets first.

use http::StatusCode;
use serde_json::{Value, json};
use stead_api::Subresource;
use stead_machinery::ApiError;
use stead_machinery::decode::Target as Schema;
use stead_machinery::status::Reason;

use super::budget::{self, Leave};
use super::{present, success};
use crate::chain::Call;
use crate::decode;
use crate::negotiate;
use crate::options::{DeleteOptions, WriteOptions};
use crate::path::Query;
use crate::response::Answer;
use crate::server::ApiServer;
use crate::verbs::update::Change;
use crate::verbs::write::seconds;
use crate::verbs::{Target, delete};

/// How often an eviction is tried while the pod changes.
const TRIES_MAX: usize = 20;

pub(super) async fn create(server: &ApiServer, target: &Target, call: &Call) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, false, false)?;
    let options = WriteOptions::read("CreateOptions", &call.query, false)?;
    let schema = Schema::named("policy", "v1", "Eviction")
        .ok_or_else(|| ApiError::internal("there is no schema of Eviction"))?;
    let (eviction, _) = decode::object_as(&schema, call, &options)?;
    let name = eviction["metadata"]["name"].as_str().unwrap_or("");
    if !name.is_empty() && name != target.name {
        let text = format!("name in URL does not match name in Eviction object: {} != {name}", target.name);
        return Err(ApiError::bad_request(text));
    }
    let body: Value = if eviction["deleteOptions"].is_object() { eviction["deleteOptions"].clone() } else { json!({}) };
    let mut delete_options = DeleteOptions::read(&Query::default(), Some(&body))?;
    delete_options.dry_run |= options.dry_run;
    for _ in 0..TRIES_MAX {
        match evict(server, target, call, delete_options.clone()).await? {
            Evicted::Done => return Ok(success(StatusCode::CREATED, form)),
            Evicted::Changed => {}
        }
    }
    Err(ApiError::conflict(target.kind, &target.name, "the pod keeps changing while it is evicted; try again"))
}

enum Evicted {
    Done,
    /// The pod changed while nothing but that it did not work spoke for its eviction.
    Changed,
}

async fn evict(
    server: &ApiServer,
    target: &Target,
    call: &Call,
    mut options: DeleteOptions,
) -> Result<Evicted, ApiError> {
    let pod = present(server, target).await?;
    delete::preconditions(target, &options, &pod)?;
    let leave = budget::spend(server, target, &pod, options.dry_run, &call.user).await?;
    let as_seen = leave == Leave::NoLoss && options.resource_version.is_none();
    if as_seen {
        options.resource_version = pod["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    }
    let going = async {
        if !options.dry_run && pod["metadata"]["deletionTimestamp"].is_null() {
            mark(server, target, call, &mut options).await?;
        }
        delete::remove(server, target, &options, &call.user).await
    };
    match going.await {
        Err(error) if as_seen && error.reason == Reason::Conflict => Ok(Evicted::Changed),
        done => done.map(|_| Evicted::Done),
    }
}

/// Says in the pod's conditions why it goes. Who named the version to be evicted means the marked one then.
async fn mark(server: &ApiServer, target: &Target, call: &Call, options: &mut DeleteOptions) -> Result<(), ApiError> {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": seconds(crate::source::now()),
    });
    let change = Change { target, sub: Some(Subresource::Status), user: &call.user, dry_run: false };
    let marked = |pod: &Value| {
        delete::preconditions(target, options, pod)?;
        let mut pod = pod.clone();
        let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "DisruptionTarget");
        conditions.push(condition.clone());
        pod["status"]["conditions"] = conditions.into();
        Ok(pod)
    };
    let changed = change.run(server, &mut |pod| marked(pod)).await?;
    options.resource_version = options.resource_version.take().map(|_| changed.entry.modified.to_string());
    Ok(())
}
