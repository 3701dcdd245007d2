//! `create`: objects from files, or of a kind by flags.
//!
//! Source of the texts and defaults: `k8s.io/kubectl/pkg/cmd/create`.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::common::{Change, DryRun, Teller};
use super::create_access::{Login, Priority, Routes, Rules};
use crate::apply::with_annotation;
use crate::builder::{self, Target};
use crate::failure::{Failure, Result, all, plain, system, usage};
use crate::manifest::{self, Files};
use crate::server::Call;
use crate::session::Session;

/// What to create.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    change: Change,
    /// Keep the manifest on the object for `apply`.
    #[arg(long)]
    save_config: bool,
    /// Label selector: which objects of the files.
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Edit before it is created; not offered.
    #[arg(long, hide = true)]
    edit: bool,
    /// strict (or true), warn, ignore (or false)
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "strict", default_missing_value = "strict")]
    validate: String,
    /// A URL path to post a file to.
    #[arg(long)]
    raw: Option<String>,
}

/// What all kinds take.
#[derive(Args, Clone, Debug)]
struct Common {
    /// NAME
    names: Vec<String>,
    #[command(flatten)]
    change: Change,
    #[arg(long)]
    save_config: bool,
}

/// Where the data of a ConfigMap or Secret comes from.
#[derive(Args, Clone, Debug)]
struct Sources {
    /// KEY=VALUE
    #[arg(long)]
    from_literal: Vec<String>,
    /// FILE, KEY=FILE or a directory.
    #[arg(long)]
    from_file: Vec<String>,
    /// A file of KEY=VALUE lines.
    #[arg(long)]
    from_env_file: Vec<String>,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// A namespace.
    #[command(alias = "ns")]
    Namespace(Common),
    /// A ConfigMap.
    #[command(alias = "cm")]
    Configmap {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        sources: Sources,
    },
    /// A Secret.
    Secret {
        #[command(subcommand)]
        kind: SecretKind,
    },
    /// A ServiceAccount.
    #[command(alias = "sa")]
    Serviceaccount(Common),
    /// A Deployment.
    #[command(alias = "deploy")]
    Deployment {
        #[command(flatten)]
        common: Common,
        #[arg(long, required = true)]
        image: Vec<String>,
        #[arg(short = 'r', long, default_value_t = 1)]
        replicas: i64,
        #[arg(long)]
        port: Option<i64>,
        /// The command, after `--`.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// A Service.
    #[command(alias = "svc")]
    Service {
        #[command(subcommand)]
        kind: ServiceKind,
    },
    /// A Job.
    Job {
        #[command(flatten)]
        common: Common,
        #[arg(long)]
        image: Option<String>,
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// A CronJob.
    #[command(alias = "cj")]
    Cronjob {
        #[command(flatten)]
        common: Common,
        #[arg(long, required = true)]
        image: String,
        #[arg(long, required = true)]
        schedule: String,
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// A ResourceQuota.
    Quota {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value = "")]
        hard: String,
        /// What pods must be for the quota to count them: BestEffort, Terminating and the like.
        #[arg(long, default_value = "")]
        scopes: String,
    },
    /// A PodDisruptionBudget.
    #[command(alias = "pdb")]
    Poddisruptionbudget {
        #[command(flatten)]
        common: Common,
        #[arg(long, required = true)]
        selector: String,
        #[arg(long)]
        min_available: Option<String>,
        #[arg(long)]
        max_unavailable: Option<String>,
    },
    /// A Role: what is allowed in a namespace.
    Role {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        rules: Rules,
    },
    /// A ClusterRole: what is allowed anywhere.
    Clusterrole {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        rules: Rules,
        /// URLs that are no resources.
        #[arg(long, value_delimiter = ',')]
        non_resource_url: Vec<String>,
    },
    /// An Ingress.
    #[command(alias = "ing")]
    Ingress {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        routes: Routes,
    },
    /// A PriorityClass.
    #[command(alias = "pc")]
    Priorityclass {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        priority: Priority,
    },
    /// A ClusterRoleBinding.
    Clusterrolebinding {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        subjects: Subjects,
    },
    /// A RoleBinding.
    Rolebinding {
        #[command(flatten)]
        common: Common,
        #[arg(long)]
        role: Option<String>,
        #[command(flatten)]
        subjects: Subjects,
    },
    /// A token of a ServiceAccount.
    Token {
        name: String,
        /// How long it is good for, such as 1h.
        #[arg(long)]
        duration: Option<String>,
        #[arg(long)]
        audience: Vec<String>,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum SecretKind {
    /// Of data.
    Generic {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        sources: Sources,
        #[arg(long = "type", default_value = "")]
        kind: String,
    },
    /// Of credentials for an image registry.
    DockerRegistry {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        login: Login,
    },
    /// Of a certificate and its key.
    Tls {
        #[command(flatten)]
        common: Common,
        #[arg(long, required = true)]
        cert: String,
        #[arg(long, required = true)]
        key: String,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum ServiceKind {
    Clusterip(ServiceFlags),
    Nodeport(ServiceFlags),
    Loadbalancer(ServiceFlags),
    Externalname {
        #[command(flatten)]
        flags: ServiceFlags,
        #[arg(long, required = true)]
        external_name: String,
    },
}

#[derive(Args, Clone, Debug)]
struct ServiceFlags {
    #[command(flatten)]
    common: Common,
    /// PORT or PORT:TARGET
    #[arg(long, value_delimiter = ',')]
    tcp: Vec<String>,
    /// None for a headless Service.
    #[arg(long)]
    clusterip: Option<String>,
    #[arg(long)]
    node_port: Option<i64>,
}

#[derive(Args, Clone, Debug)]
struct Subjects {
    #[arg(long)]
    clusterrole: Option<String>,
    #[arg(long = "group")]
    groups: Vec<String>,
    /// NAMESPACE:NAME
    #[arg(long = "serviceaccount")]
    accounts: Vec<String>,
    /// Users who are bound: `--user`, which everywhere else is the kubeconfig's.
    #[arg(skip)]
    users: Vec<String>,
}

impl Flags {
    /// For a binding `--user` names whom it binds, not whom the kubeconfig has.
    pub(crate) fn take_user(&mut self, globals: &mut crate::arguments::Globals) {
        if let Some(What::Clusterrolebinding { subjects, .. } | What::Rolebinding { subjects, .. }) = &mut self.what {
            subjects.users.extend(globals.user.take());
        }
    }
}

/// Creates, telling each.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    match flags.what.clone() {
        None => from_files(session, &flags).await,
        Some(What::Token { name, duration, audience }) => token(session, &name, duration.as_deref(), &audience).await,
        Some(what) => {
            let (common, command) = what.common();
            let name = one_name(common, command)?;
            let change = common.change.clone();
            let save = common.save_config;
            let object = match &what {
                What::Role { rules, .. } => role("Role", &name, rules.rules(session).await?),
                What::Clusterrole { rules, non_resource_url, .. } => {
                    let mut all = Vec::new();
                    if !rules.is_empty() || non_resource_url.is_empty() {
                        all = rules.rules(session).await?;
                    }
                    if !non_resource_url.is_empty() {
                        all.extend(rules.of_urls(non_resource_url)?);
                    }
                    role("ClusterRole", &name, all)
                }
                what => what.object(&name)?,
            };
            by_flags(session, &change, save, object, command).await
        }
    }
}

fn one_name(common: &Common, command: &str) -> Result<String> {
    match &common.names[..] {
        [name] => Ok(name.clone()),
        names => usage(&format!("create {command}"), &format!("exactly one NAME is required, got {}", names.len())),
    }
}

async fn from_files(session: &Session, flags: &Flags) -> Result {
    flags.files.required()?;
    if let Some(raw) = &flags.raw {
        return send_raw(session, Method::POST, raw, &flags.files).await;
    }
    let mut teller = Teller::new(session, &flags.change, "kubectl-create")?;
    let validate = super::apply::validation(&flags.validate)?;
    let wanted = stead_machinery::selector::Selector::parse(flags.selector.as_deref().unwrap_or_default())
        .map_err(Failure::Plain)?;
    let (mut failures, mut any) = (Vec::new(), false);
    for loaded in manifest::load_to_validate(&flags.files, validate).await? {
        if !wanted.matches_labels(&loaded.object["metadata"]["labels"]) {
            continue;
        }
        any = true;
        let done = async {
            let target = builder::of_manifest(session, loaded).await?;
            let manifest = target.object.clone().unwrap_or_default();
            let object = if flags.save_config { with_annotation(&manifest) } else { manifest };
            let made = super::apply::post(session, &teller, &target, &object, validate).await?;
            teller.tell(session, &target.resource, &made, "created")
        };
        if let Err(failure) = done.await {
            failures.push(failure);
        }
    }
    if !any {
        return plain("no objects passed to create");
    }
    all(failures)
}

/// Sends a file as it is, and prints the answer as it is.
pub(super) async fn send_raw(session: &Session, method: Method, path: &str, files: &Files) -> Result {
    let body = manifest::raw(files)?;
    let call = Call::new(method, path).body("application/json", body);
    session.out(&session.server().await?.text(call).await?)
}

async fn by_flags(session: &Session, change: &Change, save: bool, object: Value, command: &str) -> Result {
    let mut teller = Teller::new(session, change, "kubectl-create")?;
    if teller.dry_run == DryRun::Client && session.globals.namespace.is_none() {
        // Nothing needs to be asked of a server.
        let resource = known(&object);
        let object = if save { with_annotation(&object) } else { object };
        return teller.tell(session, &resource, &object, "created");
    }
    let loaded = manifest::Loaded { object, source: String::new() };
    let target: Target = builder::of_manifest(session, loaded).await?;
    let manifest = target.object.clone().unwrap_or_default();
    let object = if save { with_annotation(&manifest) } else { manifest };
    let made = super::apply::post(session, &teller, &target, &object, "Strict").await;
    let made = made.map_err(|failure| refused(failure, command, &object))?;
    teller.tell(session, &target.resource, &made, "created")
}

/// A refusal in the words of each kind's own command; a namespace's has none.
fn refused(failure: Failure, command: &str, object: &Value) -> Failure {
    let why = failure.message();
    match (command, command.split_once(' ')) {
        ("namespace", _) => failure,
        (_, Some(("secret", _))) => Failure::Plain(format!("failed to create secret {why}")),
        (_, Some(("service", _))) => {
            let kind = object["spec"]["type"].as_str().unwrap_or_default();
            Failure::Plain(format!("failed to create {kind} service: {why}"))
        }
        (command, _) => Failure::Plain(format!("failed to create {command}: {why}")),
    }
}

/// Sends an object that a command has thought up, or only tells of it; with `keep` the object is kept on itself for `apply`.
pub(crate) async fn thought_up(
    session: &Session,
    teller: &mut Teller,
    object: Value,
    keep: bool,
    done: &str,
) -> Result {
    let object = if keep && teller.dry_run != DryRun::Client { with_annotation(&object) } else { object };
    if teller.dry_run == DryRun::Client && session.globals.namespace.is_none() {
        return teller.tell(session, &known(&object), &object, done);
    }
    let target = builder::of_manifest(session, manifest::Loaded { object, source: String::new() }).await?;
    let object = target.object.clone().unwrap_or_default();
    let made = super::apply::post(session, teller, &target, &object, "Strict").await?;
    teller.tell(session, &target.resource, &made, done)
}

/// The resource of an object that this program makes itself.
pub(crate) fn known(object: &Value) -> crate::resources::Resource {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let api_version = text(&object["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    crate::resources::Resource {
        group: group.into(),
        version: version.into(),
        kind: text(&object["kind"]),
        ..Default::default()
    }
}

impl What {
    fn common(&self) -> (&Common, &'static str) {
        match self {
            Self::Namespace(common) => (common, "namespace"),
            Self::Configmap { common, .. } => (common, "configmap"),
            Self::Secret { kind: SecretKind::Generic { common, .. } } => (common, "secret generic"),
            Self::Secret { kind: SecretKind::Tls { common, .. } } => (common, "secret tls"),
            Self::Secret { kind: SecretKind::DockerRegistry { common, .. } } => (common, "secret docker-registry"),
            Self::Role { common, .. } => (common, "role"),
            Self::Clusterrole { common, .. } => (common, "clusterrole"),
            Self::Ingress { common, .. } => (common, "ingress"),
            Self::Priorityclass { common, .. } => (common, "priorityclass"),
            Self::Serviceaccount(common) => (common, "serviceaccount"),
            Self::Deployment { common, .. } => (common, "deployment"),
            Self::Service { kind } => match kind {
                ServiceKind::Clusterip(flags) => (&flags.common, "service clusterip"),
                ServiceKind::Nodeport(flags) => (&flags.common, "service nodeport"),
                ServiceKind::Loadbalancer(flags) => (&flags.common, "service loadbalancer"),
                ServiceKind::Externalname { flags, .. } => (&flags.common, "service externalname"),
            },
            Self::Job { common, .. } => (common, "job"),
            Self::Cronjob { common, .. } => (common, "cronjob"),
            Self::Quota { common, .. } => (common, "quota"),
            Self::Poddisruptionbudget { common, .. } => (common, "poddisruptionbudget"),
            Self::Clusterrolebinding { common, .. } => (common, "clusterrolebinding"),
            Self::Rolebinding { common, .. } => (common, "rolebinding"),
            Self::Token { .. } => unreachable!("a token is no object of its own; `run` takes it first"),
        }
    }

    /// The object, as kubectl would write it.
    fn object(&self, name: &str) -> Result<Value> {
        let metadata = json!({"name": name, "creationTimestamp": null});
        Ok(match self {
            Self::Namespace(_) => {
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "spec": {}, "status": {}})
            }
            Self::Serviceaccount(_) => json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
            Self::Configmap { sources, .. } => config_map(metadata, &sources.read()?),
            Self::Secret { kind } => secret(metadata, kind)?,
            Self::Deployment { image, replicas, port, command, .. } => {
                deployment(name, image, *replicas, *port, command)
            }
            Self::Service { kind } => service(name, kind)?,
            Self::Job { image, command, .. } => {
                let Some(image) = image else { return plain("either --image or --from must be specified") };
                job(name, image, command)
            }
            Self::Cronjob { image, schedule, command, .. } => {
                let mut template = job(name, image, command)["spec"]["template"].clone();
                template["spec"]["restartPolicy"] = "OnFailure".into();
                json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "status": {}, "spec": {"schedule": schedule,
                    "jobTemplate": {"metadata": metadata, "spec": {"template": template}}}})
            }
            Self::Quota { hard, scopes, .. } => {
                let mut amounts = Map::new();
                for part in hard.split(',').filter(|part| !part.is_empty()) {
                    let Some((key, amount)) = part.split_once('=') else {
                        return plain(format!("Invalid argument syntax {part}, expected <resource>=<value>"));
                    };
                    amounts.insert(key.to_owned(), amount.into());
                }
                let mut spec = Map::new();
                if !amounts.is_empty() {
                    spec.insert("hard".to_owned(), amounts.into());
                }
                if !scopes.is_empty() {
                    spec.insert("scopes".to_owned(), scopes.split(',').collect::<Vec<_>>().into());
                }
                json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": spec, "status": {}})
            }
            Self::Poddisruptionbudget { selector, min_available, max_unavailable, .. } => {
                let number = |text: &String| text.parse::<i64>().map_or_else(|_| json!(text), |n| json!(n));
                let mut spec = json!({"selector": {"matchLabels": labels(selector)}});
                if let Some(min) = min_available {
                    spec["minAvailable"] = number(min);
                }
                if let Some(max) = max_unavailable {
                    spec["maxUnavailable"] = number(max);
                }
                json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec,
                    "status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}})
            }
            Self::Clusterrolebinding { subjects, .. } => binding("ClusterRoleBinding", metadata, None, subjects)?,
            Self::Rolebinding { role, subjects, .. } => binding("RoleBinding", metadata, role.as_deref(), subjects)?,
            Self::Ingress { routes, .. } => routes.ingress(name)?,
            Self::Priorityclass { priority, .. } => priority.class(&metadata),
            // What they are made of is asked of the server.
            Self::Token { .. } | Self::Role { .. } | Self::Clusterrole { .. } => Value::Null,
        })
    }
}

