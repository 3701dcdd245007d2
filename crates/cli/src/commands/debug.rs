//! `debug`: a container beside those of a pod, a copy of a pod, or a pod on a node, to look into what goes wrong there.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/debug`.

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use super::common::{STRATEGIC, difference};
use super::wait::until;
use crate::builder::{self, Found, Question};
use crate::failure::{Failure, Result, all, plain, system};
use crate::manifest::Files;
use crate::print::{at, list};
use crate::server::Call;
use crate::session::Session;
use crate::stream::{self, Talk};

/// How long the random end of a name is, and of what it is made.
const SUFFIX_LENGTH: usize = 5;
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// The label of pods on nodes.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// What to debug, and with what.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// POD, TYPE/NAME or node/NAME
    words: Vec<String>,
    /// Files with the objects to debug.
    #[arg(short = 'f', long)]
    filename: Vec<std::path::PathBuf>,
    /// Image of the container.
    #[arg(long, default_value = "")]
    image: String,
    /// Name of the container.
    #[arg(short = 'c', long, default_value = "")]
    container: String,
    /// The container whose processes it sees.
    #[arg(long, default_value = "")]
    target: String,
    /// Pass standard input on.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give it a terminal.
    #[arg(short = 't', long)]
    tty: bool,
    /// Attach as soon as it runs (default with -i).
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    attach: Option<bool>,
    #[arg(short = 'q', long)]
    quiet: bool,
    /// NAME=VALUE
    #[arg(long, value_delimiter = ',')]
    env: Vec<String>,
    #[arg(long, default_value = "")]
    image_pull_policy: String,
    /// The words behind `--` are arguments rather than the command.
    #[arg(long)]
    arguments_only: bool,
    /// Name of a copy of the pod, which is made instead.
    #[arg(long, default_value = "")]
    copy_to: String,
    /// Delete the pod that was copied.
    #[arg(long)]
    replace: bool,
    /// Put the copy on the same node.
    #[arg(long)]
    same_node: bool,
    /// CONTAINER=IMAGE of the copy; * for all containers.
    #[arg(long, value_delimiter = ',')]
    set_image: Vec<String>,
    /// Whether the copy's containers see each other's processes.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    share_processes: Option<bool>,
    /// What of the pod the copy keeps.
    #[arg(long)]
    keep_labels: bool,
    #[arg(long)]
    keep_annotations: bool,
    #[arg(long)]
    keep_liveness: bool,
    #[arg(long)]
    keep_readiness: bool,
    #[arg(long)]
    keep_startup: bool,
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    keep_init_containers: bool,
    /// general, baseline, restricted, netadmin, sysadmin, legacy
    #[arg(long, default_value = "general")]
    profile: String,
    /// A file with fields of the container, JSON or YAML.
    #[arg(long)]
    custom: Option<String>,
    #[arg(last = true)]
    command: Vec<String>,
}

/// What is being made for the debugging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Ephemeral,
    Copy,
    Node,
}

/// Makes what is needed for each, and attaches.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let custom = flags.check(session)?;
    // A word alone is the name of a pod.
    let word = |word: &String| if word.contains('/') { word.clone() } else { format!("pods/{word}") };
    let words: Vec<String> = flags.words.iter().map(word).collect();
    let files = Files { filename: flags.filename.clone(), ..Files::default() };
    let (found, mut failures) =
        builder::find(session, &Question { words: &words, files, ..Question::default() }).await?;
    for found in found {
        if let Err(failure) = one(session, &flags, custom.as_ref(), &found).await {
            failures.push(failure);
        }
    }
    all(failures)
}

async fn one(session: &Session, flags: &Flags, custom: Option<&Value>, found: &Found) -> Result {
    let namespace = session.namespace().await?.to_owned();
    let (pod, container) = if found.resource.is("", "Node") {
        on_node(session, flags, custom, &found.name, &namespace).await?
    } else if !found.resource.is("", "Pod") {
        let resource = &found.resource;
        let kinds = format!("{}/{}, Kind={}", resource.group, resource.version, resource.kind);
        return plain(format!("{kinds:?} not supported by debug"));
    } else if flags.copy_to.is_empty() {
        beside(session, flags, custom, found).await?
    } else {
        copy(session, flags, custom, found).await?
    };
    let attaches = flags.attach.unwrap_or(flags.stdin);
    let Some(container) = container.filter(|_| attaches) else { return Ok(()) };
    attach(session, flags, pod, &container).await
}

