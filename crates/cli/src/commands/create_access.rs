//! `create role`, `clusterrole`, `ingress`, `priorityclass`, `secret docker-registry`: objects of flags that need more than their fields.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/create`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Result, plain};
use crate::session::Session;

/// What a role allows.
#[derive(Args, Clone, Debug)]
pub(super) struct Rules {
    /// get, list, watch, create, ...
    #[arg(long, value_delimiter = ',')]
    verb: Vec<String>,
    /// RESOURCE, RESOURCE.GROUP or RESOURCE.GROUP/SUBRESOURCE
    #[arg(long, value_delimiter = ',')]
    resource: Vec<String>,
    /// Only the objects of these names.
    #[arg(long)]
    resource_name: Vec<String>,
}

impl Rules {
    fn verbs(&self) -> Result<Vec<String>> {
        let mut verbs: Vec<String> = Vec::new();
        for verb in &self.verb {
            if verb == "*" {
                return Ok(vec!["*".to_owned()]);
            }
            if !verbs.contains(verb) {
                verbs.push(verb.clone());
            }
        }
        match verbs.is_empty() {
            true => plain("at least one verb must be specified"),
            false => Ok(verbs),
        }
    }

    /// A rule for each API group; the server says which resources there are.
    pub(super) async fn rules(&self, session: &Session) -> Result<Vec<Value>> {
        let verbs = self.verbs()?;
        if self.resource.is_empty() {
            return plain("at least one resource must be specified");
        }
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for wanted in &self.resource {
            let (group, name) = named(session, wanted).await?;
            let names = groups.entry(group).or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let rule = |(group, resources): (String, Vec<String>)| {
            let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
            if !self.resource_name.is_empty() {
                rule["resourceNames"] = json!(self.resource_name);
            }
            rule
        };
        Ok(groups.into_iter().map(rule).collect())
    }

    /// Whether only URLs are meant.
    pub(super) fn is_empty(&self) -> bool {
        self.resource.is_empty()
    }

    /// The rule of URLs that are no resources.
    pub(super) fn of_urls(&self, urls: &[String]) -> Result<Vec<Value>> {
        Ok(vec![json!({"nonResourceURLs": urls, "verbs": self.verbs()?})])
    }
}

/// Group and full name of a resource.
async fn named(session: &Session, wanted: &str) -> Result<(String, String)> {
    if wanted == "*" {
        return Ok((String::new(), "*".to_owned()));
    }
    let (name, sub) = wanted.split_once('/').unwrap_or((wanted, ""));
    let Some(resource) = session.resources().await?.find(name) else {
        return Err(Failure::Bare(format!("the server doesn't have a resource type {name:?}")));
    };
    let full = if sub.is_empty() { resource.plural.clone() } else { format!("{}/{sub}", resource.plural) };
    Ok((resource.group.clone(), full))
}

/// Where an Ingress leads.
#[derive(Args, Clone, Debug)]
pub(super) struct Routes {
    /// HOST/PATH=SERVICE:PORT[,tls[=SECRET]]
    #[arg(long)]
    rule: Vec<String>,
    /// SERVICE:PORT
    #[arg(long, default_value = "")]
    default_backend: String,
    /// The IngressClass.
    #[arg(long, default_value = "")]
    class: String,
    /// KEY=VALUE
    #[arg(long)]
    annotation: Vec<String>,
}

impl Routes {
    /// The Ingress.
    pub(super) fn ingress(&self, name: &str) -> Result<Value> {
        if self.rule.is_empty() && self.default_backend.is_empty() {
            return plain(
                "not enough information provided: every ingress has to either specify a default-backend (which catches all traffic) or a list of rules (which catch specific paths)",
            );
        }
        let mut metadata = json!({"name": name, "creationTimestamp": null});
        let pairs = self.annotation.iter().filter_map(|pair| pair.split_once('='));
        let annotations: Map<String, Value> = pairs.map(|(key, value)| (key.to_owned(), value.into())).collect();
        if !annotations.is_empty() {
            metadata["annotations"] = annotations.into();
        }
        let mut spec = json!({});
        if !self.class.is_empty() {
            spec["ingressClassName"] = self.class.as_str().into();
        }
        if !self.default_backend.is_empty() {
            let Some(backend) = backend(&self.default_backend) else {
                return plain("default-backend should be in format servicename:serviceport");
            };
            spec["defaultBackend"] = backend;
        }
        let (rules, tls) = self.rules()?;
        for (field, list) in [("rules", rules), ("tls", tls)] {
            if !list.is_empty() {
                spec[field] = list.into();
            }
        }
        Ok(json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec,
            "status": {"loadBalancer": {}}}))
    }

    /// One rule per host, in the order of their first paths, and the certificates.
    fn rules(&self) -> Result<(Vec<Value>, Vec<Value>)> {
        let (mut rules, mut tls): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
        for text in &self.rule {
            let mut parts = text.split(',');
            let route = parts.next().unwrap_or_default();
            let parsed = route.split_once('=').and_then(|(from, to)| Some((from.split_once('/')?, backend(to)?)));
            let Some(((host, path), backend)) = parsed else {
                return plain(format!(
                    "rule {text} is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]"
                ));
            };
            let (path, kind) = match path.strip_suffix('*') {
                Some(prefix) => (format!("/{prefix}"), "Prefix"),
                None => (format!("/{path}"), "Exact"),
            };
            let entry = json!({"path": path, "pathType": kind, "backend": backend});
            match rules.iter_mut().find(|rule| rule["host"].as_str().unwrap_or_default() == host) {
                Some(rule) => {
                    rule["http"]["paths"].as_array_mut().into_iter().for_each(|paths| paths.push(entry.clone()))
                }
                None => {
                    let mut rule = json!({"http": {"paths": [entry]}});
                    if !host.is_empty() {
                        rule["host"] = host.into();
                    }
                    rules.push(rule);
                }
            }
            for option in parts {
                let (word, secret) = option.split_once('=').unwrap_or((option, ""));
                if word != "tls" {
                    return plain(format!(
                        "rule {text} is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]"
                    ));
                }
                let mut entry = json!({});
                if !host.is_empty() {
                    entry["hosts"] = json!([host]);
                }
                if !secret.is_empty() {
                    entry["secretName"] = secret.into();
                }
                if !tls.contains(&entry) {
                    tls.push(entry);
                }
            }
        }
        Ok((rules, tls))
    }
}

