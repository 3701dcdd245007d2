//! What nodes and pods use (`metrics.k8s.io`): made up when asked for from what the nodes themselves measure. Nothing of it
//! is stored.
//!
//! The figures of a node come the way that its logs come, and are kept for [`FIGURES_KEPT`], so that many who ask (a person's
//! `top`, every autoscaler) cost a node one answer. Source of the forms: `sigs.k8s.io/metrics-server/pkg/api`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use stead_api::{Kind, kinds};
use stead_machinery::quantity::{Format, Quantity};
use stead_machinery::status::Reason;
use stead_machinery::{ApiError, time};
use stead_store::Entry;
use tokio::time::{Instant, timeout};

use crate::chain::Call;
use crate::negotiate;
use crate::objects;
use crate::response::Answer;
use crate::select::Selection;
use crate::server::ApiServer;
use crate::verbs::render::{self, ListMeta};
use crate::verbs::write::{seconds, store_failed};
use crate::verbs::{Target, list};

/// How long the figures of a node are good for.
const FIGURES_KEPT: Duration = Duration::from_secs(5);
/// How long a node may take to answer; one that does not is left out.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);
/// Larger answers of a node are not read.
const FIGURES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Where a node tells its figures.
const PATH: &str = "/stats/summary?only_cpu_and_memory=true";

/// What a node said last, and when. Whoever asks while it is being asked waits for the same answer.
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Arc<Summary>)>>>;

/// The figures by node.
#[derive(Debug, Default)]
pub(crate) struct Figures(Mutex<HashMap<String, Slot>>);

/// What one node measures: `{node, pods}`; null when it could not be asked.
#[derive(Debug, Default)]
struct Summary {
    node: Value,
    /// By namespace and name.
    pods: HashMap<(String, String), Value>,
}

impl Summary {
    fn read(mut whole: Value) -> Self {
        let pods = whole["pods"].as_array_mut().map(std::mem::take).unwrap_or_default();
        let named = |pod: Value| {
            let of = |field: &str| pod["podRef"][field].as_str().unwrap_or_default().to_owned();
            ((of("namespace"), of("name")), pod)
        };
        Self { node: whole["node"].take(), pods: pods.into_iter().map(named).collect() }
    }
}

/// Serves get and list.
pub(crate) async fn serve(server: &ApiServer, target: &Target, call: &Call) -> Result<Answer, ApiError> {
    let about = target.kind.plural;
    let of = kinds::by_name(about).ok_or_else(|| ApiError::internal(&format!("there are no {about} to measure")))?;
    if target.name.is_empty() {
        return many(server, target, of, call).await;
    }
    if of.namespaced() && target.namespace.is_empty() {
        return Err(crate::verbs::no_resource());
    }
    let form = negotiate::resource(call.headers(), &call.query, false, true)?;
    let key = objects::key_of(of, &target.namespace, &target.name);
    let entry = server.0.store.get(key.as_bytes()).await.map_err(store_failed)?;
    let entry = entry.ok_or_else(|| ApiError::not_found(of, &target.name))?;
    let found = measure(server, target.kind, of, &[entry]).await.pop();
    let found = found.ok_or_else(|| unknown(target))?;
    render::object(StatusCode::OK, form, target.kind, &found, call)
}

async fn many(server: &ApiServer, target: &Target, of: &'static Kind, call: &Call) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, true, true)?;
    render::check_include(form, &call.query)?;
    list::check(&call.query)?;
    // The fields that may be named are those of the measurement, which has no more than a name.
    Selection::read(&server.0.recent, target.kind, "", &call.query)?;
    let selection = Selection::read(&server.0.recent, of, "", &call.query)?;
    let prefix = objects::prefix_of(of, &target.namespace);
    let range = server.0.store.range(prefix.as_bytes(), b"", 0, None).await.map_err(store_failed)?;
    let chosen: Vec<Entry> = range.entries.into_iter().filter(|entry| selection.matches(entry)).collect();
    let found = measure(server, target.kind, of, &chosen).await;
    render::list(form, target.kind, found, ListMeta::default(), call)
}

