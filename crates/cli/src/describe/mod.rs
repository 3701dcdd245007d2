//! `describe`: an object and what belongs to it, as a page for people. Pure: everything that is shown is in the arguments.
//!
//! Source of the layout: `k8s.io/kubectl/pkg/describe`.

mod access;
mod cluster;
mod config;
mod events;
mod generic;
mod network;
mod pod;
mod request;
pub(crate) mod routing;
mod scaling;
mod storage;
pub(crate) mod template;
mod workload;

use jiff::Timestamp;
use serde_json::Value;

pub(crate) use self::events::interval;
use crate::print::sorted;
use crate::print::table::tabulate;

/// How long one line of an annotation may get, in characters.
const ANNOTATION_MAX: usize = 140;

/// What is shown beside the object itself. Each list holds only what belongs to it.
#[derive(Debug, Default)]
pub(crate) struct Related {
    /// None when events are not wanted.
    pub(crate) events: Option<Vec<Value>>,
    /// A set's own pods, a node's pods, a claim's users.
    pub(crate) pods: Vec<Value>,
    pub(crate) replica_sets: Vec<Value>,
    pub(crate) endpoint_slices: Vec<Value>,
    pub(crate) lease: Value,
    pub(crate) quotas: Vec<Value>,
    pub(crate) limits: Vec<Value>,
    pub(crate) secrets: Vec<Value>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) now: Timestamp,
}

/// A Service that an Ingress leads to.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) name: String,
    /// The Service, or why it could not be read.
    pub(crate) service: Result<Value, String>,
    pub(crate) slices: Vec<Value>,
}

/// The page of an object.
pub(crate) fn page(group: &str, kind: &str, object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    match (group, kind) {
        ("", "Pod") => pod::describe(&mut page, object, related),
        ("", "PersistentVolumeClaim") => storage::claim(&mut page, object, related),
        ("", "PersistentVolume") => storage::volume(&mut page, object),
        ("storage.k8s.io", "StorageClass") => storage::class(&mut page, object),
        ("", "Service") => network::service(&mut page, object, related),
        ("", "Endpoints") => network::endpoints(&mut page, object),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(&mut page, object),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => access::role(&mut page, object),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => access::binding(&mut page, object),
        ("scheduling.k8s.io", "PriorityClass") => access::priority(&mut page, object),
        ("", "ReplicationController") => workload::replication_controller(&mut page, object, related),
        ("certificates.k8s.io", "CertificateSigningRequest") => request::describe(&mut page, object),
        ("networking.k8s.io", "Ingress") => routing::ingress(&mut page, object, related),
        ("networking.k8s.io", "IngressClass") => routing::class(&mut page, object),
        ("networking.k8s.io", "NetworkPolicy") => routing::policy(&mut page, object),
        ("autoscaling", "HorizontalPodAutoscaler") => scaling::autoscaler(&mut page, object),
        ("storage.k8s.io", "VolumeAttributesClass") => storage::attributes_class(&mut page, object),
        ("storage.k8s.io", "CSINode") => storage::csi_node(&mut page, object),
        ("", "Node") => cluster::node(&mut page, object, related),
        ("", "Namespace") => cluster::namespace(&mut page, object, related),
        ("", "ResourceQuota") => cluster::quota(&mut page, object),
        ("", "LimitRange") => cluster::limit_range(&mut page, object),
        ("", "ConfigMap") => config::config_map(&mut page, object),
        ("", "Secret") => config::secret(&mut page, object),
        ("", "ServiceAccount") => config::service_account(&mut page, object, related),
        ("apps", "StatefulSet") => workload::stateful_set(&mut page, object, related),
        ("apps", "Deployment") => workload::deployment(&mut page, object, related),
        ("apps", "ReplicaSet") => workload::replica_set(&mut page, object, related),
        ("apps", "DaemonSet") => workload::daemon_set(&mut page, object, related),
        ("batch", "Job") => workload::job(&mut page, object),
        ("batch", "CronJob") => workload::cron_job(&mut page, object),
        ("policy", "PodDisruptionBudget") => workload::disruption_budget(&mut page, object),
        _ => generic::describe(&mut page, object),
    }
    if has_events(group, kind)
        && let Some(events) = &related.events
    {
        events::describe(&mut page, events, related.now);
    }
    tabulate(&page.text, 2)
}

