//! What a pod may be told about itself: `fieldRef` and `resourceFieldRef`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use stead_podlife::{cgroup, spec};

/// What the pod object does not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub host_ips: Vec<IpAddr>,
    pub pod_ips: Vec<IpAddr>,
    /// What a missing limit stands for: allocatable thousandths of a core, bytes of memory and of disk.
    pub cpu_milli: i128,
    pub memory_bytes: i128,
    pub disk_bytes: i128,
}

/// The value of a `fieldRef`.
///
/// # Errors
/// Upstream's text for a path that is not offered.
pub(crate) fn field(pod: &Pod, around: &Surroundings, selector: &ObjectFieldSelector) -> Result<String, String> {
    let path = selector.field_path.as_str();
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("fieldPath \"{path}\" does not support subscript")),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let texts = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let pod_spec = spec::pod_spec(pod);
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => pod_spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => pod_spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&around.host_ips),
        "status.hostIPs" => texts(&around.host_ips).join(","),
        "status.podIP" => first(&around.pod_ips),
        "status.podIPs" => texts(&around.pod_ips).join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['app']` in its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    Some((map, key))
}

/// `key="value"` per line, in the order of keys, as upstream writes maps.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let one = |(key, value): (&String, &String)| format!("{key}={}", quoted(value));
    map.into_iter().flatten().map(one).collect::<Vec<_>>().join("\n")
}

/// A Go-quoted string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a `resourceFieldRef` of `container` (or of the one that it names).
///
/// # Errors
/// For a container or a resource that there is not.
pub(crate) fn resource(
    pod: &Pod,
    container: Option<&Container>,
    around: &Surroundings,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let found = match named {
        Some(name) => Some(spec::container(pod, name).ok_or_else(|| format!("container {name} not found"))?),
        None => container.cloned(),
    };
    let container = found.ok_or_else(|| "containerName must be set".to_owned())?;
    let (list, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let resources = container.resources.unwrap_or_default();
    let own = match list {
        "limits" => resources.limits,
        "requests" => resources.requests,
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let set = own.as_ref().and_then(|own| own.get(name)).map(cgroup::milli).filter(|milli| *milli > 0);
    let whole_node = match (list, name) {
        ("requests", _) => 0,
        (_, "cpu") => around.cpu_milli,
        (_, "memory") => around.memory_bytes * 1000,
        (_, "ephemeral-storage") => around.disk_bytes * 1000,
        _ => 0,
    };
    let divisor = selector.divisor.as_ref().map(cgroup::milli).filter(|milli| *milli > 0).unwrap_or(1000);
    let amount = set.unwrap_or(whole_node);
    Ok(((amount + divisor - 1) / divisor).to_string())
}

/// Thousandths of a quantity as a quantity of cores.
#[must_use]
pub(crate) fn cores(milli: i128) -> Quantity {
    if milli % 1000 == 0 { Quantity((milli / 1000).to_string()) } else { Quantity(format!("{milli}m")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-0", "namespace": "ns", "uid": "u", "labels": {"app": "web", "b": "x\"y"}},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]}
        }))
        .expect("a pod")
    }

    #[test]
    fn fields_have_upstreams_form() {
        let around = Surroundings { pod_ips: vec![IpAddr::from([10, 42, 0, 5])], ..Surroundings::default() };
        let table = [
            ("metadata.name", "web-0"),
            ("metadata.labels['app']", "web"),
            ("metadata.labels['none']", ""),
            ("metadata.labels", "app=\"web\"\nb=\"x\\\"y\""),
            ("spec.nodeName", "n1"),
            ("status.podIPs", "10.42.0.5"),
        ];
        for (path, expected) in table {
            let selector = ObjectFieldSelector { field_path: path.to_owned(), api_version: None };
            assert_eq!(field(&pod(), &around, &selector).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let around = Surroundings { cpu_milli: 2000, memory_bytes: 1 << 30, ..Surroundings::default() };
        let table = [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("limits.memory", Some("1Mi"), "64"),
            ("limits.memory", None, "67108864"),
            ("requests.cpu", None, "0"),
        ];
        let pod = pod();
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        for (name, divisor, expected) in table {
            let selector = ResourceFieldSelector {
                resource: name.to_owned(),
                divisor: divisor.map(|text: &str| Quantity(text.to_owned())),
                container_name: None,
            };
            assert_eq!(
                resource(&pod, Some(container), &around, &selector).as_deref(),
                Ok(expected),
                "{name} {divisor:?}"
            );
        }
    }
}
