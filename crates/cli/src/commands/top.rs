//! `top node` and `top pod`: what nodes and pods use, by the Metrics API.
//!
//! Source of the layout and texts: `k8s.io/kubectl/pkg/cmd/top`, `k8s.io/kubectl/pkg/metricsutil`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use stead_machinery::quantity::Quantity;
use stead_machinery::selector::Selector;

use super::common::go_duration;
use crate::failure::{Failure, Result, plain, usage};
use crate::print::{Tab, at, list};
use crate::resources::escape;
use crate::server::Call;
use crate::session::Session;

const GROUP: &str = "metrics.k8s.io";
/// Versions of the Metrics API that are understood.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// From this age on a pod without figures is an error.
const YOUNG_MAX: SignedDuration = SignedDuration::from_mins(2);
const UNKNOWN: &str = "<unknown>";

/// Sub-commands of `top`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// CPU and memory of nodes.
    #[command(visible_alias = "nodes", alias = "no")]
    Node(NodeFlags),
    /// CPU and memory of pods.
    #[command(visible_alias = "pods", alias = "po")]
    Pod(PodFlags),
}

/// What both take.
#[derive(Args, Clone, Debug, Default)]
struct Common {
    /// NAME, or none for all.
    names: Vec<String>,
    /// Label selector.
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
    /// cpu, memory
    #[arg(long, default_value = "")]
    sort_by: String,
    #[arg(long)]
    no_headers: bool,
    /// Swap in use, too.
    #[arg(long)]
    show_swap: bool,
    /// Figures come as JSON.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    use_protocol_buffers: Option<bool>,
}

#[derive(Args, Clone, Debug)]
struct NodeFlags {
    #[command(flatten)]
    common: Common,
    /// Compare with the capacity of the nodes, not with what pods may have.
    #[arg(long)]
    show_capacity: bool,
}

#[derive(Args, Clone, Debug)]
struct PodFlags {
    #[command(flatten)]
    common: Common,
    /// Field selector.
    #[arg(long, default_value = "")]
    field_selector: String,
    /// Each container of its own.
    #[arg(long)]
    containers: bool,
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// The sum below.
    #[arg(long)]
    sum: bool,
}

/// Prints what is in use.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    match flags.what {
        What::Node(flags) => nodes(session, &flags).await,
        What::Pod(flags) => pods(session, &flags).await,
    }
}

impl Common {
    fn name(&self, command: &str) -> Result<Option<&str>> {
        match &self.names[..] {
            [] => Ok(None),
            [name] => Ok(Some(name)),
            _ => usage(&format!("top {command}"), &format!("{command} [NAME | -l label]")),
        }
    }

    fn judge(&self, named: bool, other: &str, what: &str) -> Result {
        if !matches!(self.sort_by.as_str(), "" | "cpu" | "memory") {
            return plain("--sort-by accepts only cpu or memory");
        }
        if named && !(self.selector.is_empty() && other.is_empty()) {
            return plain(format!("only one of NAME or {what} can be provided"));
        }
        Ok(())
    }

    /// The selector in its plain form, as kubectl sends it.
    fn labels(&self) -> Result<Vec<(&'static str, String)>> {
        let selector = Selector::parse(&self.selector).map_err(Failure::Plain)?.to_string();
        Ok(if selector.is_empty() { Vec::new() } else { vec![("labelSelector", selector)] })
    }

    fn resources(&self) -> &'static [&'static str] {
        if self.show_swap { &["cpu", "memory", "swap"] } else { &["cpu", "memory"] }
    }
}

/// The path of the Metrics API.
async fn metrics_api(session: &Session) -> Result<String> {
    let resources = session.resources().await?;
    let known = resources.versions.iter().filter_map(|one| one.strip_prefix(GROUP)?.strip_prefix('/'));
    let mut known = known.filter(|version| VERSIONS.contains(version));
    match known.next() {
        Some(version) => Ok(format!("/apis/{GROUP}/{version}")),
        None => plain("Metrics API not available"),
    }
}

/// The figures of one object, or of all that the query selects.
async fn figures(session: &Session, path: &str, name: Option<&str>, query: &[(&str, String)]) -> Result<Vec<Value>> {
    let server = session.server().await?;
    match name {
        Some(name) => Ok(vec![server.get(&format!("{path}/{}", escape(name))).await?]),
        None => {
            let all = server.send(Call::new(http::Method::GET, path).query(query.to_vec())).await?;
            Ok(list(&all, "/items").to_vec())
        }
    }
}

