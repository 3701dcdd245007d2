//! From a request for a resource to the verb that serves it. Every verb serves every kind.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod patch;
pub(crate) mod render;
pub(crate) mod update;
pub(crate) mod watch;
pub(crate) mod write;

use serde_json::json;
use stead_api::kinds::Origin;
use stead_api::{Kind, Subresource, kinds};
use stead_machinery::ApiError;
use stead_machinery::status::Reason;

use crate::chain::Call;
use crate::path::{ResourceRequest, Verb};
use crate::response::{self, Answer};
use crate::server::ApiServer;
use crate::{measured, subresources};

/// The kind and object that a request is about. `name` is empty for collections, `namespace` for all of them.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Target {
    pub(crate) fn key(&self) -> String {
        crate::objects::key_of(self.kind, &self.namespace, &self.name)
    }

    pub(crate) fn not_found(&self) -> ApiError {
        ApiError::not_found(self.kind, &self.name)
    }
}

/// Serves a request that is authorised.
pub(crate) async fn dispatch(server: &ApiServer, request: ResourceRequest, call: Call) -> Result<Answer, ApiError> {
    let ResourceRequest { verb, group, version, namespace, plural, name, subresource, rest, .. } = request;
    let Some(kind) = kinds::by_resource(&group, &version, &plural) else {
        let known = group.is_empty() || kinds::KINDS.iter().any(|k| k.group == group);
        return if known { Err(no_resource()) } else { Ok(response::page_not_found()) };
    };
    // `namespaces/NAME` names a namespace twice: as the object and as the place for authorisation.
    let namespace = if kind.plural == "namespaces" { String::new() } else { namespace };
    if !kind.namespaced() && !namespace.is_empty() {
        return Err(no_resource());
    }
    let target = Target { kind, namespace, name };
    if !subresource.is_empty() {
        let known = kind.subresources.iter().find(|s| s.name() == subresource).ok_or_else(no_resource)?;
        if target.kind.namespaced() && target.namespace.is_empty() {
            return Err(no_resource());
        }
        return subresources::dispatch(server, target, *known, verb, &rest, call).await;
    }
    match (kind.origin, verb) {
        (Origin::Stored, _) => {}
        (Origin::Asked, Verb::Create) => return subresources::review(server, &target, &call).await,
        (Origin::Measured, Verb::List | Verb::Get) => return measured::serve(server, &target, &call).await,
        (Origin::Asked | Origin::Measured, _) => return Err(not_allowed()),
    }
    if !kind.verbs().contains(&verb.as_str()) {
        return Err(not_allowed());
    }
    object(server, target, verb, call).await
}

async fn object(server: &ApiServer, target: Target, verb: Verb, call: Call) -> Result<Answer, ApiError> {
    let placeless = target.kind.namespaced() && target.namespace.is_empty();
    match verb {
        Verb::List => list::list(server, &target, &call).await,
        Verb::Watch => watch::watch(server, target, call).await,
        _ if placeless && !target.name.is_empty() => Err(no_resource()),
        _ if placeless => Err(not_allowed()),
        Verb::Get => get::get(server, &target, &call).await,
        Verb::Create if target.name.is_empty() => create::create(server, target, &call).await,
        Verb::Update if !target.name.is_empty() => update::update(server, &target, None, &call).await,
        Verb::Patch if !target.name.is_empty() => patch::patch(server, &target, None, &call).await,
        Verb::Delete => delete::delete(server, &target, &call).await,
        Verb::DeleteCollection => delete::delete_collection(server, &target, &call).await,
        Verb::Create | Verb::Update | Verb::Patch | Verb::Other => Err(not_allowed()),
    }
}

/// A group or version that is known, with a resource or sub-resource that is not.
pub(crate) fn no_resource() -> ApiError {
    let mut error = ApiError::new(Reason::NotFound, "the server could not find the requested resource");
    error.details = json!({});
    error
}

pub(crate) fn not_allowed() -> ApiError {
    let text = "the server does not allow this method on the requested resource";
    let mut error = ApiError::new(Reason::MethodNotAllowed, text);
    error.details = json!({});
    error
}

/// Which sub-resources are the object itself seen through a narrower door.
pub(crate) fn is_view(sub: Subresource) -> bool {
    matches!(
        sub,
        Subresource::Status
            | Subresource::Finalize
            | Subresource::Approval
            | Subresource::EphemeralContainers
            | Subresource::Resize
    )
}