impl Flags {
    /// Refuses what does not go together; the fields of `--custom`.
    fn check(&self, session: &Session) -> Result<Option<Value>> {
        if self.attach == Some(true) && self.image.is_empty() && self.container.is_empty() {
            return plain("you must specify --container or create a new container using --image in order to attach.");
        }
        if self.copy_to.is_empty() {
            for (wrong, flag) in [
                (self.replace, "--replace"),
                (self.same_node, "--same-node"),
                (!self.set_image.is_empty(), "--set-image"),
            ] {
                if wrong {
                    return plain(format!("{flag} may only be used with --copy-to."));
                }
            }
            if self.image.is_empty() {
                return plain("you must specify --image when not using --copy-to.");
            }
        } else {
            if self.image.is_empty() && self.set_image.is_empty() && self.command.is_empty() {
                return plain("you must specify --image, --set-image or command arguments.");
            }
            if !self.command.is_empty() && self.container.is_empty() && self.image.is_empty() {
                return plain("you must specify an existing container or a new image when specifying args.");
            }
        }
        if self.image.contains(char::is_whitespace) {
            return plain(format!("invalid image name {:?}: invalid reference format", self.image));
        }
        if self.words.is_empty() && self.filename.is_empty() {
            return plain("NAME or filename is required for debug");
        }
        if !matches!(&*self.image_pull_policy, "" | "Always" | "IfNotPresent" | "Never") {
            return plain(format!("invalid image pull policy: {}", self.image_pull_policy));
        }
        if !matches!(&*self.profile, "legacy" | "general" | "baseline" | "restricted" | "netadmin" | "sysadmin") {
            return plain(format!("unknown profile: {}", self.profile));
        }
        if !self.target.is_empty() {
            if !self.copy_to.is_empty() {
                return plain("--target is incompatible with --copy-to. Use --share-processes instead.");
            }
            if !self.quiet {
                session.out(&format!(
                    "Targeting container {:?}. If you don't see processes from this container it may be because the container runtime doesn't support this feature.\n",
                    self.target
                ))?;
            }
        }
        if self.tty && !self.stdin {
            return plain("-i/--stdin is required for containers with -t/--tty=true");
        }
        let custom = self.custom.as_deref().map(custom).transpose()?;
        if self.profile == "legacy" {
            session.err("--profile=legacy is deprecated and planned to be removed in v1.39. It is recommended to specify other profile, for example \"--profile=general\".\n");
        }
        Ok(custom)
    }

    /// The container without what a profile adds.
    fn fresh(&self, name: &str) -> Value {
        let mut container = json!({"name": name, "image": self.image, "terminationMessagePolicy": "File"});
        self.fill(&mut container);
        container
    }

    /// What flags say of a container.
    fn fill(&self, container: &mut Value) {
        if !self.env.is_empty() {
            let pair = |env: &String| env.split_once('=').map(|(name, value)| json!({"name": name, "value": value}));
            container["env"] = self.env.iter().filter_map(pair).collect();
        }
        if !self.command.is_empty() {
            container[if self.arguments_only { "args" } else { "command" }] = json!(self.command);
        }
        if !self.image_pull_policy.is_empty() {
            container["imagePullPolicy"] = self.image_pull_policy.as_str().into();
        }
        for (field, wanted) in [("stdin", self.stdin), ("tty", self.tty)] {
            match (wanted, container.as_object_mut()) {
                (true, Some(map)) => drop(map.insert(field.to_owned(), true.into())),
                (false, Some(map)) => drop(map.remove(field)),
                (_, None) => {}
            }
        }
    }

    /// The name of the container: by flag, or a new one that is told.
    fn name_in(&self, session: &Session, pod: &Value) -> Result<String> {
        if !self.container.is_empty() {
            return Ok(self.container.clone());
        }
        let mut name = format!("debugger-{}", suffix());
        while ["containers", "initContainers", "ephemeralContainers"]
            .iter()
            .any(|field| list(pod, &format!("/spec/{field}")).iter().any(|container| at(container, "/name") == name))
        {
            name = format!("debugger-{}", suffix());
        }
        if !self.quiet {
            session.out(&format!("Defaulting debug container name to {name}.\n"))?;
        }
        Ok(name)
    }
}

