//! Sub-resources: each is served once, for every kind that lists it.

mod binding;
mod budget;
mod eviction;
mod node;
mod pages;
mod passing;
mod proxy;
mod review;
mod scale;
mod token;

use http::StatusCode;
use serde_json::{Value, json};
use stead_api::Subresource;
use stead_machinery::ApiError;

pub(crate) use review::review;

use crate::chain::Call;
use crate::negotiate::Form;
use crate::path::Verb;
use crate::response::{self, Answer};
use crate::server::ApiServer;
use crate::verbs::{self, Target, get, patch, update};

/// Serves a request for a sub-resource that the kind has.
pub(crate) async fn dispatch(
    server: &ApiServer,
    target: Target,
    sub: Subresource,
    verb: Verb,
    rest: &str,
    call: Call,
) -> Result<Answer, ApiError> {
    match (sub, verb) {
        (Subresource::Finalize, Verb::Get | Verb::Patch) => Err(verbs::not_allowed()),
        (_, Verb::Get) if verbs::is_view(sub) => get::get(server, &target, &call).await,
        (_, Verb::Update) if verbs::is_view(sub) => update::update(server, &target, Some(sub), &call).await,
        (_, Verb::Patch) if verbs::is_view(sub) => patch::patch(server, &target, Some(sub), &call).await,
        (Subresource::Scale, Verb::Get) => scale::get(server, &target, &call).await,
        (Subresource::Scale, Verb::Update) => scale::update(server, &target, &call).await,
        (Subresource::Scale, Verb::Patch) => scale::patch(server, &target, &call).await,
        (Subresource::Binding, Verb::Create) => binding::create(server, &target, &call).await,
        (Subresource::Eviction, Verb::Create) => eviction::create(server, &target, &call).await,
        (Subresource::Token, Verb::Create) => token::create(server, &target, &call).await,
        (Subresource::Log, Verb::Get) => node::log(server, &target, call).await,
        (Subresource::Exec, Verb::Get | Verb::Create) => node::stream(server, &target, "exec", call).await,
        (Subresource::Attach, Verb::Get | Verb::Create) => node::stream(server, &target, "attach", call).await,
        (Subresource::PortForward, Verb::Get | Verb::Create) => node::port_forward(server, &target, call).await,
        (Subresource::Proxy, _) if target.kind.plural == "nodes" => node::proxy(server, &target, rest, call).await,
        (Subresource::Proxy, _) => proxy::proxy(server, &target, rest, call).await,
        _ => Err(verbs::not_allowed()),
    }
}

/// What a sub-resource answers that has nothing to show.
fn success(code: StatusCode, form: Form) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code.as_u16(),
    });
    response::json_value(code, form, &status)
}

/// The present object, parsed.
async fn present(server: &ApiServer, target: &Target) -> Result<Value, ApiError> {
    let entry = server.0.store.get(target.key().as_bytes()).await.map_err(verbs::write::store_failed)?;
    let entry = entry.ok_or_else(|| target.not_found())?;
    crate::objects::decode(&entry.value, entry.modified).map_err(|e| ApiError::internal(&e.to_string()))
}
