//! The pages of nodes, namespaces, quotas and limit ranges.

use serde_json::Value;
use stead_machinery::quantity::{Format, Quantity};

use super::{Page, Related, or_none};
use crate::print::{at, list, sorted};
use crate::resources::items;

/// A Node.
pub(super) fn node(page: &mut Page, node: &Value, related: &Related) {
    let (spec, status) = (&node["spec"], &node["status"]);
    page.field(0, "Name", at(node, "/metadata/name"));
    page.field(0, "Roles", or_none(&roles(&node["metadata"]["labels"])));
    page.labels("Labels", &node["metadata"]["labels"]);
    page.annotations("Annotations", &node["metadata"]["annotations"]);
    page.field(0, "CreationTimestamp", &super::time(&node["metadata"]["creationTimestamp"]));
    taints(page, spec);
    page.field(0, "Unschedulable", &(spec["unschedulable"] == true).to_string());
    lease(page, &related.lease);
    conditions(page, status);
    page.line(0, "Addresses:");
    for address in list(status, "/addresses") {
        page.field(1, at(address, "/type"), at(address, "/address"));
    }
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        if let Some(amounts) = status[field].as_object().filter(|map| !map.is_empty()) {
            page.line(0, &format!("{title}:"));
            for (name, amount) in sorted(amounts) {
                page.field(1, name, amount.as_str().unwrap_or_default());
            }
        }
    }
    system(page, &status["nodeInfo"]);
    if !at(spec, "/podCIDR").is_empty() {
        page.field(0, "PodCIDR", at(spec, "/podCIDR"));
        let ranges: Vec<&str> = list(spec, "/podCIDRs").iter().filter_map(Value::as_str).collect();
        page.field(0, "PodCIDRs", &ranges.join(","));
    }
    if !at(spec, "/providerID").is_empty() {
        page.field(0, "ProviderID", at(spec, "/providerID"));
    }
    pods(page, status, related);
}

fn roles(labels: &Value) -> String {
    let empty = serde_json::Map::new();
    let mut roles: Vec<String> = Vec::new();
    for (key, value) in sorted(labels.as_object().unwrap_or(&empty)) {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/").filter(|role| !role.is_empty()) {
            roles.push(role.to_owned());
        } else if key == "kubernetes.io/role" {
            roles.extend(value.as_str().filter(|role| !role.is_empty()).map(str::to_owned));
        }
    }
    roles.sort();
    roles.dedup();
    roles.join(",")
}

fn taints(page: &mut Page, spec: &Value) {
    let taints = list(spec, "/taints");
    if taints.is_empty() {
        return page.field(0, "Taints", "<none>");
    }
    let mut shown: Vec<String> = taints
        .iter()
        .map(|taint| match at(taint, "/value") {
            "" => format!("{}:{}", at(taint, "/key"), at(taint, "/effect")),
            value => format!("{}={value}:{}", at(taint, "/key"), at(taint, "/effect")),
        })
        .collect();
    shown.sort();
    for (number, taint) in shown.iter().enumerate() {
        page.line(0, &if number == 0 { format!("Taints:\t{taint}") } else { format!("\t{taint}") });
    }
}

fn lease(page: &mut Page, lease: &Value) {
    if lease.is_null() {
        return page.line(0, "Lease:\tFailed to get lease: leases.coordination.k8s.io not found");
    }
    page.line(0, "Lease:");
    let spec = &lease["spec"];
    let holder = at(spec, "/holderIdentity");
    page.field(1, "HolderIdentity", if holder.is_empty() { "<unset>" } else { holder });
    page.field(1, "AcquireTime", &super::time(&spec["acquireTime"]));
    page.field(1, "RenewTime", &super::time(&spec["renewTime"]));
}

fn conditions(page: &mut Page, status: &Value) {
    let conditions = list(status, "/conditions");
    if conditions.is_empty() {
        return;
    }
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    page.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for condition in conditions {
        page.line(
            1,
            &format!(
                "{} \t{} \t{} \t{} \t{} \t{}",
                at(condition, "/type"),
                at(condition, "/status"),
                super::time(&condition["lastHeartbeatTime"]),
                super::time(&condition["lastTransitionTime"]),
                at(condition, "/reason"),
                at(condition, "/message")
            ),
        );
    }
}