/// The fields of a file that are to be merged over the container.
fn custom(path: &str) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::Plain(format!(
            "must pass a container spec json file for custom profile: open {path}: {}",
            system(&error)
        ))
    })?;
    let fields: Value = serde_norway::from_str(&text)
        .map_err(|error| Failure::Plain(format!("{path} does not contain a valid container spec: {error}")))?;
    if ["name", "command", "image", "lifecycle", "volumeDevices"].iter().any(|field| !fields[*field].is_null()) {
        return plain("name, command, image, lifecycle and volume devices are not modifiable via custom profile");
    }
    Ok(fields)
}

/// A container in the pod itself.
async fn beside(
    session: &Session,
    flags: &Flags,
    custom: Option<&Value>,
    found: &Found,
) -> Result<(Found, Option<String>)> {
    let name = flags.name_in(session, &found.object)?;
    let mut container = flags.fresh(&name);
    if !flags.target.is_empty() {
        container["targetContainerName"] = flags.target.as_str().into();
    }
    let mut pod = found.object.clone();
    push(&mut pod, "ephemeralContainers", container);
    profile(&mut pod, &flags.profile, &name, Style::Ephemeral, flags);
    customise(&mut pod, "ephemeralContainers", &name, custom)?;
    warn_of_user(session, &pod, &name);
    let (patch, _) = difference(&found.resource, &found.object, &pod)?;
    let path = format!("{}/ephemeralcontainers", found.path());
    let call = Call::new(Method::PATCH, &path).body(STRATEGIC, patch.to_string().into_bytes());
    let made = session.server().await?.send(call).await?;
    Ok((Found { object: made, ..found.clone() }, Some(name)))
}

/// A copy of the pod, with the container or with others changed.
async fn copy(
    session: &Session,
    flags: &Flags,
    custom: Option<&Value>,
    found: &Found,
) -> Result<(Found, Option<String>)> {
    let (pod, name) = copied(session, flags, &found.object)?;
    let mut pod = pod;
    if let Some(name) = &name {
        customise(&mut pod, "containers", name, custom)?;
        warn_of_user(session, &pod, name);
    }
    let made = create(session, found, &flags.copy_to, &pod).await?;
    if flags.replace {
        let how = super::delete::How { grace_seconds: Some(0), ..Default::default() };
        let _ = super::delete::delete(session, found, &how).await?;
    }
    Ok((made, name))
}

/// The copy, and the container to attach to; none when only images are changed.
fn copied(session: &Session, flags: &Flags, original: &Value) -> Result<(Value, Option<String>)> {
    let mut metadata = json!({"name": flags.copy_to, "namespace": original["metadata"]["namespace"]});
    for field in ["labels", "annotations"] {
        if original["metadata"][field].is_object() {
            metadata[field] = original["metadata"][field].clone();
        }
    }
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": original["spec"]});
    remove(&mut pod["spec"], "ephemeralContainers");
    if let Some(shared) = flags.share_processes {
        pod["spec"]["shareProcessNamespace"] = shared.into();
    }
    if !flags.same_node {
        remove(&mut pod["spec"], "nodeName");
    }
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
        let image = |name: &str| {
            flags.set_image.iter().find_map(|pair| pair.split_once('=').filter(|(of, _)| *of == name)).map(|(_, i)| i)
        };
        if let Some(image) = image(at(container, "/name")).or_else(|| image("*")) {
            container["image"] = image.into();
        }
    }
    let known = |name: &str| list(&pod, "/spec/containers").iter().any(|container| at(container, "/name") == name);
    let name = if known(&flags.container) {
        flags.container.clone()
    } else {
        if flags.image.is_empty() {
            return match flags.set_image.is_empty() {
                true => plain("you must specify image when creating new container"),
                false => Ok((pod, None)),
            };
        }
        let name = flags.name_in(session, &pod)?;
        push(&mut pod, "containers", json!({"name": name, "terminationMessagePolicy": "File"}));
        name
    };
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
        if at(container, "/name") == name {
            if !flags.command.is_empty() && !flags.arguments_only {
                remove(container, "args");
            }
            if !flags.image.is_empty() {
                container["image"] = flags.image.as_str().into();
            }
            flags.fill(container);
        }
    }
    profile(&mut pod, &flags.profile, &name, Style::Copy, flags);
    Ok((pod, Some(name)))
}

