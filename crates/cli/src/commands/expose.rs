//! `expose`: a Service for what has pods and ports already.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/expose`, `k8s.io/kubectl/pkg/polymorphichelpers`.

use clap::Args;
use serde_json::{Map, Value, json};

use super::common::{Change, Teller};
use super::run::overridden;
use crate::builder::{self, Found, Question};
use crate::failure::{Failure, Result, all, plain};
use crate::manifest::Files;
use crate::print::{at, list};
use crate::session::Session;

/// The longest name of a Service.
const NAME_MAX: usize = 63;
/// Kinds that can be exposed.
const EXPOSED: &[(&str, &str)] =
    &[("", "ReplicationController"), ("", "Service"), ("", "Pod"), ("apps", "Deployment"), ("apps", "ReplicaSet")];

/// What to expose, and as what.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// TYPE NAME or TYPE/NAME
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    change: Change,
    /// Name of the Service (default: that of the object).
    #[arg(long, default_value = "")]
    name: String,
    /// Port of the Service (default: those of the object).
    #[arg(long, default_value = "")]
    port: String,
    /// TCP, UDP, SCTP (default: that of the object's port).
    #[arg(long, default_value = "")]
    protocol: String,
    /// Number or name of the containers' port (default: the same).
    #[arg(long, default_value = "")]
    target_port: String,
    /// ClusterIP, NodePort, LoadBalancer, ExternalName
    #[arg(long = "type", default_value = "")]
    kind: String,
    /// None for a headless Service.
    #[arg(long, default_value = "")]
    cluster_ip: String,
    #[arg(long, default_value = "")]
    external_ip: String,
    #[arg(long, default_value = "")]
    load_balancer_ip: String,
    /// None, ClientIP
    #[arg(long, default_value = "")]
    session_affinity: String,
    /// KEY=VALUE,... (default: the object's own selector or labels)
    #[arg(long, default_value = "")]
    selector: String,
    /// Labels of the Service.
    #[arg(short = 'l', long, default_value = "")]
    labels: String,
    /// JSON that is merged over the Service.
    #[arg(long)]
    overrides: Option<String>,
    /// merge, strategic, json
    #[arg(long, default_value = "merge")]
    override_type: String,
    /// Keep the Service on itself for `apply`.
    #[arg(long)]
    save_config: bool,
}

/// Makes a Service for each.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let mut teller = Teller::new(session, &flags.change, "kubectl-expose")?;
    let question = Question { words: &flags.words, files: flags.files.clone(), ..Question::default() };
    let (found, mut failures) = builder::find(session, &question).await?;
    for found in found {
        if let Err(failure) = one(session, &mut teller, &flags, &found).await {
            failures.push(failure);
        }
    }
    all(failures)
}

async fn one(session: &Session, teller: &mut Teller, flags: &Flags, found: &Found) -> Result {
    let resource = &found.resource;
    if !EXPOSED.contains(&(&*resource.group, &*resource.kind)) {
        let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
        return plain(format!("cannot expose a {}{group}", resource.kind));
    }
    let mut service = service(flags, &found.name, &resource.kind, &found.object)?;
    if let Some(overrides) = &flags.overrides {
        service = overridden(service, overrides, &flags.override_type)?;
    }
    super::create::thought_up(session, teller, service, flags.save_config, "exposed").await
}

/// The Service, as kubectl would write it.
fn service(flags: &Flags, name: &str, kind: &str, object: &Value) -> Result<Value> {
    let selector = if flags.selector.is_empty() { selector_of(kind, object)? } else { parse_labels(&flags.selector)? };
    let ports = ports(flags, kind, object)?;
    let own = object["metadata"]["labels"].as_object().filter(|labels| !labels.is_empty());
    let labels = match &*flags.labels {
        "" => own.cloned().unwrap_or_default(),
        labels => parse_labels(labels)?,
    };
    let name: String = if flags.name.is_empty() { name.chars().take(NAME_MAX).collect() } else { flags.name.clone() };
    let mut metadata = json!({"name": name, "creationTimestamp": null});
    if !labels.is_empty() {
        metadata["labels"] = labels.into();
    }
    let mut spec = json!({"selector": selector});
    if !ports.is_empty() {
        spec["ports"] = ports.into();
    }
    if !flags.external_ip.is_empty() {
        spec["externalIPs"] = json!([flags.external_ip]);
    }
    if flags.kind == "LoadBalancer" && !flags.load_balancer_ip.is_empty() {
        spec["loadBalancerIP"] = flags.load_balancer_ip.as_str().into();
    }
    match &*flags.session_affinity {
        "" => {}
        affinity @ ("None" | "ClientIP") => spec["sessionAffinity"] = affinity.into(),
        other => return plain(format!("unknown session affinity: {other}")),
    }
    for (field, value) in [("type", &flags.kind), ("clusterIP", &flags.cluster_ip)] {
        if !value.is_empty() {
            spec[field] = value.as_str().into();
        }
    }
    Ok(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, "status": {"loadBalancer": {}}}),
    )
}

