//! The environment of a container: its own variables, those of config maps and secrets, and those of the services.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, Pod, Service};

use crate::downward::{self, Surroundings};
use crate::expand::expand;

/// Config maps and secrets that were looked up beforehand: `None` is one that there is not.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub config_maps: HashMap<String, Option<BTreeMap<String, String>>>,
    pub secrets: HashMap<String, Option<BTreeMap<String, Vec<u8>>>>,
}

/// Names of the config maps and secrets that a container's environment needs.
#[must_use]
pub(crate) fn needed(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.as_ref().map(|one| one.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|one| one.name.clone()));
    }
    for from in container.env.iter().flatten().filter_map(|one| one.value_from.as_ref()) {
        config_maps.extend(from.config_map_key_ref.as_ref().map(|one| one.name.clone()));
        secrets.extend(from.secret_key_ref.as_ref().map(|one| one.name.clone()));
    }
    (config_maps, secrets)
}

/// The whole environment, in the order in which it is set.
///
/// # Errors
/// Upstream's text for a missing config map, secret or key: the message of `CreateContainerConfigError`.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    around: &Surroundings,
    services: &[(String, String)],
    sources: &Sources,
) -> Result<Vec<(String, String)>, String> {
    let mut env = Env::default();
    for from in container.env_from.iter().flatten() {
        for (name, value) in all_of(from, sources)? {
            env.set(&name, value);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), |name| {
                env.get(name).or_else(|| find(services, name))
            })),
            Some(_) => value_from(variable, pod, container, around, sources)?,
        };
        if let Some(value) = value {
            env.set(&variable.name, value);
        }
    }
    // Services last: they never replace what the pod says itself.
    for (name, value) in services {
        if env.get(name).is_none() {
            env.set(name, value.clone());
        }
    }
    Ok(env.list)
}

fn find(list: &[(String, String)], name: &str) -> Option<String> {
    list.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

#[derive(Default)]
struct Env {
    list: Vec<(String, String)>,
}

impl Env {
    fn get(&self, name: &str) -> Option<String> {
        find(&self.list, name)
    }

    fn set(&mut self, name: &str, value: String) {
        match self.list.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => self.list.push((name.to_owned(), value)),
        }
    }
}

fn all_of(from: &EnvFromSource, sources: &Sources) -> Result<Vec<(String, String)>, String> {
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let mut all = Vec::new();
    if let Some(one) = &from.config_map_ref {
        match sources.config_maps.get(&one.name).and_then(Option::as_ref) {
            Some(data) => all.extend(data.iter().map(|(key, value)| (format!("{prefix}{key}"), value.clone()))),
            None if one.optional == Some(true) => {}
            None => return Err(format!("configmap \"{}\" not found", one.name)),
        }
    }
    if let Some(one) = &from.secret_ref {
        match sources.secrets.get(&one.name).and_then(Option::as_ref) {
            Some(data) => {
                let text = |(key, value): (&String, &Vec<u8>)| {
                    (format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned())
                };
                all.extend(data.iter().map(text));
            }
            None if one.optional == Some(true) => {}
            None => return Err(format!("secret \"{}\" not found", one.name)),
        }
    }
    all.retain(|(name, _)| is_name(name));
    Ok(all)
}

/// Printable ASCII without `=`, as upstream's relaxed rule.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| (' '..='~').contains(&c) && c != '=')
}

fn value_from(
    variable: &EnvVar,
    pod: &Pod,
    container: &Container,
    around: &Surroundings,
    sources: &Sources,
) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else { return Ok(None) };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(selector) = &from.field_ref {
        return downward::field(pod, around, selector).map(Some);
    }
    if let Some(selector) = &from.resource_field_ref {
        return downward::resource(pod, Some(container), around, selector).map(Some);
    }
    if let Some(selector) = &from.config_map_key_ref {
        let optional = selector.optional == Some(true);
        let data = sources.config_maps.get(&selector.name).and_then(Option::as_ref);
        return match (data, data.and_then(|data| data.get(&selector.key))) {
            (_, Some(value)) => Ok(Some(value.clone())),
            _ if optional => Ok(None),
            (None, _) => Err(format!("configmap \"{}\" not found", selector.name)),
            (Some(_), None) => {
                Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", selector.key, selector.name))
            }
        };
    }
    if let Some(selector) = &from.secret_key_ref {
        let optional = selector.optional == Some(true);
        let data = sources.secrets.get(&selector.name).and_then(Option::as_ref);
        return match (data, data.and_then(|data| data.get(&selector.key))) {
            (_, Some(value)) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            _ if optional => Ok(None),
            (None, _) => Err(format!("secret \"{}\" not found", selector.name)),
            (Some(_), None) => {
                Err(format!("couldn't find key {} in Secret {namespace}/{}", selector.key, selector.name))
            }
        };
    }
    Err(format!("environment variable {} has a source that this node does not offer", variable.name))
}