async fn nodes(session: &Session, flags: &NodeFlags) -> Result {
    let common = &flags.common;
    let name = common.name("node")?;
    common.judge(name.is_some(), "", "--selector")?;
    let query = common.labels()?;
    let api = metrics_api(session).await?;
    let metrics = figures(session, &format!("{api}/nodes"), name, &query).await?;
    if metrics.is_empty() {
        return plain("metrics not available yet");
    }
    let path = session.kind("", "Node").await?.path(None);
    let nodes = figures(session, &path, name, &query).await?;
    let room = if flags.show_capacity { "/status/capacity" } else { "/status/allocatable" };
    session.out(&node_table(metrics, &nodes, room, common))
}

async fn pods(session: &Session, flags: &PodFlags) -> Result {
    let common = &flags.common;
    let name = common.name("pod")?;
    common.judge(name.is_some(), &flags.field_selector, "selector")?;
    let query = common.labels()?;
    let api = metrics_api(session).await?;
    let namespace = if flags.all_namespaces { None } else { Some(session.namespace().await?.to_owned()) };
    if name.is_some() && namespace.is_none() {
        return plain("an empty namespace may not be set when a resource name is provided");
    }
    let place = namespace.as_ref().map_or_else(String::new, |name| format!("/namespaces/{}", escape(name)));
    let mut metrics = figures(session, &format!("{api}{place}/pods"), name, &query).await?;
    if !metrics.is_empty() && !flags.field_selector.is_empty() {
        let chosen: Vec<(String, String)> =
            selected(session, namespace.as_deref(), flags, &query).await?.iter().map(full_name).collect();
        metrics.retain(|one| chosen.contains(&full_name(one)));
    }
    if metrics.is_empty() {
        let own = session.namespace().await?.to_owned();
        explain_nothing(&selected(session, Some(&own), flags, &query).await?, Timestamp::now())?;
        session.err(&match &namespace {
            None => "No resources found\n".to_owned(),
            Some(namespace) => format!("No resources found in {namespace} namespace.\n"),
        });
        return Ok(());
    }
    session.out(&pod_table(metrics, flags))
}

/// The pods that the selectors mean.
async fn selected(
    session: &Session,
    namespace: Option<&str>,
    flags: &PodFlags,
    labels: &[(&'static str, String)],
) -> Result<Vec<Value>> {
    let mut query = labels.to_vec();
    if !flags.field_selector.is_empty() {
        query.push(("fieldSelector", flags.field_selector.clone()));
    }
    let path = session.kind("", "Pod").await?.path(namespace);
    figures(session, &path, None, &query).await
}

/// Pods without figures are an error: of the first that should have some by now, or of all that are too young.
fn explain_nothing(pods: &[Value], now: Timestamp) -> Result {
    for pod in pods {
        let created = stead_machinery::time::parse(&pod["metadata"]["creationTimestamp"]);
        let age = created.map_or(SignedDuration::ZERO, |created| now.duration_since(created));
        if age > YOUNG_MAX {
            let (namespace, name) = full_name(pod);
            return plain(format!("Metrics not available for pod {namespace}/{name}, age: {}", go_duration(age)));
        }
    }
    if pods.is_empty() { Ok(()) } else { plain("metrics not available yet") }
}

fn full_name(object: &Value) -> (String, String) {
    (at(object, "/metadata/namespace").to_owned(), at(object, "/metadata/name").to_owned())
}

/// What is in use, by resource.
type Usage = BTreeMap<String, Quantity>;

fn usage_of(resources: &Value) -> Usage {
    let amounts = resources.as_object().into_iter().flatten();
    amounts.filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?))).collect()
}

fn amount(usage: &Usage, resource: &str) -> Quantity {
    usage.get(resource).copied().unwrap_or_default()
}

fn add(total: &mut Usage, more: &Usage) {
    for (name, amount) in more {
        let sum = total.get(name).copied().unwrap_or_default() + *amount;
        total.insert(name.clone(), sum);
    }
}

/// All containers of a pod.
fn usage_of_pod(pod: &Value) -> Usage {
    let mut total = Usage::new();
    list(pod, "/containers").iter().for_each(|container| add(&mut total, &usage_of(&container["usage"])));
    total
}

fn shown(resource: &str, amount: Quantity) -> String {
    match resource {
        "cpu" => format!("{}m", amount.milli_value()),
        _ => format!("{}Mi", amount.value() / (1024 * 1024)),
    }
}