fn role(kind: &str, name: &str, rules: Vec<Value>) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "rules": rules,
        "metadata": {"name": name, "creationTimestamp": null}})
}

/// `a=b,c=d` as labels.
pub(crate) fn labels(text: &str) -> Map<String, Value> {
    text.split(',').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key.to_owned(), value.into())).collect()
}

fn config_map(metadata: Value, data: &[(String, Vec<u8>)]) -> Value {
    let (mut text, mut binary) = (Map::new(), Map::new());
    for (key, value) in data {
        match std::str::from_utf8(value) {
            Ok(value) => text.insert(key.clone(), value.into()),
            Err(_) => binary.insert(key.clone(), STANDARD.encode(value).into()),
        };
    }
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    for (field, entries) in [("data", text), ("binaryData", binary)] {
        if !entries.is_empty() {
            map[field] = entries.into();
        }
    }
    map
}

fn secret(metadata: Value, kind: &SecretKind) -> Result<Value> {
    let encoded = |data: Vec<(String, Vec<u8>)>| -> Map<String, Value> {
        data.into_iter().map(|(key, value)| (key, STANDARD.encode(value).into())).collect()
    };
    let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata});
    match kind {
        SecretKind::Generic { sources, kind, .. } => {
            let data = encoded(sources.read()?);
            if !data.is_empty() {
                secret["data"] = data.into();
            }
            if !kind.is_empty() {
                secret["type"] = kind.as_str().into();
            }
        }
        SecretKind::DockerRegistry { login, .. } => {
            secret["data"] = json!({".dockerconfigjson": login.encoded()?});
            secret["type"] = "kubernetes.io/dockerconfigjson".into();
        }
        SecretKind::Tls { cert, key, .. } => {
            let read = |path: &String| {
                std::fs::read(path).map_err(|error| Failure::Plain(format!("open {path}: {}", system(&error))))
            };
            secret["data"] = encoded(vec![("tls.crt".into(), read(cert)?), ("tls.key".into(), read(key)?)]).into();
            secret["type"] = "kubernetes.io/tls".into();
        }
    }
    Ok(secret)
}