fn system(page: &mut Page, info: &Value) {
    page.line(0, "System Info:");
    for (name, pointer) in [
        ("Machine ID", "/machineID"),
        ("System UUID", "/systemUUID"),
        ("Boot ID", "/bootID"),
        ("Kernel Version", "/kernelVersion"),
        ("OS Image", "/osImage"),
        ("Operating System", "/operatingSystem"),
        ("Architecture", "/architecture"),
        ("Container Runtime Version", "/containerRuntimeVersion"),
        ("Kubelet Version", "/kubeletVersion"),
        ("Kube-Proxy Version", "/kubeProxyVersion"),
    ] {
        page.field(1, name, at(info, pointer));
    }
}

/// What the node's pods ask for and may use, one by one and together.
fn pods(page: &mut Page, status: &Value, related: &Related) {
    let running = |pod: &&Value| !matches!(at(pod, "/status/phase"), "Succeeded" | "Failed");
    let mut pods: Vec<&Value> = related.pods.iter().filter(running).collect();
    pods.sort_by_key(|pod| (at(pod, "/metadata/namespace"), at(pod, "/metadata/name")));
    let allocatable = if status["allocatable"].is_object() { &status["allocatable"] } else { &status["capacity"] };
    page.line(0, &format!("Non-terminated Pods:\t({} in total)", pods.len()));
    page.line(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    page.line(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    for pod in &pods {
        let cell = |field: &str, resource: &str| share(&sum(&[pod], field, resource), allocatable, resource);
        page.line(
            1,
            &format!(
                "{}\t{}\t\t{}\t{}\t{}\t{}\t{}",
                at(pod, "/metadata/namespace"),
                at(pod, "/metadata/name"),
                cell("requests", "cpu"),
                cell("limits", "cpu"),
                cell("requests", "memory"),
                cell("limits", "memory"),
                stead_machinery::time::since(&pod["metadata"]["creationTimestamp"], related.now)
            ),
        );
    }
    page.line(0, "Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)");
    page.line(1, "Resource\tRequests\tLimits");
    page.line(1, "--------\t--------\t------");
    let mut names = vec!["cpu".to_owned(), "memory".to_owned(), "ephemeral-storage".to_owned()];
    let empty = serde_json::Map::new();
    let standard = |name: &str| matches!(name, "cpu" | "memory" | "ephemeral-storage" | "pods" | "storage");
    names.extend(
        sorted(allocatable.as_object().unwrap_or(&empty))
            .into_iter()
            .map(|(name, _)| name.clone())
            .filter(|name| !standard(name)),
    );
    for name in names {
        let (requests, limits) = (sum(&pods, "requests", &name), sum(&pods, "limits", &name));
        let shown = |amount: &Quantity| {
            if standard(&name) || name.starts_with("hugepages-") {
                share(amount, allocatable, &name)
            } else {
                amount.to_string()
            }
        };
        page.line(1, &format!("{name}\t{}\t{}", shown(&requests), shown(&limits)));
    }
}

/// What pods ask for: all containers together, or the greediest of the init containers, and the overhead.
fn sum(pods: &[&Value], field: &str, resource: &str) -> Quantity {
    let zero = || Quantity::new(0, Format::DecimalSi);
    let amount = |container: &Value| -> Quantity {
        container["resources"][field][resource].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(zero)
    };
    let mut total = zero();
    for pod in pods {
        let mut own = list(pod, "/spec/containers").iter().map(amount).fold(zero(), |a, b| a + b);
        let mut beside = zero();
        for init in list(pod, "/spec/initContainers") {
            if at(init, "/restartPolicy") == "Always" {
                own = own + amount(init);
                beside = beside + amount(init);
            } else {
                let needs = beside + amount(init);
                if needs > own {
                    own = needs;
                }
            }
        }
        if let Some(overhead) = pod["spec"]["overhead"][resource].as_str().and_then(|text| text.parse().ok())
            && (field == "requests" || !own.is_zero())
        {
            own = own + overhead;
        }
        total = total + own;
    }
    total
}

/// `250m (12%)`
fn share(amount: &Quantity, allocatable: &Value, resource: &str) -> String {
    let all = allocatable[resource].as_str().and_then(|text| text.parse::<Quantity>().ok());
    let whole = all.map_or(0.0, |all| all.to_f64());
    #[expect(clippy::cast_possible_truncation, reason = "a percentage")]
    let percent = if whole > 0.0 { (amount.to_f64() / whole * 100.0) as i64 } else { 0 };
    format!("{amount} ({percent}%)")
}

/// A Namespace.
pub(super) fn namespace(page: &mut Page, namespace: &Value, related: &Related) {
    page.field(0, "Name", at(namespace, "/metadata/name"));
    page.labels("Labels", &namespace["metadata"]["labels"]);
    page.annotations("Annotations", &namespace["metadata"]["annotations"]);
    page.field(0, "Status", at(namespace, "/status/phase"));
    let conditions = list(namespace, "/status/conditions");
    if !conditions.is_empty() {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus\tLastTransitionTime\tReason\tMessage");
        page.line(1, "----\t------\t------------------\t------\t-------");
        for condition in conditions {
            page.line(
                1,
                &format!(
                    "{}\t{}\t{}\t{}\t{}",
                    at(condition, "/type"),
                    at(condition, "/status"),
                    super::time(&condition["lastTransitionTime"]),
                    at(condition, "/reason"),
                    at(condition, "/message")
                ),
            );
        }
    }
    if related.quotas.is_empty() {
        page.line(0, "\nNo resource quota.");
    } else {
        page.line(0, "\nResource Quotas");
        for quota in &related.quotas {
            page.field(1, "Name", at(quota, "/metadata/name"));
            scopes(page, 1, quota);
            page.line(1, "Resource\tUsed\tHard");
            page.line(1, "--------\t---\t---");
            amounts(page, 1, quota);
        }
    }
    if related.limits.is_empty() {
        page.line(0, "\nNo LimitRange resource.");
    } else {
        page.line(0, "\nResource Limits");
        page.line(0, " Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio");
        page.line(0, " ----\t--------\t---\t---\t---------------\t-------------\t-----------------------");
        for range in &related.limits {
            limits(page, " ", range);
        }
    }
}

fn amounts(page: &mut Page, level: usize, quota: &Value) {
    let empty = serde_json::Map::new();
    for (name, hard) in sorted(quota["status"]["hard"].as_object().unwrap_or(&empty)) {
        let used = quota["status"]["used"][name].as_str().unwrap_or("0");
        page.line(level, &format!("{name}\t{used}\t{}", hard.as_str().unwrap_or_default()));
    }
}

/// A ResourceQuota.
pub(super) fn quota(page: &mut Page, quota: &Value) {
    page.field(0, "Name", at(quota, "/metadata/name"));
    page.field(0, "Namespace", at(quota, "/metadata/namespace"));
    scopes(page, 0, quota);
    page.line(0, "Resource\tUsed\tHard");
    page.line(0, "--------\t----\t----");
    amounts(page, 0, quota);
}

/// The scopes of a quota, and what they mean.
fn scopes(page: &mut Page, level: usize, quota: &Value) {
    let mut scopes: Vec<&str> = list(quota, "/spec/scopes").iter().filter_map(Value::as_str).collect();
    if scopes.is_empty() {
        return;
    }
    scopes.sort_unstable();
    page.field(level, "Scopes", &scopes.join(", "));
    let blank = if level == 0 { " " } else { "" };
    for scope in scopes {
        let meaning = match scope {
            "Terminating" => {
                "Matches all pods that have an active deadline. These pods have a limited lifespan on a node before being actively terminated by the system."
            }
            "NotTerminating" => {
                "Matches all pods that do not have an active deadline. These pods usually include long running pods whose container command is not expected to terminate."
            }
            "BestEffort" => {
                "Matches all pods that do not have resource requirements set. These pods have a best effort quality of service."
            }
            "NotBestEffort" => {
                "Matches all pods that have at least one resource requirement set. These pods have a burstable or guaranteed quality of service."
            }
            _ => continue,
        };
        page.line(level, &format!("{blank}* {meaning}"));
    }
}

/// A LimitRange.
pub(super) fn limit_range(page: &mut Page, range: &Value) {
    page.field(0, "Name", at(range, "/metadata/name"));
    page.field(0, "Namespace", at(range, "/metadata/namespace"));
    page.line(0, "Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio");
    page.line(0, "----\t--------\t---\t---\t---------------\t-------------\t-----------------------");
    limits(page, "", range);
}

fn limits(page: &mut Page, blank: &str, range: &Value) {
    const FIELDS: [&str; 5] = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
    for limit in items(&range["spec"]["limits"]) {
        let mut names: Vec<&String> =
            FIELDS.iter().filter_map(|field| limit[*field].as_object()).flat_map(|map| map.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let cells: Vec<&str> = FIELDS.iter().map(|field| limit[*field][name].as_str().unwrap_or("-")).collect();
            page.line(0, &format!("{blank}{}\t{name}\t{}", at(limit, "/type"), cells.join("\t")));
        }
    }
}