/// Most first; by name when no resource is to sort by.
fn sort<T>(all: &mut [T], by: &str, usage: impl Fn(&T) -> Usage, name: impl Fn(&T) -> (String, String)) {
    match by {
        "" => all.sort_by_key(|one| name(one)),
        "cpu" => all.sort_by_key(|one| std::cmp::Reverse(amount(&usage(one), "cpu").milli_value())),
        resource => all.sort_by_key(|one| std::cmp::Reverse(amount(&usage(one), resource).value())),
    }
}

/// Ends a line as kubectl does: behind its last column comes another, which is empty.
fn line(mut cells: Vec<String>) -> Vec<String> {
    cells.push(String::new());
    cells
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn node_table(mut metrics: Vec<Value>, nodes: &[Value], room: &str, flags: &Common) -> String {
    let mut lines = Vec::new();
    if !flags.no_headers {
        let mut heading = texts(&["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]);
        if flags.show_swap {
            heading.extend(texts(&["SWAP(bytes)", "SWAP(%)"]));
        }
        lines.push(line(heading));
    }
    let room_of = |node: &Value| {
        let mut room = usage_of(node.pointer(room).unwrap_or(&Value::Null));
        if let Some(swap) = node["status"]["nodeInfo"]["swap"]["capacity"].as_i64() {
            room.insert("swap".to_owned(), Quantity::new(swap, stead_machinery::quantity::Format::BinarySi));
        }
        room
    };
    let mut available: BTreeMap<&str, Usage> =
        nodes.iter().map(|node| (at(node, "/metadata/name"), room_of(node))).collect();
    sort(&mut metrics, &flags.sort_by, |one| usage_of(&one["usage"]), full_name);
    for one in &metrics {
        let name = at(one, "/metadata/name");
        let room = available.remove(name).unwrap_or_default();
        let mut cells = vec![name.to_owned()];
        for resource in flags.resources() {
            let used = amount(&usage_of(&one["usage"]), resource);
            let room = room.get(*resource);
            if *resource == "swap" && room.is_none() {
                cells.extend(texts(&[UNKNOWN, UNKNOWN]));
                continue;
            }
            cells.push(shown(resource, used));
            cells.extend(room.map(|room| percent(used, *room)));
        }
        lines.push(line(cells));
    }
    // Those of which nothing is known.
    for name in available.keys() {
        let unknown = flags.resources().iter().flat_map(|_| [UNKNOWN.to_owned(), UNKNOWN.to_owned()]);
        lines.push(line(std::iter::once((*name).to_owned()).chain(unknown).collect()));
    }
    Tab::default().lay_out(&lines)
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "percents, as kubectl reckons them")]
fn percent(used: Quantity, room: Quantity) -> String {
    let share = if room.is_zero() { 0.0 } else { used.milli_value() as f64 / room.milli_value() as f64 * 100.0 };
    format!("{}%", share as i64)
}

fn pod_table(mut metrics: Vec<Value>, flags: &PodFlags) -> String {
    let common = &flags.common;
    let mut lines = Vec::new();
    let mut columns = texts(&["NAME", "CPU(cores)", "MEMORY(bytes)"]);
    if common.show_swap {
        columns.push("SWAP(bytes)".to_owned());
    }
    let mut width = columns.len();
    if !common.no_headers {
        let mut heading = Vec::new();
        if flags.all_namespaces {
            heading.push("NAMESPACE".to_owned());
        }
        if flags.containers {
            heading.push("POD".to_owned());
        }
        heading.extend(columns);
        width = heading.len();
        lines.push(line(heading));
    }
    let by_name = |pod: &Value| {
        let (namespace, name) = full_name(pod);
        (if flags.all_namespaces { namespace } else { String::new() }, name)
    };
    sort(&mut metrics, &common.sort_by, usage_of_pod, by_name);
    let amounts =
        |usage: &Usage| common.resources().iter().map(|name| shown(name, amount(usage, name))).collect::<Vec<_>>();
    for pod in &metrics {
        let (namespace, name) = full_name(pod);
        let head: Vec<String> = flags.all_namespaces.then_some(namespace).into_iter().chain([name]).collect();
        if !flags.containers {
            lines.push(line([head, amounts(&usage_of_pod(pod))].concat()));
            continue;
        }
        let mut containers = list(pod, "/containers").to_vec();
        let own_name = |one: &Value| (String::new(), at(one, "/name").to_owned());
        sort(&mut containers, &common.sort_by, |one| usage_of(&one["usage"]), own_name);
        for one in &containers {
            let name = vec![at(one, "/name").to_owned()];
            lines.push(line([head.clone(), name, amounts(&usage_of(&one["usage"]))].concat()));
        }
    }
    if flags.sum {
        let mut total = Usage::new();
        metrics.iter().for_each(|pod| add(&mut total, &usage_of_pod(pod)));
        let empty = |count: usize| vec![String::new(); count];
        lines.push(line([empty(width.saturating_sub(2)), texts(&["________", "________"])].concat()));
        lines.push(line([empty(width.saturating_sub(3)), empty(1), amounts(&total)].concat()));
    }
    Tab::default().lay_out(&lines)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, name: &str, containers: &[(&str, &str, &str)]) -> Value {
        let containers: Vec<Value> = containers
            .iter()
            .map(|(name, cpu, memory)| json!({"name": name, "usage": {"cpu": cpu, "memory": memory}}))
            .collect();
        json!({"metadata": {"namespace": namespace, "name": name}, "containers": containers})
    }

    fn flags(words: &str) -> What {
        let words = ["top"].into_iter().chain(words.split_whitespace()).map(str::to_owned).collect();
        let parsed = crate::arguments::parse(words).unwrap_or_else(|error| panic!("{error}"));
        let crate::arguments::Command::Top(flags) = parsed.command else { panic!("not top") };
        flags.what
    }

    #[track_caller]
    fn check(words: &str, metrics: &[Value], wanted: &[&str]) {
        let text = match flags(words) {
            What::Pod(flags) => pod_table(metrics.to_vec(), &flags),
            What::Node(flags) => {
                let of = |name: &str| {
                    json!({"metadata": {"name": name}, "status": {
                        "capacity": {"cpu": "4", "memory": "8Gi"}, "allocatable": {"cpu": "2", "memory": "4Gi"},
                    }})
                };
                let room = if flags.show_capacity { "/status/capacity" } else { "/status/allocatable" };
                node_table(metrics.to_vec(), &[of("a"), of("b")], room, &flags.common)
            }
        };
        assert_eq!(text.lines().collect::<Vec<_>>(), wanted, "{words}\n{text}");
    }

    #[test]
    fn pods_and_their_containers() {
        let all = [
            pod("x", "web-1", &[("nginx", "1500u", "20Mi"), ("log", "250m", "3000Ki")]),
            pod("a", "web-2", &[("nginx", "1", "1Gi")]),
        ];
        check(
            "pod",
            &all,
            &[
                "NAME    CPU(cores)   MEMORY(bytes)   ",
                "web-1   252m         22Mi            ",
                "web-2   1000m        1024Mi          ",
            ],
        );
        check(
            "po -A --sort-by cpu --no-headers",
            &all,
            &["a     web-2   1000m   1024Mi   ", "x     web-1   252m    22Mi     "],
        );
        check(
            "pods --containers --sum",
            &all,
            &[
                "POD     NAME    CPU(cores)   MEMORY(bytes)   ",
                "web-1   log     250m         2Mi             ",
                "web-1   nginx   2m           20Mi            ",
                "web-2   nginx   1000m        1024Mi          ",
                "                ________     ________        ",
                "                1252m        1046Mi          ",
            ],
        );
    }

    #[test]
    fn nodes_and_those_without_figures() {
        let metrics = [json!({"metadata": {"name": "a"}, "usage": {"cpu": "333m", "memory": "1Gi"}})];
        check(
            "node",
            &metrics,
            &[
                "NAME   CPU(cores)   CPU(%)      MEMORY(bytes)   MEMORY(%)   ",
                "a      333m         16%         1024Mi          25%         ",
                "b      <unknown>    <unknown>   <unknown>       <unknown>   ",
            ],
        );
        check(
            "no --show-capacity --no-headers",
            &metrics,
            &[
                "a     333m        8%          1024Mi      12%         ",
                "b     <unknown>   <unknown>   <unknown>   <unknown>   ",
            ],
        );
    }

    #[test]
    fn pods_without_figures_are_explained() {
        let now: Timestamp = "2026-01-01T00:10:00.5Z".parse().expect("a time");
        let of = |created: &str| json!({"metadata": {"namespace": "a", "name": "web-0", "creationTimestamp": created}});
        let told = |pods: &[Value]| explain_nothing(pods, now).err().map(|failure| failure.text());
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[of("2026-01-01T00:09:00Z")]).as_deref(), Some("error: metrics not available yet\n"));
        assert_eq!(
            told(&[of("2026-01-01T00:00:00Z")]).as_deref(),
            Some("error: Metrics not available for pod a/web-0, age: 10m0.5s\n")
        );
    }
}