fn containers(name: &str, images: &[String], command: &[String]) -> Value {
    let one = |image: &String| {
        let bare = image.rsplit('/').next().unwrap_or(image);
        let bare = bare.split(['@', ':']).next().unwrap_or(bare);
        let name = if name.is_empty() { bare.replace('_', "-") } else { name.to_owned() };
        let mut container = json!({"name": name, "image": image, "resources": {}});
        if !command.is_empty() {
            container["command"] = json!(command);
        }
        container
    };
    images.iter().map(one).collect()
}

fn deployment(name: &str, images: &[String], replicas: i64, port: Option<i64>, command: &[String]) -> Value {
    let labels = json!({"app": name});
    let mut containers = containers("", images, command);
    if let Some(port) = port {
        containers[0]["ports"] = json!([{"containerPort": port}]);
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "creationTimestamp": null, "labels": labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "strategy": {},
            "template": {"metadata": {"creationTimestamp": null, "labels": labels}, "spec": {"containers": containers}}},
        "status": {}})
}

fn job(name: &str, image: &str, command: &[String]) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "creationTimestamp": null}, "status": {},
        "spec": {"template": {"metadata": {"creationTimestamp": null},
            "spec": {"containers": containers(name, &[image.to_owned()], command), "restartPolicy": "Never"}}}})
}