/// Upstream's words for what exists and has not been measured.
fn unknown(target: &Target) -> ApiError {
    let resource = target.kind.kind.to_lowercase();
    let place = if target.namespace.is_empty() { String::new() } else { format!("{}/", target.namespace) };
    let name = format!("{place}{}", target.name);
    let text = format!("{resource}.{} {name:?} not found", target.kind.group);
    let mut error = ApiError::new(Reason::NotFound, text);
    error.details = json!({"name": name, "group": target.kind.group, "kind": resource});
    error
}

/// The measurements of stored nodes or pods, in their order; those without are left out.
async fn measure(server: &ApiServer, kind: &'static Kind, of: &'static Kind, entries: &[Entry]) -> Vec<Entry> {
    let read = |entry: &Entry| objects::decode(&entry.value, 0).unwrap_or_default();
    let all: Vec<Value> = entries.iter().map(read).filter(is_up).collect();
    let node_of = |object: &Value| {
        let name = if of.namespaced() { &object["spec"]["nodeName"] } else { &object["metadata"]["name"] };
        name.as_str().unwrap_or_default().to_owned()
    };
    let mut nodes: Vec<String> = all.iter().map(node_of).filter(|name| !name.is_empty()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let summaries = join_all(nodes.iter().map(|node| server.0.figures.of(server, node))).await;
    let by_node: HashMap<&str, Arc<Summary>> = nodes.iter().map(String::as_str).zip(summaries).collect();
    let now = crate::source::now();
    let one = |object: &Value| {
        let summary = by_node.get(node_of(object).as_str())?;
        let measured = if of.namespaced() { pod(object, summary)? } else { usage_of_node(&summary.node)? };
        Some(entry(kind, object, measured, now))
    };
    all.iter().filter_map(one).collect()
}

/// Pods have figures while they run; nodes always.
fn is_up(object: &Value) -> bool {
    object["kind"] != "Pod" || object["status"]["phase"] == "Running"
}

/// The object of a measurement, encoded as stored objects are, so that it is rendered as they are.
fn entry(kind: &'static Kind, of: &Value, mut measured: Value, now: Timestamp) -> Entry {
    let meta = &of["metadata"];
    let mut metadata = json!({"name": meta["name"], "creationTimestamp": seconds(now)});
    for field in ["namespace", "labels"] {
        if !meta[field].is_null() {
            metadata[field] = meta[field].clone();
        }
    }
    measured["kind"] = kind.kind.into();
    measured["apiVersion"] = kind.api_version().into();
    measured["metadata"] = metadata;
    let text = |field: &str| meta[field].as_str().unwrap_or_default();
    let key = objects::key_of(kind, text("namespace"), text("name")).into();
    Entry { key, value: objects::encode(&measured), created: 0, modified: 0 }
}

fn usage_of_node(node: &Value) -> Option<Value> {
    let (usage, window) = usage(node)?;
    Some(json!({"timestamp": stamp(node), "window": duration(window), "usage": usage}))
}

/// All containers of a pod, or nothing: a sum of a part would mislead.
fn pod(object: &Value, summary: &Summary) -> Option<Value> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let found = summary.pods.get(&(text("namespace"), text("name")))?;
    if found["podRef"]["uid"] != object["metadata"]["uid"] {
        return None;
    }
    let mut containers = Vec::new();
    let mut longest = 0;
    for container in found["containers"].as_array().into_iter().flatten() {
        let (usage, window) = usage(container)?;
        longest = longest.max(window);
        containers.push(json!({"name": container["name"], "usage": usage}));
    }
    if containers.is_empty() {
        return None;
    }
    Some(json!({"timestamp": stamp(found), "window": duration(longest), "containers": containers}))
}

/// CPU and memory of a node or container, and the length of the window in milliseconds.
fn usage(figures: &Value) -> Option<(Value, u64)> {
    let nanocores = figures["cpu"]["usageNanoCores"].as_u64()?;
    let bytes = figures["memory"]["workingSetBytes"].as_u64()?;
    let cpu = Quantity::from_nanos(nanocores.into(), Format::DecimalSi);
    let memory = Quantity::new(i64::try_from(bytes).unwrap_or(i64::MAX), Format::BinarySi);
    let usage = json!({"cpu": cpu.to_string(), "memory": memory.to_string()});
    Some((usage, figures["cpu"]["windowMilliSeconds"].as_u64().unwrap_or(0)))
}

fn stamp(figures: &Value) -> String {
    time::parse(&figures["cpu"]["time"]).map(seconds).unwrap_or_default()
}