/// Whether the pages of a kind end with its events.
pub(crate) fn has_events(group: &str, kind: &str) -> bool {
    !matches!(
        (group, kind),
        ("", "Namespace" | "ResourceQuota" | "LimitRange" | "Secret")
            | ("rbac.authorization.k8s.io", _)
            | ("networking.k8s.io", "NetworkPolicy")
    )
}

/// A page that is being written: lines with tabs where columns end.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) text: String,
}

impl Page {
    /// A line, two blanks further in per level.
    pub(crate) fn line(&mut self, level: usize, text: &str) {
        self.text.extend(std::iter::repeat_n("  ", level));
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// `NAME:` and a value.
    pub(crate) fn field(&mut self, level: usize, name: &str, value: &str) {
        self.line(level, &format!("{name}:\t{value}"));
    }

    /// Labels or selectors, one per line.
    pub(crate) fn labels(&mut self, title: &str, labels: &Value) {
        let pairs = crate::print::pairs(labels);
        if pairs.is_empty() {
            self.line(0, &format!("{title}:\t<none>"));
        }
        for (at, pair) in pairs.iter().enumerate() {
            if at == 0 { self.line(0, &format!("{title}:\t{pair}")) } else { self.line(0, &format!("\t{pair}")) }
        }
    }

    /// Annotations, without what `apply` keeps there.
    pub(crate) fn annotations(&mut self, title: &str, annotations: &Value) {
        let empty = serde_json::Map::new();
        let mut first = true;
        for (key, value) in sorted(annotations.as_object().unwrap_or(&empty)) {
            if key == crate::apply::LAST_APPLIED {
                continue;
            }
            let head = if first { format!("{title}:\t") } else { "\t".to_owned() };
            first = false;
            let value = value.as_str().unwrap_or_default();
            let value = value.strip_suffix('\n').unwrap_or(value);
            if value.len() + key.len() + 2 > ANNOTATION_MAX || value.contains('\n') {
                self.line(0, &format!("{head}{key}:"));
                for line in value.split('\n') {
                    self.line(0, &format!("\t  {}", shortened(line, ANNOTATION_MAX - 2)));
                }
            } else {
                self.line(0, &format!("{head}{key}: {value}"));
            }
        }
        if first {
            self.line(0, &format!("{title}:\t<none>"));
        }
    }

    /// `Controlled By`, when something does.
    pub(crate) fn controller(&mut self, object: &Value) {
        let owners = crate::print::list(object, "/metadata/ownerReferences");
        if let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) {
            let (kind, name) = (crate::print::at(owner, "/kind"), crate::print::at(owner, "/name"));
            self.field(0, "Controlled By", &format!("{kind}/{name}"));
        }
    }
}

fn shortened(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// A time as the pages show it: `Fri, 20 Nov 2026 15:03:38 +0000`.
pub(crate) fn time(value: &Value) -> String {
    match stead_machinery::time::parse(value) {
        Some(time) => time.to_zoned(jiff::tz::TimeZone::system()).strftime("%a, %d %b %Y %H:%M:%S %z").to_string(),
        None => "<unset>".to_owned(),
    }
}

/// `<none>` for an empty text.
pub(crate) fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// A label selector as text: `app=web,tier in (a,b)`.
pub(crate) fn selector_text(selector: &Value) -> String {
    let mut parts: Vec<String> = crate::print::pairs(&selector["matchLabels"]);
    for expression in crate::print::list(selector, "/matchExpressions") {
        let key = crate::print::at(expression, "/key");
        let mut values: Vec<&str> =
            crate::print::list(expression, "/values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        parts.push(match crate::print::at(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.sort();
    parts.join(",")
}

/// Access modes as `RWO,ROX,RWX`.
pub(crate) fn access_modes(modes: &Value) -> String {
    let has = |name: &str| crate::resources::items(modes).iter().any(|mode| mode == name);
    let names =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    names.iter().filter(|(name, _)| has(name)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}