fn service(name: &str, kind: &ServiceKind) -> Result<Value> {
    let (flags, kind, external) = match kind {
        ServiceKind::Clusterip(flags) => (flags, "ClusterIP", None),
        ServiceKind::Nodeport(flags) => (flags, "NodePort", None),
        ServiceKind::Loadbalancer(flags) => (flags, "LoadBalancer", None),
        ServiceKind::Externalname { flags, external_name } => (flags, "ExternalName", Some(external_name)),
    };
    let headless = flags.clusterip.as_deref() == Some("None");
    if flags.tcp.is_empty() && external.is_none() && !headless {
        return plain("at least one tcp port specifier must be provided");
    }
    let mut ports = Vec::new();
    for tcp in &flags.tcp {
        let (port, target) = tcp.split_once(':').unwrap_or((tcp, tcp));
        let number = |text: &str| text.parse::<i64>().map_or_else(|_| json!(text), |n| json!(n));
        let mut entry = json!({"name": tcp.replace(':', "-"), "port": number(port), "protocol": "TCP", "targetPort": number(target)});
        if let Some(node_port) = flags.node_port {
            entry["nodePort"] = node_port.into();
        }
        ports.push(entry);
    }
    let labels = json!({"app": name});
    let mut spec = json!({"type": kind, "selector": labels});
    if !ports.is_empty() {
        spec["ports"] = ports.into();
    }
    if let Some(address) = &flags.clusterip {
        spec["clusterIP"] = address.as_str().into();
    }
    if let Some(external) = external {
        spec["externalName"] = external.as_str().into();
    }
    Ok(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "creationTimestamp": null, "labels": labels},
        "spec": spec, "status": {"loadBalancer": {}}}),
    )
}