/// `SERVICE:PORT`
fn backend(text: &str) -> Option<Value> {
    let (service, port) = text.split_once(':').filter(|(service, port)| !service.is_empty() && !port.is_empty())?;
    let port = port.parse::<i64>().map_or_else(|_| json!({"name": port}), |number| json!({"number": number}));
    Some(json!({"service": {"name": service, "port": port}}))
}

/// How urgent pods are.
#[derive(Args, Clone, Debug)]
pub(super) struct Priority {
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    value: i32,
    /// The one that pods have which name none.
    #[arg(long)]
    global_default: bool,
    #[arg(long, default_value = "")]
    description: String,
    /// PreemptLowerPriority, Never
    #[arg(long, default_value = "PreemptLowerPriority")]
    preemption_policy: String,
}

impl Priority {
    pub(super) fn class(&self, metadata: &Value) -> Value {
        let mut class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": metadata,
            "value": self.value, "preemptionPolicy": self.preemption_policy});
        if self.global_default {
            class["globalDefault"] = true.into();
        }
        if !self.description.is_empty() {
            class["description"] = self.description.as_str().into();
        }
        class
    }
}

/// Who asks an image registry.
#[derive(Args, Clone, Debug)]
pub(super) struct Login {
    #[arg(long, default_value = "https://index.docker.io/v1/")]
    docker_server: String,
    #[arg(long, default_value = "")]
    docker_username: String,
    #[arg(long, default_value = "")]
    docker_password: String,
    #[arg(long, default_value = "")]
    docker_email: String,
}

impl Login {
    /// The content of a docker configuration, encoded.
    pub(super) fn encoded(&self) -> Result<String> {
        if self.docker_username.is_empty() || self.docker_password.is_empty() {
            return plain(
                "either --from-file or the combination of --docker-username, --docker-password and --docker-server is required",
            );
        }
        let auth = STANDARD.encode(format!("{}:{}", self.docker_username, self.docker_password));
        let mut entry = Map::new();
        entry.insert("username".into(), self.docker_username.as_str().into());
        entry.insert("password".into(), self.docker_password.as_str().into());
        if !self.docker_email.is_empty() {
            entry.insert("email".into(), self.docker_email.as_str().into());
        }
        entry.insert("auth".into(), auth.into());
        // The order of the fields is upstream's, so that the same flags make the same Secret.
        let fields: Vec<String> = ["username", "password", "email", "auth"]
            .iter()
            .filter_map(|field| Some(format!("{}:{}", Value::from(*field), crate::print::compact(entry.get(*field)?))))
            .collect();
        let server = crate::print::compact(&Value::from(self.docker_server.as_str()));
        Ok(STANDARD.encode(format!("{{\"auths\":{{{server}:{{{}}}}}}}", fields.join(","))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(rules: &[&str]) -> Routes {
        let rule = rules.iter().map(|rule| (*rule).to_owned()).collect();
        Routes { rule, default_backend: String::new(), class: String::new(), annotation: Vec::new() }
    }

    #[test]
    fn the_rules_of_an_ingress_are_short() {
        let ingress = routes(&["a.b/x*=web:80,tls=s", "a.b/y=web:http", "/=other:81"]).ingress("i").expect("is made");
        let path = |path: &str, kind: &str, service: &str, port: Value| json!({"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": port}}});
        let wanted = json!({
            "rules": [
                {"host": "a.b", "http": {"paths": [path("/x", "Prefix", "web", json!({"number": 80})),
                    path("/y", "Exact", "web", json!({"name": "http"}))]}},
                {"http": {"paths": [path("/", "Exact", "other", json!({"number": 81}))]}},
            ],
            "tls": [{"hosts": ["a.b"], "secretName": "s"}],
        });
        assert_eq!(ingress["spec"], wanted);
        let refused = routes(&["nonsense"]).ingress("i").expect_err("is refused").message();
        assert_eq!(
            refused,
            "rule nonsense is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]"
        );
    }

    #[test]
    fn a_login_is_written_as_docker_writes_it() {
        let login = Login {
            docker_server: "r".into(),
            docker_username: "u".into(),
            docker_password: "p".into(),
            docker_email: String::new(),
        };
        let text = STANDARD.decode(login.encoded().expect("is made")).expect("is base64");
        let wanted = r#"{"auths":{"r":{"username":"u","password":"p","auth":"dTpw"}}}"#;
        assert_eq!(String::from_utf8(text).expect("is text"), wanted);
    }
}