/// A pod on a node, with the node's files and namespaces.
async fn on_node(
    session: &Session,
    flags: &Flags,
    custom: Option<&Value>,
    node: &str,
    namespace: &str,
) -> Result<(Found, Option<String>)> {
    let container = if flags.container.is_empty() { "debugger".to_owned() } else { flags.container.clone() };
    let name = format!("node-debugger-{node}-{}", suffix());
    if !flags.quiet {
        session.out(&format!("Creating debugging pod {name} with container {container} on node {node}.\n"))?;
    }
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {MANAGED_BY: "kubectl-debug"}},
        "spec": {"containers": [flags.fresh(&container)], "nodeName": node, "restartPolicy": "Never",
            "tolerations": [{"operator": "Exists"}]}});
    profile(&mut pod, &flags.profile, &container, Style::Node, flags);
    customise(&mut pod, "containers", &container, custom)?;
    let like = Found {
        resource: session.kind("", "Pod").await?,
        namespace: Some(namespace.to_owned()),
        name: name.clone(),
        object: Value::Null,
        source: String::new(),
    };
    Ok((create(session, &like, &name, &pod).await?, Some(container)))
}

/// Makes a pod in the namespace of another one.
async fn create(session: &Session, like: &Found, name: &str, pod: &Value) -> Result<Found> {
    let path = like.resource.path(like.namespace.as_deref());
    let call = Call::new(Method::POST, &path).body("application/json", pod.to_string().into_bytes());
    let object = session.server().await?.send(call).await?;
    Ok(Found { name: name.to_owned(), object, ..like.clone() })
}

/// Waits until the container runs, and attaches; when it has ended already, or cannot be attached to, prints its log.
async fn attach(session: &Session, flags: &Flags, pod: Found, container: &str) -> Result {
    let state = |pod: &Value| {
        let fields = ["containerStatuses", "ephemeralContainerStatuses", "initContainerStatuses"];
        let statuses = fields.iter().flat_map(|field| list(pod, &format!("/status/{field}")));
        statuses.filter(|status| at(status, "/name") == container).map(|status| status["state"].clone()).next()
    };
    let begun = |pod: &Value| {
        let state = state(pod).unwrap_or_default();
        let why = at(&state, "/waiting/message");
        if !flags.quiet && !why.is_empty() {
            session.err(&format!("Warning: container {container}: {why}\n"));
        }
        Ok(state["running"].is_object() || state["terminated"].is_object())
    };
    until(session, &pod, begun).await?;
    let namespace = pod.namespace.clone().unwrap_or_default();
    let now = session.server().await?.get(&pod.path()).await?;
    if state(&now).is_some_and(|state| state["terminated"].is_object()) {
        return log(session, &pod, container).await;
    }
    if !flags.quiet {
        session.err("If you don't see a command prompt, try pressing enter.\n");
    }
    let talk = Talk { container: container.to_owned(), stdin: flags.stdin, tty: flags.tty, silent: true };
    match stream::attach(session, &namespace, &pod.name, &talk.checked(session)).await {
        Ok(()) | Err(Failure::Code(_)) => Ok(()),
        Err(failure) => {
            session.err(&format!(
                "warning: couldn't attach to pod/{}, falling back to streaming logs: {}\n",
                pod.name,
                failure.message()
            ));
            log(session, &pod, container).await
        }
    }
}

async fn log(session: &Session, pod: &Found, container: &str) -> Result {
    let path = format!("{}/log", pod.path());
    let query = vec![("container", container.to_owned())];
    session.out(&session.server().await?.text(Call::new(Method::GET, &path).query(query)).await?)
}

/// Adds to a list of containers.
fn push(pod: &mut Value, field: &str, container: Value) {
    match pod["spec"][field].as_array_mut() {
        Some(containers) => containers.push(container),
        None => pod["spec"][field] = json!([container]),
    }
}

fn remove(object: &mut Value, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
}