fn binding(kind: &str, metadata: Value, role: Option<&str>, subjects: &Subjects) -> Result<Value> {
    let (role_kind, role) = match (role, &subjects.clusterrole) {
        (Some(role), None) => ("Role", role),
        (None, Some(role)) => ("ClusterRole", role.as_str()),
        _ => return plain("exactly one of clusterrole or role must be specified"),
    };
    const GROUP: &str = "rbac.authorization.k8s.io";
    let mut all = Vec::new();
    for user in &subjects.users {
        all.push(json!({"apiGroup": GROUP, "kind": "User", "name": user}));
    }
    for group in &subjects.groups {
        all.push(json!({"apiGroup": GROUP, "kind": "Group", "name": group}));
    }
    for account in &subjects.accounts {
        let Some((namespace, name)) = account.split_once(':') else {
            return plain("serviceaccount must be <namespace>:<name>");
        };
        all.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
    }
    Ok(json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata,
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role}, "subjects": all}))
}

impl Sources {
    /// All data, in the order of the flags: files, literals, environment files.
    fn read(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut data: Vec<(String, Vec<u8>)> = Vec::new();
        let mut add = |key: String, value: Vec<u8>| {
            if data.iter().any(|(known, _)| *known == key) {
                return plain(format!("cannot add key {key:?}, another key by that name already exists in Data"));
            }
            data.push((key, value));
            Ok(())
        };
        for source in &self.from_file {
            let (key, path) = match source.split_once('=') {
                Some((key, path)) => (Some(key.to_owned()), path),
                None => (None, source.as_str()),
            };
            for (name, value) in files(path)? {
                add(key.clone().unwrap_or(name), value)?;
            }
        }
        for literal in &self.from_literal {
            let Some((key, value)) = literal.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return plain(format!("invalid literal source {literal}, expected key=value"));
            };
            let unquoted = |quote: char| value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote));
            let value = unquoted('\'').or_else(|| unquoted('"')).unwrap_or(value);
            add(key.to_owned(), value.as_bytes().to_vec())?;
        }
        for path in &self.from_env_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::Plain(format!("open {path}: {}", system(&error))))?;
            for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let (key, value) = match line.split_once('=') {
                    Some((key, value)) => (key, value.to_owned()),
                    None => (line, std::env::var(line).unwrap_or_default()),
                };
                add(key.to_owned(), value.into_bytes())?;
            }
        }
        Ok(data)
    }
}

/// A file, or the files of a directory, by name.
fn files(path: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let failed = |error: std::io::Error| Failure::Plain(format!("error reading {path}: {}", system(&error)));
    let named = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_dir() {
        return Ok(vec![(named(Path::new(path)), std::fs::read(path).map_err(failed)?)]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?.path();
        if entry.is_file() {
            found.push((named(&entry), std::fs::read(&entry).map_err(failed)?));
        }
    }
    found.sort();
    Ok(found)
}

async fn token(session: &Session, name: &str, duration: Option<&str>, audiences: &[String]) -> Result {
    let mut spec = json!({});
    if let Some(duration) = duration {
        spec["expirationSeconds"] = super::common::duration(duration)?.as_secs().into();
    }
    if !audiences.is_empty() {
        spec["audiences"] = json!(audiences);
    }
    let accounts = session.kind("", "ServiceAccount").await?;
    let path = format!("{}/token", accounts.object_path(Some(session.namespace().await?), name));
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let call = Call::new(Method::POST, &path).body("application/json", body.to_string().into_bytes());
    let answer = session.server().await?.send(call).await?;
    session.out(&format!("{}\n", answer["status"]["token"].as_str().unwrap_or_default()))
}
