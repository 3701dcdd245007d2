//! Requests to the API server: one method for all verbs, watches, discovery. No decisions.

use std::cell::RefCell;
use std::collections::HashSet;
use std::error::Error as _;
use std::rc::Rc;

use futures::stream::BoxStream;
use futures::{AsyncBufReadExt as _, StreamExt as _};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::failure::{Failure, Result};
use crate::resources::Resources;

/// What asks for server-side tables.
pub(crate) const TABLE: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
const JSON: &str = "application/json";
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
/// Items per page of a list, as kubectl asks for them.
pub(crate) const CHUNK: usize = 500;

/// One API server.
pub(crate) struct Server {
    pub(crate) client: kube::Client,
    /// As the kubeconfig names it.
    pub(crate) url: String,
    resources: OnceCell<Rc<Resources>>,
    warned: RefCell<HashSet<String>>,
}

/// One request.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) query: Vec<(&'a str, String)>,
    pub(crate) accept: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) body: Vec<u8>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, path: &'a str) -> Self {
        Self { method, path, query: Vec::new(), accept: JSON, content_type: JSON, body: Vec::new() }
    }

    pub(crate) fn query(mut self, query: Vec<(&'a str, String)>) -> Self {
        self.query = query;
        self
    }

    pub(crate) fn accept(mut self, accept: &'a str) -> Self {
        self.accept = accept;
        self
    }

    pub(crate) fn body(mut self, content_type: &'a str, body: Vec<u8>) -> Self {
        self.content_type = content_type;
        self.body = body;
        self
    }

    fn target(&self) -> String {
        if self.query.is_empty() {
            return self.path.to_owned();
        }
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.query).finish();
        format!("{}?{query}", self.path)
    }

    pub(crate) fn request<B>(self, body: impl FnOnce(Vec<u8>) -> B) -> Result<Request<B>> {
        let mut request = Request::builder().method(&self.method).uri(self.target()).header("accept", self.accept);
        if !self.body.is_empty() {
            request = request.header("content-type", self.content_type);
        }
        request.body(body(self.body)).map_err(|error| Failure::Plain(error.to_string()))
    }
}

impl Server {
    /// Of a configuration; nothing is sent yet.
    pub(crate) fn new(config: kube::Config) -> Result<Self> {
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = stead_client::from_config(config).map_err(|error| Failure::Plain(error.to_string()))?;
        Ok(Self { client, url, resources: OnceCell::new(), warned: RefCell::default() })
    }

    /// Sends a request and reads its whole answer.
    pub(crate) async fn send(&self, call: Call<'_>) -> Result<Value> {
        let text = self.text(call).await?;
        serde_json::from_str(&text).map_err(|error| Failure::Plain(format!("the server's answer is not JSON: {error}")))
    }

    /// The same; the answer as text.
    pub(crate) async fn text(&self, call: Call<'_>) -> Result<String> {
        let request = call.request(Body::from)?;
        let response = self.client.send(request).await.map_err(|error| self.unreachable(&error))?;
        self.warn(response.headers());
        let code = response.status();
        let body = response.into_body().collect().await.map_err(|error| self.unreachable(&error))?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if code.is_success() { Ok(text) } else { Err(Failure::api(status_of(code.as_u16(), &text))) }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.send(Call::new(Method::GET, path)).await
    }

    /// All items of a list, page by page, as one list.
    pub(crate) async fn list(&self, path: &str, query: &[(&str, String)], accept: &str) -> Result<Value> {
        let mut whole = Value::Null;
        let mut go_on = String::new();
        loop {
            let mut query = query.to_vec();
            query.push(("limit", CHUNK.to_string()));
            if !go_on.is_empty() {
                query.push(("continue", go_on));
            }
            let page = self.send(Call::new(Method::GET, path).query(query).accept(accept)).await?;
            go_on = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            whole = join(whole, page);
            if go_on.is_empty() {
                return Ok(whole);
            }
        }
    }

    /// The lines of an answer that goes on: events of a watch, a log.
    pub(crate) async fn lines(&self, call: Call<'_>) -> Result<BoxStream<'static, std::io::Result<String>>> {
        let request = call.request(|body| body)?;
        let stream = self.client.request_stream(request).await.map_err(|error| self.failure(error))?;
        Ok(stream.lines().boxed())
    }

    /// The events of a watch, each `{type, object}`. Ends when the server ends it.
    pub(crate) async fn watch(
        &self,
        path: &str,
        mut query: Vec<(&str, String)>,
        accept: &str,
    ) -> Result<BoxStream<'static, Result<Value>>> {
        query.push(("watch", "true".to_owned()));
        let lines = self.lines(Call::new(Method::GET, path).query(query).accept(accept)).await?;
        let event = |line: std::io::Result<String>| {
            let line = line.map_err(Failure::from)?;
            let event: Value = serde_json::from_str(&line).map_err(|error| Failure::Plain(error.to_string()))?;
            if event["type"] == "ERROR" { Err(Failure::api(event["object"].clone())) } else { Ok(event) }
        };
        Ok(lines.map(event).boxed())
    }

    /// What the server serves; asked for once.
    pub(crate) async fn resources(&self) -> Result<Rc<Resources>> {
        self.resources.get_or_try_init(|| self.discover()).await.cloned()
    }