/// The container of a name, in any of the lists.
fn container_mut<'p>(pod: &'p mut Value, name: &str) -> Option<&'p mut Value> {
    let spec = pod["spec"].as_object_mut()?;
    let lists = spec.iter_mut().filter(|(field, _)| field.to_lowercase().ends_with("containers"));
    lists.filter_map(|(_, list)| list.as_array_mut()).flatten().find(|container| at(container, "/name") == name)
}

/// What a profile changes of the pod and of the container.
fn profile(pod: &mut Value, profile: &str, name: &str, style: Style, flags: &Flags) {
    if let Some(container) = container_mut(pod, name) {
        secure(container, profile, style);
    }
    match style {
        Style::Ephemeral => {}
        Style::Node => {
            if profile != "baseline" && profile != "restricted" {
                for field in ["hostNetwork", "hostPID", "hostIPC"] {
                    pod["spec"][field] = true.into();
                }
            }
            if matches!(profile, "legacy" | "general" | "sysadmin") {
                pod["spec"]["volumes"] = json!([{"name": "host-root", "hostPath": {"path": "/"}}]);
                if let Some(container) = container_mut(pod, name) {
                    container["volumeMounts"] = json!([{"mountPath": "/host", "name": "host-root"}]);
                }
            }
        }
        Style::Copy if profile == "legacy" => remove(&mut pod["metadata"], "labels"),
        Style::Copy => strip(pod, flags),
    }
}

/// Takes from a copy what its flags do not keep.
fn strip(pod: &mut Value, flags: &Flags) {
    for (kept, field) in [(flags.keep_labels, "labels"), (flags.keep_annotations, "annotations")] {
        if !kept {
            remove(&mut pod["metadata"], field);
        }
    }
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
        for (kept, field) in [
            (flags.keep_liveness, "livenessProbe"),
            (flags.keep_readiness, "readinessProbe"),
            (flags.keep_startup, "startupProbe"),
        ] {
            if !kept {
                remove(container, field);
            }
        }
    }
    if !flags.keep_init_containers {
        remove(&mut pod["spec"], "initContainers");
    }
    if pod["spec"]["shareProcessNamespace"].is_null() {
        pod["spec"]["shareProcessNamespace"] = true.into();
    }
}

/// The container's rights.
fn secure(container: &mut Value, profile: &str, style: Style) {
    let capabilities: &[&str] = match (profile, style) {
        ("general", Style::Node) | ("baseline", _) => return remove(container, "securityContext"),
        ("general", _) => &["SYS_PTRACE"],
        ("netadmin", _) => &["NET_ADMIN", "NET_RAW"],
        ("sysadmin", _) => {
            context(container).insert("privileged".into(), true.into());
            return;
        }
        ("restricted", _) => {
            container["securityContext"] = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
            return;
        }
        _ => return,
    };
    let added = context(container).entry("capabilities").or_insert_with(|| json!({}));
    let mut all = added["add"].as_array().cloned().unwrap_or_default();
    all.extend(capabilities.iter().map(|capability| Value::from(*capability)));
    added["add"] = all.into();
}

/// The security context of a container, made when there is none.
fn context(container: &mut Value) -> &mut Map<String, Value> {
    if !container["securityContext"].is_object() {
        container["securityContext"] = Value::Object(Map::new());
    }
    match &mut container["securityContext"] {
        Value::Object(map) => map,
        _ => unreachable!("it was just made an object"),
    }
}

/// Merges the fields of `--custom` over the container.
fn customise(pod: &mut Value, field: &str, name: &str, custom: Option<&Value>) -> Result {
    let Some(custom) = custom else { return Ok(()) };
    let schema = stead_api::schema::schema();
    let kind = if field == "ephemeralContainers" { "EphemeralContainer" } else { "Container" };
    let shape = schema.find(&format!("io.k8s.api.core.v1.{kind}")).map(stead_api::schema::Shape::Struct);
    let (Some(container), Some(shape)) = (container_mut(pod, name), shape) else {
        return plain(format!("unable to find the {name} container in the pod"));
    };
    let merged = stead_machinery::patch::strategic::apply(schema, shape, container.take(), custom.clone());
    *container = merged.map_err(|error| Failure::Plain(error.to_string()))?;
    Ok(())
}

