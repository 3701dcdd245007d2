//! May they: a request as the authoriser sees it, and the refusal.

use http::Method;
use stead_admission::authz::{self, Decision, Resource, Target};
use stead_machinery::ApiError;

use super::Identity;
use crate::path::Info;
use crate::server::ApiServer;

/// Paths that anybody may read, whatever the roles say.
const OPEN_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];

/// One question to the authoriser. Either a resource, or a `path` when `resource` is empty.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) name: &'a str,
    /// The field selector of a list or watch.
    pub(crate) selector: &'a str,
    pub(crate) path: &'a str,
}

impl<'a> Attributes<'a> {
    fn of(self, user: &'a Identity) -> authz::Attributes<'a> {
        let target = if self.resource.is_empty() {
            Target::Path(self.path)
        } else {
            Target::Resource(Resource {
                group: self.group,
                resource: self.resource,
                subresource: self.subresource,
                namespace: self.namespace,
                name: self.name,
                selector: self.selector,
            })
        };
        authz::Attributes { user: &user.name, groups: &user.groups, verb: self.verb, target }
    }
}

/// Asks for one request.
///
/// # Errors
/// Forbidden (403) in upstream's words.
pub(crate) fn authorize(server: &ApiServer, user: &Identity, method: &Method, info: &Info) -> Result<(), ApiError> {
    match info {
        Info::Path(path) => {
            if is_open(path) {
                return Ok(());
            }
            let verb = method.as_str().to_ascii_lowercase();
            check(server, user, &Attributes { verb: &verb, path, ..Attributes::default() })
        }
        Info::Resource(r) => check(
            server,
            user,
            &Attributes {
                verb: r.verb.as_str(),
                group: &r.group,
                namespace: &r.namespace,
                resource: &r.plural,
                subresource: &r.subresource,
                name: r.one_name(),
                selector: &r.selector,
                path: "",
            },
        ),
    }
}

fn is_open(path: &str) -> bool {
    OPEN_PATHS.iter().any(|open| path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Asks one question.
///
/// # Errors
/// Forbidden (403) in upstream's words.
pub(crate) fn check(server: &ApiServer, user: &Identity, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let attributes = attributes.of(user);
    let decision = authz::authorize(&attributes, &server.lookup());
    if decision.allowed() { Ok(()) } else { Err(authz::forbidden(&attributes, &decision)) }
}

/// Asks one question for a review: the decision itself.
pub(crate) fn decide(server: &ApiServer, user: &Identity, attributes: &Attributes<'_>) -> Decision {
    authz::authorize(&attributes.of(user), &server.lookup())
}