    async fn discover(&self) -> Result<Rc<Resources>> {
        let mut found = Resources::default();
        for root in ["/api", "/apis"] {
            let answer = self.send(Call::new(Method::GET, root).accept(DISCOVERY)).await?;
            if answer["kind"] == "APIGroupDiscoveryList" {
                found.add_aggregated(&answer);
                continue;
            }
            for version in plain_versions(&answer) {
                let list = self.get(&format!("{root}/{version}")).await;
                match list {
                    Ok(list) => found.add_list(&list),
                    Err(Failure::Api(_)) => {}
                    Err(other) => return Err(other),
                }
            }
        }
        Ok(Rc::new(found))
    }

    /// A failure of kube's, in kubectl's words.
    pub(crate) fn failure(&self, error: kube::Error) -> Failure {
        match error {
            kube::Error::Api(status) => match serde_json::to_value(&status) {
                Ok(status) => Failure::api(status),
                Err(error) => Failure::Plain(error.to_string()),
            },
            other => self.unreachable(&other),
        }
    }

    fn unreachable(&self, error: &kube::Error) -> Failure {
        let host = self.url.split("://").last().unwrap_or(&self.url);
        let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
        let mut last = error.to_string();
        while let Some(inner) = cause {
            if inner
                .downcast_ref::<std::io::Error>()
                .is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
            {
                return Failure::Bare(format!(
                    "The connection to the server {host} was refused - did you specify the right host or port?"
                ));
            }
            last = inner.to_string();
            cause = inner.source();
        }
        Failure::Bare(format!("Unable to connect to the server: {last}"))
    }

    /// Prints the server's warnings, each once.
    fn warn(&self, headers: &http::HeaderMap) {
        for header in headers.get_all("warning").iter().filter_map(|header| header.to_str().ok()) {
            if let Some(text) = warning(header).filter(|text| self.warned.borrow_mut().insert(text.clone())) {
                eprintln!("Warning: {text}");
            }
        }
    }
}

/// The text of a `Warning: 299 - "..."` header.
fn warning(header: &str) -> Option<String> {
    let quoted = header.splitn(3, ' ').nth(2)?.trim().strip_prefix('"')?.strip_suffix('"')?;
    Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// The group versions that `/api` or `/apis` names, the preferred one of each group first.
fn plain_versions(answer: &Value) -> Vec<String> {
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let mut versions = texts(&answer["versions"]);
    for group in answer["groups"].as_array().into_iter().flatten() {
        let preferred = group["preferredVersion"]["groupVersion"].as_str().unwrap_or_default().to_owned();
        let all = group["versions"].as_array().into_iter().flatten().filter_map(|v| v["groupVersion"].as_str());
        let others: Vec<String> = all.filter(|v| *v != preferred).map(str::to_owned).collect();
        versions.push(preferred);
        versions.extend(others);
    }
    versions
}

/// The Status of a refused request, made up where the answer holds none.
fn status_of(code: u16, text: &str) -> Value {
    if let Ok(status) = serde_json::from_str::<Value>(text)
        && status["kind"] == "Status"
    {
        return status;
    }
    let (reason, message) = match code {
        401 => ("Unauthorized", "the server has asked for the client to provide credentials"),
        403 => ("Forbidden", "the server does not allow this request"),
        404 => ("NotFound", "the server could not find the requested resource"),
        405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource"),
        409 => ("Conflict", "the server reported a conflict"),
        429 => ("TooManyRequests", "the server has received too many requests and has asked us to try again later"),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        ),
        500 => ("InternalError", "an error on the server has prevented the request from succeeding"),
        _ => ("", "the server rejected our request for an unknown reason"),
    };
    let shown = text.trim();
    let message = if shown.is_empty() || code == 404 { message.to_owned() } else { format!("{message} ({shown:?})") };
    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message})
}

/// Adds a page of a list or a table to those before it.
fn join(whole: Value, mut page: Value) -> Value {
    if whole.is_null() {
        return page;
    }
    let mut whole = whole;
    for list in ["items", "rows"] {
        let more = page.get_mut(list).and_then(Value::as_array_mut).map(std::mem::take);
        if let (Some(all), Some(more)) = (whole.get_mut(list).and_then(Value::as_array_mut), more) {
            all.extend(more);
        }
    }
    whole["metadata"] = page["metadata"].take();
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_unquoted() {
        assert_eq!(warning(r#"299 - "unknown field \"a\"""#).as_deref(), Some("unknown field \"a\""));
        assert_eq!(warning("nonsense"), None);
    }

    #[test]
    fn pages_make_one_list_with_the_last_pages_revision() {
        let first = json!({"items": [1], "metadata": {"continue": "x", "resourceVersion": "1"}});
        let whole = join(join(Value::Null, first), json!({"items": [2], "metadata": {"resourceVersion": "2"}}));
        assert_eq!(whole, json!({"items": [1, 2], "metadata": {"resourceVersion": "2"}}));
    }

    #[test]
    fn an_answer_without_a_status_gets_one() {
        assert_eq!(status_of(404, "404 page not found")["reason"], "NotFound");
        assert_eq!(status_of(400, r#"{"kind":"Status","reason":"BadRequest"}"#)["reason"], "BadRequest");
    }
}
