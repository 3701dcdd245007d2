//! Logs, exec, attach, port-forward and the proxy of nodes: requests that a node agent answers. Upgraded connections pass
//! through byte by byte, whatever protocol runs on them.

use std::fmt::Display;

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use serde_json::Value;
use stead_machinery::status::Reason;
use stead_machinery::{ApiError, FieldErrors, Path};

use super::passing::{self, plain_headers, upgrade_headers};
use super::present;
use crate::chain::{Call, Streamed, no_body};
use crate::options::{judged_as, parse_int};
use crate::path::Query;
use crate::response::{self, Answer};
use crate::server::ApiServer;
use crate::verbs::Target;

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Error texts of node agents are read up to this many bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;

pub(super) async fn log(server: &ApiServer, target: &Target, mut call: Call) -> Result<Answer, ApiError> {
    let pod = present(server, target).await?;
    let query = log_query(&target.name, &call.query)?;
    let container = container(&pod, &target.name, call.query.get("container"))?;
    let node = node_of(&pod);
    if node.is_empty() {
        // No node has it yet, so there is nothing to show.
        return Ok(response::text(StatusCode::OK, Bytes::new()));
    }
    let path = format!("/containerLogs/{}/{}/{container}{}{query}", target.namespace, target.name, mark(&query));
    // Browsers take a log over a WebSocket.
    let socket = call.headers().get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let upgrade = call.upgrade.take().filter(|_| socket);
    let headers = if socket { upgrade_headers(call.headers()) } else { HeaderMap::new() };
    let answer = forward(server, &node, Method::GET, &path, headers, no_body(), upgrade).await?;
    let mut answer = checked(answer).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let plain = (header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        *answer.headers_mut() = HeaderMap::from_iter([plain]);
    }
    Ok(answer)
}

/// Exec and attach.
pub(super) async fn stream(
    server: &ApiServer,
    target: &Target,
    what: &str,
    mut call: Call,
) -> Result<Answer, ApiError> {
    let pod = present(server, target).await?;
    let container = container(&pod, &target.name, call.query.get("container"))?;
    let node = placed(&pod, &target.name)?;
    let upgrade = call.upgrade.take().ok_or_else(upgrade_required)?;
    let query = stream_query(&call.query);
    let path = format!("/{what}/{}/{}/{container}{}{query}", target.namespace, target.name, mark(&query));
    let headers = upgrade_headers(call.headers());
    let method = call.parts.method.clone();
    forward(server, &node, method, &path, headers, no_body(), Some(upgrade)).await
}

/// Exec options in the names that node agents know.
fn stream_query(query: &Query) -> String {
    let mut out = Serializer::new(String::new());
    for (flag, name) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(flag) {
            out.append_pair(name, "1");
        }
    }
    for part in query.all("command") {
        out.append_pair("command", part);
    }
    out.finish()
}

fn port_query(query: &Query) -> String {
    let mut out = Serializer::new(String::new());
    for port in query.all("ports") {
        out.append_pair("port", port);
    }
    out.finish()
}

pub(super) async fn port_forward(server: &ApiServer, target: &Target, mut call: Call) -> Result<Answer, ApiError> {
    let pod = present(server, target).await?;
    let node = placed(&pod, &target.name)?;
    let upgrade = call.upgrade.take().ok_or_else(upgrade_required)?;
    let query = port_query(&call.query);
    let path = format!("/portForward/{}/{}{}{query}", target.namespace, target.name, mark(&query));
    let headers = upgrade_headers(call.headers());
    let method = call.parts.method.clone();
    forward(server, &node, method, &path, headers, no_body(), Some(upgrade)).await
}

/// `nodes/NAME/proxy/...`: anything else that a node agent serves.
pub(super) async fn proxy(server: &ApiServer, target: &Target, rest: &str, mut call: Call) -> Result<Answer, ApiError> {
    present(server, target).await?;
    let query = call.parts.uri.query().unwrap_or("");
    let path = format!("/{rest}{}{query}", mark(query));
    let upgrade = call.upgrade.take();
    let headers = if upgrade.is_some() { upgrade_headers(call.headers()) } else { plain_headers(call.headers()) };
    let (method, body) = (call.parts.method.clone(), call.take_stream());
    forward(server, &target.name, method, &path, headers, body, upgrade).await
}

fn mark(query: &str) -> &'static str {
    if query.is_empty() { "" } else { "?" }
}

fn upgrade_required() -> ApiError {
    ApiError::bad_request("Upgrade request required")
}

fn node_of(pod: &Value) -> String {
    pod["spec"]["nodeName"].as_str().unwrap_or("").to_owned()
}

fn placed(pod: &Value, name: &str) -> Result<String, ApiError> {
    let node = node_of(pod);
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    Ok(node)
}