/// Says when the pod's user cannot use what the profile gives.
fn warn_of_user(session: &Session, pod: &Value, name: &str) {
    let user = pod["spec"]["securityContext"]["runAsUser"].as_i64().unwrap_or(0);
    let mut pod = pod.clone();
    let Some(container) = container_mut(&mut pod, name).filter(|_| user != 0) else { return };
    let context = &container["securityContext"];
    let granted = context["privileged"] == true || !list(context, "/capabilities/add").is_empty();
    if granted && context["runAsUser"] != 0 {
        session.err("Warning: Non-root user is configured for the entire target Pod, and some capabilities granted by debug profile may not work. Please consider using \"--custom\" with a custom profile that specifies \"securityContext.runAsUser: 0\".\n");
    }
}

/// The random end of a name.
fn suffix() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The keys of this hasher are random, each time anew.
    let mut random = std::hash::RandomState::new().build_hasher().finish();
    let mut suffix = String::new();
    for _ in 0..SUFFIX_LENGTH {
        let count = SUFFIX_LETTERS.len() as u64;
        let letter = usize::try_from(random % count).unwrap_or_default();
        suffix.push(char::from(SUFFIX_LETTERS[letter]));
        random /= count;
    }
    suffix
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

    fn flags(line: &str) -> Flags {
        Line::parse_from(std::iter::once("debug").chain(line.split_whitespace())).flags
    }

    fn session() -> Session {
        Session::new(crate::arguments::Globals::default(), "v1.37.0")
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (line, wanted) in [
            ("web-0", "you must specify --image when not using --copy-to."),
            ("web-0 --same-node --image=x", "--same-node may only be used with --copy-to."),
            ("web-0 --copy-to=y", "you must specify --image, --set-image or command arguments."),
            ("--image=x", "NAME or filename is required for debug"),
            ("web-0 --image=x -t", "-i/--stdin is required for containers with -t/--tty=true"),
            ("web-0 --image=x --profile=y", "unknown profile: y"),
            (
                "web-0 --image=x --copy-to=y --target=z",
                "--target is incompatible with --copy-to. Use --share-processes instead.",
            ),
        ] {
            let refused = flags(line).check(&session()).expect_err(line);
            assert_eq!(refused.message(), wanted, "{line}");
        }
    }

    #[test]
    fn profiles_give_a_container_its_rights() {
        for (profile, style, wanted) in [
            ("general", Style::Ephemeral, r#"{"capabilities":{"add":["SYS_PTRACE"]}}"#),
            ("general", Style::Node, "null"),
            ("netadmin", Style::Ephemeral, r#"{"capabilities":{"add":["NET_ADMIN","NET_RAW"]}}"#),
            ("sysadmin", Style::Copy, r#"{"privileged":true}"#),
            ("baseline", Style::Ephemeral, "null"),
            (
                "restricted",
                Style::Ephemeral,
                r#"{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]},"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}}"#,
            ),
        ] {
            let mut container = json!({"name": "c"});
            secure(&mut container, profile, style);
            assert_eq!(crate::print::compact(&container["securityContext"]), wanted, "{profile} {style:?}");
        }
    }

    #[test]
    fn a_copy_leaves_behind_what_would_bind_it() {
        let pod = json!({"metadata": {"name": "web-0", "namespace": "n", "labels": {"app": "web"}, "uid": "u"},
            "spec": {"nodeName": "n1", "ephemeralContainers": [{"name": "e"}],
                "containers": [{"name": "main", "image": "x:1", "readinessProbe": {}, "args": ["a"]}]}});
        let line = "web-0 --copy-to=y --set-image=main=x:2 --image=busybox -c new -i -- sh";
        let (copy, name) = copied(&session(), &flags(line), &pod).expect("is made");
        assert_eq!(name.as_deref(), Some("new"));
        let wanted = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "y", "namespace": "n"},
            "spec": {"shareProcessNamespace": true, "containers": [{"name": "main", "image": "x:2", "args": ["a"]},
                {"name": "new", "image": "busybox", "command": ["sh"], "stdin": true, "terminationMessagePolicy": "File",
                    "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}}]}});
        assert_eq!(copy, wanted);
    }

    #[test]
    fn ends_of_names_are_random() {
        let (one, other) = (suffix(), suffix());
        assert_eq!(one.len(), SUFFIX_LENGTH);
        assert_ne!(one, other);
    }
}