/// As Go writes a duration: `15.062s`, `1m2s`.
fn duration(millis: u64) -> String {
    if millis > 0 && millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let mut seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    if minutes > 0 { format!("{minutes}m{seconds}s") } else { format!("{seconds}s") }
}

impl Figures {
    /// What a node measures: what it said a moment ago, or what it says now; nothing when it does not answer.
    async fn of(&self, server: &ApiServer, node: &str) -> Arc<Summary> {
        let slot = self.0.lock().entry(node.to_owned()).or_default().clone();
        let mut kept = slot.lock().await;
        if let Some((at, summary)) = &*kept
            && at.elapsed() < FIGURES_KEPT
        {
            return summary.clone();
        }
        let summary = match timeout(NODE_TIMEOUT, ask(server, node)).await {
            Ok(Ok(whole)) => Summary::read(whole),
            Ok(Err(error)) => {
                tracing::debug!(node, error, "no figures");
                Summary::default()
            }
            Err(_) => {
                tracing::debug!(node, "no figures in time");
                Summary::default()
            }
        };
        let summary = Arc::new(summary);
        *kept = Some((Instant::now(), summary.clone()));
        drop(kept);
        self.forget_old(server);
        summary
    }

    /// Nodes that are no more need no place.
    fn forget_old(&self, server: &ApiServer) {
        use stead_admission::Lookup as _;
        let lookup = server.lookup();
        self.0.lock().retain(|node, _| lookup.get("", "nodes", "", node).is_some());
    }
}

async fn ask(server: &ApiServer, node: &str) -> Result<Value, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let io = server.dial(node).await.map_err(|e| text(&e))?;
    let handshake = hyper::client::conn::http1::handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(io)).await;
    let (mut sender, connection) = handshake.map_err(|e| text(&e))?;
    tokio::spawn(connection);
    let request = Request::get(PATH).header(header::HOST, "node").body(Empty::new()).map_err(|e| text(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| text(&e))?;
    if answer.status() != StatusCode::OK {
        return Err(format!("it answers {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), FIGURES_BYTES_MAX).collect().await.map_err(|e| text(&e))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|e| text(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(nanocores: u64, window: u64) -> Value {
        json!({
            "cpu": {"time": "2026-01-01T00:00:00.5Z", "usageNanoCores": nanocores, "windowMilliSeconds": window},
            "memory": {"workingSetBytes": 3_145_728},
        })
    }

    #[test]
    fn a_pod_is_the_sum_of_all_its_containers_or_nothing() {
        let object = json!({"metadata": {"name": "web-0", "namespace": "a", "uid": "u"}});
        let container = |name: &str, mut figures: Value| {
            figures["name"] = name.into();
            figures
        };
        let summary = |uid: &str, containers: Value| {
            let pod = json!({
                "podRef": {"name": "web-0", "namespace": "a", "uid": uid}, "containers": containers,
                "cpu": {"time": "2026-01-01T00:00:00.5Z"},
            });
            Summary::read(json!({"pods": [pod]}))
        };
        let two = json!([container("c", figures(1_500_000, 12_000)), container("d", figures(7, 15_062))]);
        assert_eq!(
            pod(&object, &summary("u", two)),
            Some(json!({
                "timestamp": "2026-01-01T00:00:00Z", "window": "15.062s",
                "containers": [
                    {"name": "c", "usage": {"cpu": "1500u", "memory": "3Mi"}},
                    {"name": "d", "usage": {"cpu": "7n", "memory": "3Mi"}},
                ],
            }))
        );
        let half = json!([container("c", figures(1, 12_000)), {"name": "d", "cpu": {}, "memory": {}}]);
        assert_eq!(pod(&object, &summary("u", half)), None, "one is not measured yet");
        let one = json!([container("c", figures(1, 12_000))]);
        assert_eq!(pod(&object, &summary("older", one)), None, "another pod of that name");
        assert_eq!(pod(&object, &summary("u", json!([]))), None);
    }

    #[test]
    fn durations_are_gos() {
        for (millis, want) in [
            (0, "0s"),
            (500, "500ms"),
            (10_000, "10s"),
            (15_062, "15.062s"),
            (15_100, "15.1s"),
            (62_000, "1m2s"),
            (60_000, "1m0s"),
        ] {
            assert_eq!(duration(millis), want);
        }
    }
}