/// The container that a request means: named, the only one, or the one that the pod's annotation names.
fn container(pod: &Value, name: &str, asked: &str) -> Result<String, ApiError> {
    let names_of = |list: &str| -> Vec<String> {
        let list = pod["spec"][list].as_array().into_iter().flatten();
        list.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
    };
    let own = names_of("containers");
    let all: Vec<String> =
        [names_of("initContainers"), own.clone(), names_of("ephemeralContainers")].into_iter().flatten().collect();
    if !asked.is_empty() {
        return match all.iter().any(|c| c == asked) {
            true => Ok(asked.to_owned()),
            false => Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}"))),
        };
    }
    let preferred = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str().unwrap_or("");
    match own.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {name}"))),
        many if many.iter().any(|c| c == preferred) => Ok(preferred.to_owned()),
        _ => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
    }
}

/// The options of a log request, judged and in the order that node agents know.
fn log_query(pod: &str, query: &Query) -> Result<String, ApiError> {
    let mut errors = FieldErrors::default();
    let mut out = Serializer::new(String::new());
    for flag in ["follow", "previous", "timestamps"] {
        if query.flag(flag) {
            out.append_pair(flag, "true");
        }
    }
    let (seconds, time) = (query.get("sinceSeconds"), query.get("sinceTime"));
    if !seconds.is_empty() && !time.is_empty() {
        errors.forbidden(&Path::new("sinceSeconds"), "at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
    let texts = ["must be greater than 0", "must be greater than or equal to 0", "must be greater than 0"];
    for ((name, least), text) in [("sinceSeconds", 1), ("tailLines", 0), ("limitBytes", 1)].into_iter().zip(texts) {
        let value = query.get(name);
        if value.is_empty() {
            continue;
        }
        let number = parse_int(value)?;
        if number < least {
            errors.invalid(&Path::new(name), &number, text);
        }
        out.append_pair(name, value);
    }
    if !time.is_empty() {
        out.append_pair("sinceTime", time);
    }
    let stream = query.get("stream");
    if !matches!(stream, "" | "All" | "Stdout" | "Stderr") {
        errors.not_supported(&Path::new("stream"), &stream, &["All", "Stderr", "Stdout"]);
    }
    if !matches!(stream, "" | "All") {
        out.append_pair("stream", stream);
    }
    judged_as("", "PodLogOptions", pod, &errors)?;
    Ok(out.finish())
}

/// Sends a request to a node agent and passes its answer on; after 101 both sides talk directly.
async fn forward(
    server: &ApiServer,
    node: &str,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: Streamed,
    upgrade: Option<OnUpgrade>,
) -> Result<Answer, ApiError> {
    let failed = |why: &dyn Display| ApiError::internal(&format!("error dialing backend: {why}"));
    let io = server.dial(node).await.map_err(|error| failed(&error))?;
    let request = passing::request(method, path, node, headers, body).map_err(|error| failed(&error))?;
    let sent = passing::send(io, request).await.map_err(|error| failed(&error))?;
    Ok(if sent.switches() { sent.switch(upgrade, server.0.closing.clone()) } else { sent.pass_on() })
}

/// Turns a refusal of a node agent, which is text, into an error of this API.
async fn checked(answer: Answer) -> Result<Answer, ApiError> {
    let code = answer.status();
    if code.is_success() || code == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let text = passing::text(answer.into_body(), ERROR_BYTES_MAX).await;
    Err(match code {
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::NOT_FOUND => {
            ApiError::new(Reason::NotFound, format!("the server could not find the requested resource: {text}"))
        }
        _ => ApiError::internal(&text),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_chosen_as_upstream_does() {
        let one = json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        let two = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let mut annotated = two.clone();
        annotated["metadata"]["annotations"][DEFAULT_CONTAINER] = "b".into();
        for (pod, asked, want) in [
            (&one, "", "a"),
            (&one, "i", "i"),
            (&one, "x", "container x is not valid for pod p"),
            (&two, "", "a container name must be specified for pod p, choose one of: [i a b]"),
            (&annotated, "", "b"),
        ] {
            assert_eq!(container(pod, "p", asked).unwrap_or_else(|e| e.message), want);
        }
    }

    #[test]
    fn log_options() {
        for (query, want) in [
            ("follow=true&tailLines=5&container=c", "follow=true&tailLines=5"),
            (
                "tailLines=-1",
                "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "sinceSeconds=0",
                "PodLogOptions \"p\" is invalid: sinceSeconds: Invalid value: 0: must be greater than 0",
            ),
        ] {
            assert_eq!(log_query("p", &Query::parse(Some(query))).unwrap_or_else(|e| e.message), want);
        }
    }
}