/// The variables of services (upstream: `pkg/kubelet/envvars`): those of the pod's namespace when it wants links, and
/// always those of the API itself.
#[must_use]
pub(crate) fn of_services(services: &[std::sync::Arc<Service>], namespace: &str, links: bool) -> Vec<(String, String)> {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let of = service.metadata.namespace.as_deref().unwrap_or_default();
        let ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
        if ip.is_empty() || ip == "None" {
            continue;
        }
        let is_api = of == "default" && name == "kubernetes";
        if of == namespace && links {
            chosen.insert(name, service);
        } else if is_api {
            chosen.entry(name).or_insert(service);
        }
    }
    chosen.values().flat_map(|service| of_service(service)).collect()
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let name = service.metadata.name.as_deref().unwrap_or_default().to_uppercase().replace('-', "_");
    let Some(spec) = &service.spec else { return Vec::new() };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return Vec::new() };
    let mut all =
        vec![(format!("{name}_SERVICE_HOST"), ip.to_owned()), (format!("{name}_SERVICE_PORT"), first.port.to_string())];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let port_name = port_name.to_uppercase().replace('-', "_");
            all.push((format!("{name}_SERVICE_PORT_{port_name}"), port.port.to_string()));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            all.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        all.push((prefix.clone(), url));
        all.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        all.push((format!("{prefix}_PORT"), port.port.to_string()));
        all.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn env(container: serde_json::Value, sources: &Sources) -> Result<Vec<(String, String)>, String> {
        let pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "err", "uid": "u"}, "spec": {"containers": []}}),
        );
        let container = serde_json::from_value(container).expect("a container");
        let services = [("S_SERVICE_HOST".to_owned(), "10.43.0.9".to_owned())];
        environment(&pod.expect("a pod"), &container, &Surroundings::default(), &services, sources)
    }

    fn sources() -> Sources {
        let data = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut sources = Sources::default();
        sources.config_maps.insert("cm".to_owned(), Some(data(&[("a", "1"), ("b", "2")])));
        sources.config_maps.insert("none".to_owned(), None);
        sources.secrets.insert("none".to_owned(), None);
        sources
    }

    #[test]
    fn later_values_win_and_refer_to_earlier_ones() {
        let container = json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}],
            "env": [{"name": "X", "value": "$(P_a)-$(S_SERVICE_HOST)-$(Y)"}, {"name": "P_b", "value": "own"},
                    {"name": "Z", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "zz", "optional": true}}}]});
        let pairs: Vec<String> =
            env(container, &sources()).expect("an environment").into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["P_a=1", "P_b=own", "X=1-10.43.0.9-$(Y)", "S_SERVICE_HOST=10.43.0.9"]);
    }

    #[test]
    fn what_is_missing_is_named_as_upstream_does() {
        let one = |from| json!({"name": "c", "env": [{"name": "X", "valueFrom": from}]});
        let table = [
            (one(json!({"configMapKeyRef": {"name": "none", "key": "k"}})), "configmap \"none\" not found"),
            (one(json!({"configMapKeyRef": {"name": "cm", "key": "k"}})), "couldn't find key k in ConfigMap err/cm"),
            (one(json!({"secretKeyRef": {"name": "none", "key": "k"}})), "secret \"none\" not found"),
            (json!({"name": "c", "envFrom": [{"secretRef": {"name": "none"}}]}), "secret \"none\" not found"),
        ];
        for (container, expected) in table {
            assert_eq!(env(container, &sources()), Err(expected.to_owned()));
        }
    }

    #[test]
    fn services_become_variables() {
        let service = |namespace: &str, name: &str, ip: &str| {
            let value = json!({"metadata": {"name": name, "namespace": namespace},
                "spec": {"clusterIP": ip, "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}});
            Arc::new(serde_json::from_value(value).expect("a service"))
        };
        let all = [
            service("default", "kubernetes", "10.43.0.1"),
            service("ns", "my-db", "10.43.0.2"),
            service("ns", "h", "None"),
        ];
        let names =
            |links| of_services(&all, "ns", links).into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
        assert_eq!(
            names(false),
            [
                "KUBERNETES_SERVICE_HOST=10.43.0.1",
                "KUBERNETES_SERVICE_PORT=443",
                "KUBERNETES_SERVICE_PORT_HTTPS=443",
                "KUBERNETES_PORT=tcp://10.43.0.1:443",
                "KUBERNETES_PORT_443_TCP=tcp://10.43.0.1:443",
                "KUBERNETES_PORT_443_TCP_PROTO=tcp",
                "KUBERNETES_PORT_443_TCP_PORT=443",
                "KUBERNETES_PORT_443_TCP_ADDR=10.43.0.1"
            ]
        );
        assert!(names(true).contains(&"MY_DB_SERVICE_HOST=10.43.0.2".to_owned()));
        assert_eq!(names(true).len(), 16);
    }
}