/// The labels by which an object selects its pods; a pod is selected by its own.
fn selector_of(kind: &str, object: &Value) -> Result<Map<String, Value>> {
    let why = |text: String| plain(format!("couldn't retrieve selectors via --selector flag or introspection: {text}"));
    let map = |pointer: &str| object.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default();
    let (labels, missing) = match kind {
        "Pod" => (map("/metadata/labels"), "the pod has no labels and cannot be exposed".to_owned()),
        "Service" => (map("/spec/selector"), "the service has no pod selector set".to_owned()),
        "ReplicationController" => (map("/spec/selector"), "selector must be specified".to_owned()),
        kind => {
            let expressions = list(object, "/spec/selector/matchExpressions");
            if !expressions.is_empty() {
                let shown: Vec<&str> = expressions.iter().map(|expression| at(expression, "/key")).collect();
                return why(format!(
                    "couldn't convert expressions - {:?} to map-based selector format",
                    shown.join(",")
                ));
            }
            let text = format!("invalid {}: no selectors, therefore cannot be exposed", kind.to_lowercase());
            (map("/spec/selector/matchLabels"), text)
        }
    };
    if labels.is_empty() { why(missing) } else { Ok(labels) }
}

/// `a=b,c=d` as labels.
fn parse_labels(text: &str) -> Result<Map<String, Value>> {
    let mut labels = Map::new();
    for part in text.split(',') {
        match part.split('=').collect::<Vec<_>>()[..] {
            ["", _] => return plain("unexpected empty label key"),
            [key, value] => drop(labels.insert(key.to_owned(), value.into())),
            _ => return plain(format!("unexpected label spec: {part}")),
        }
    }
    Ok(labels)
}

/// The ports of the Service: by flag, or those of the object, with their protocols.
fn ports(flags: &Flags, kind: &str, object: &Value) -> Result<Vec<Value>> {
    let own = ports_of(kind, object);
    let mut numbers: Vec<String> = Vec::new();
    if flags.port.is_empty() {
        for (number, _) in &own {
            if !numbers.contains(number) {
                numbers.push(number.clone());
            }
        }
    } else {
        numbers = flags.port.split(',').map(str::to_owned).collect();
    }
    if numbers.is_empty() && flags.cluster_ip != "None" {
        return plain("couldn't find port via --port flag or introspection");
    }
    let mut ports = Vec::new();
    for (at, text) in numbers.iter().enumerate() {
        let number: i64 =
            text.parse().map_err(|_| Failure::Plain(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))?;
        let protocols: Vec<&str> = match &*flags.protocol {
            "" => own.iter().filter(|(own, _)| own == text).map(|(_, protocol)| &**protocol).collect(),
            protocol => vec![protocol],
        };
        let several = protocols.len() > 1;
        for protocol in if protocols.is_empty() { vec!["TCP"] } else { protocols } {
            let target = match &*flags.target_port {
                "" => json!(number),
                target => target.parse::<i64>().map_or_else(|_| json!(target), |number| json!(number)),
            };
            let mut port = json!({"port": number, "protocol": protocol, "targetPort": target});
            if several {
                port["name"] = format!("port-{}-{}", at + 1, protocol.to_lowercase()).into();
            } else if numbers.len() > 1 {
                port["name"] = format!("port-{}", at + 1).into();
            }
            ports.push(port);
        }
    }
    Ok(ports)
}

/// Numbers and protocols of the ports that an object has.
fn ports_of(kind: &str, object: &Value) -> Vec<(String, String)> {
    let pair = |port: &Value, field: &str| {
        let protocol = at(port, "/protocol");
        let protocol = if protocol.is_empty() { "TCP" } else { protocol };
        (crate::print::int(port, field).to_string(), protocol.to_owned())
    };
    if kind == "Service" {
        return list(object, "/spec/ports").iter().map(|port| pair(port, "/port")).collect();
    }
    let containers = if kind == "Pod" { "/spec/containers" } else { "/spec/template/spec/containers" };
    let ports = list(object, containers).iter().flat_map(|container| list(container, "/ports"));
    ports.map(|port| pair(port, "/containerPort")).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn spec(line: &str, object: &Value) -> std::result::Result<String, String> {
        let flags = Line::parse_from(std::iter::once("expose").chain(line.split_whitespace())).flags;
        let made = service(&flags, "web", "Deployment", object).map_err(|failure| failure.message())?;
        Ok(crate::print::compact(&made["spec"]))
    }

    #[test]
    fn ports_and_selector_come_from_the_object_unless_flags_say_otherwise() {
        let deployment = |ports: Value| json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [{"ports": ports}]}}}});
        let one = deployment(json!([{"containerPort": 80}]));
        let two =
            deployment(json!([{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 9}]));
        for (line, object, wanted) in [
            ("", &one, Ok(r#"{"ports":[{"port":80,"protocol":"TCP","targetPort":80}],"selector":{"a":"b"}}"#)),
            (
                "--port=81 --target-port=http --selector=x=y --type=NodePort",
                &one,
                Ok(
                    r#"{"ports":[{"port":81,"protocol":"TCP","targetPort":"http"}],"selector":{"x":"y"},"type":"NodePort"}"#,
                ),
            ),
            (
                "",
                &two,
                Ok(
                    r#"{"ports":[{"name":"port-1-tcp","port":53,"protocol":"TCP","targetPort":53},{"name":"port-1-udp","port":53,"protocol":"UDP","targetPort":53},{"name":"port-2","port":9,"protocol":"TCP","targetPort":9}],"selector":{"a":"b"}}"#,
                ),
            ),
            ("", &deployment(json!([])), Err("couldn't find port via --port flag or introspection")),
            ("--cluster-ip=None", &deployment(json!([])), Ok(r#"{"clusterIP":"None","selector":{"a":"b"}}"#)),
            ("--port=x", &one, Err("strconv.Atoi: parsing \"x\": invalid syntax")),
        ] {
            assert_eq!(spec(line, object), wanted.map(str::to_owned).map_err(str::to_owned), "{line}");
        }
    }
}
