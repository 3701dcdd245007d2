//! `run`: an image in a pod of its own, attached if wanted.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/run`.

use clap::Args;
use serde_json::{Value, json};

use super::common::{Change, DryRun, Teller, duration};
use super::wait::until;
use crate::apply::with_annotation;
use crate::builder::{self, Found};
use crate::failure::{Failure, Result, plain, usage};
use crate::manifest::Loaded;
use crate::print::{at, int, list};
use crate::session::Session;
use crate::stream::{self, Talk};

/// The pod.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// NAME, and arguments of the container.
    words: Vec<String>,
    #[arg(long)]
    image: Option<String>,
    /// Pass standard input on.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give it a terminal.
    #[arg(short = 't', long)]
    tty: bool,
    /// Attach as soon as it runs (default with -i).
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    attach: Option<bool>,
    /// Delete it when it has ended.
    #[arg(long)]
    rm: bool,
    /// Always, OnFailure, Never
    #[arg(long, default_value = "Always")]
    restart: String,
    /// The words are the command rather than its arguments.
    #[arg(long)]
    command: bool,
    /// NAME=VALUE
    #[arg(long)]
    env: Vec<String>,
    /// KEY=VALUE,...
    #[arg(short = 'l', long)]
    labels: Option<String>,
    #[arg(long)]
    annotations: Vec<String>,
    #[arg(long)]
    port: Option<i64>,
    /// Make a Service of the port too.
    #[arg(long)]
    expose: bool,
    #[arg(long)]
    image_pull_policy: Option<String>,
    #[arg(long)]
    privileged: bool,
    /// JSON that is merged over the pod.
    #[arg(long)]
    overrides: Option<String>,
    /// merge, strategic, json
    #[arg(long, default_value = "merge")]
    override_type: String,
    #[arg(short = 'q', long)]
    quiet: bool,
    #[arg(long)]
    leave_stdin_open: bool,
    #[arg(long)]
    save_config: bool,
    #[arg(long, default_value = "1m0s")]
    pod_running_timeout: String,
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    grace_period: i64,
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: Change,
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Makes the pod; attaches, and cleans up.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let Some(image) = flags.image.clone().filter(|image| !image.is_empty()) else {
        return plain("required flag(s) \"image\" not set");
    };
    let Some(name) = flags.words.first().cloned() else { return usage("run", "NAME is required for run") };
    if image.contains(char::is_whitespace) {
        return plain(format!("Invalid image name {image:?}: invalid reference format"));
    }
    let attached = flags.attach.unwrap_or(flags.stdin || flags.tty);
    if flags.tty && !flags.stdin {
        return plain("-i/--stdin is required for containers with -t/--tty=true");
    }
    if flags.rm && !attached {
        return usage("run", "--rm should only be used for attached containers");
    }
    if !matches!(&*flags.restart, "Always" | "OnFailure" | "Never") {
        return plain(format!("invalid restart policy: {}\nSee 'kubectl run -h' for help and examples", flags.restart));
    }
    let mut teller = Teller::new(session, &flags.change, "kubectl-run")?;
    if attached && teller.dry_run != DryRun::None {
        return plain(
            "--dry-run=[server|client] can't be used with attached containers options (--attach, --stdin, or --tty)",
        );
    }
    let mut pod = pod(&flags, &name, &image);
    if let Some(overrides) = &flags.overrides {
        pod = overridden(pod, overrides, &flags.override_type)?;
    }
    if flags.save_config {
        pod = with_annotation(&pod);
    }
    if teller.dry_run == DryRun::Client && session.globals.namespace.is_none() {
        return teller.tell(session, &super::create::known(&pod), &pod, "created");
    }
    let target = builder::of_manifest(session, Loaded { object: pod, source: String::new() }).await?;
    let object = target.object.clone().unwrap_or_default();
    let made = super::apply::post(session, &teller, &target, &object, "Strict").await?;
    if flags.expose {
        expose(session, &mut teller, &flags, &made).await?;
    }
    if !attached {
        return teller.tell(session, &target.resource, &made, "created");
    }
    let found = Found {
        resource: target.resource.clone(),
        namespace: target.namespace.clone(),
        name,
        object: made,
        source: String::new(),
    };
    let outcome = with_pod(session, &flags, &found).await;
    if flags.rm {
        remove(session, &flags, &found).await?;
    }
    outcome
}

/// The pod, as kubectl would write it.
fn pod(flags: &Flags, name: &str, image: &str) -> Value {
    let labels = match &flags.labels {
        Some(labels) if !labels.is_empty() => super::create::labels(labels).into(),
        _ => json!({"run": name}),
    };
    let mut container = json!({"name": name, "image": image, "resources": {}});
    let words: Vec<&String> = flags.words.iter().skip(1).chain(&flags.arguments).collect();
    if !words.is_empty() {
        container[if flags.command { "command" } else { "args" }] = json!(words);
    }
    for (field, wanted) in
        [("stdin", flags.stdin), ("stdinOnce", flags.stdin && !flags.leave_stdin_open), ("tty", flags.tty)]
    {
        if wanted {
            container[field] = true.into();
        }
    }
    if !flags.env.is_empty() {
        let pair = |env: &String| env.split_once('=').map(|(name, value)| json!({"name": name, "value": value}));
        container["env"] = flags.env.iter().filter_map(pair).collect();
    }
    if let Some(port) = flags.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    if let Some(policy) = &flags.image_pull_policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
    if flags.privileged {
        container["securityContext"] = json!({"privileged": true});
    }
    let mut metadata = json!({"name": name, "creationTimestamp": null, "labels": labels});
    if !flags.annotations.is_empty() {
        let pairs = flags.annotations.iter().filter_map(|pair| pair.split_once('='));
        metadata["annotations"] =
            pairs.map(|(key, value)| (key.to_owned(), Value::from(value))).collect::<serde_json::Map<_, _>>().into();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {},
        "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": flags.restart}})
}

/// An object with the JSON of `--overrides` over it.
pub(super) fn overridden(pod: Value, overrides: &str, kind: &str) -> Result<Value> {
    let patch: Value =
        serde_json::from_str(overrides).map_err(|error| Failure::Plain(format!("Invalid JSON Patch: {error}")))?;
    let media = match kind {
        "strategic" => super::common::STRATEGIC,
        "json" => super::common::JSON_PATCH,
        "merge" => super::common::MERGE,
        other => return plain(format!("invalid override type: {other}")),
    };
    super::common::merged(&super::create::known(&pod), &pod, media, &patch)
}

async fn expose(session: &Session, teller: &mut Teller, flags: &Flags, pod: &Value) -> Result {
    let Some(port) = flags.port else { return plain("--port must be set when exposing a service") };
    let name = at(pod, "/metadata/name");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"port": port, "protocol": "TCP", "targetPort": port}], "selector": pod["metadata"]["labels"]}});
    let target = builder::of_manifest(session, Loaded { object: service, source: String::new() }).await?;
    let object = target.object.clone().unwrap_or_default();
    let made = super::apply::post(session, teller, &target, &object, "Strict").await?;
    teller.tell(session, &target.resource, &made, "created")
}

fn phase(pod: &Value) -> &str {
    at(pod, "/status/phase")
}

/// Attaches when it runs; when it is too late for that, prints its log. Ends with the container's exit code.
async fn with_pod(session: &Session, flags: &Flags, found: &Found) -> Result {
    let limit = duration(&flags.pod_running_timeout)?;
    let begun = |pod: &Value| {
        let failing = list(pod, "/status/containerStatuses")
            .iter()
            .any(|c| c["state"]["running"].is_object() || c["state"]["terminated"].is_object());
        Ok(matches!(phase(pod), "Succeeded" | "Failed") || (phase(pod) == "Running" && failing))
    };
    let waiting = until(session, found, begun);
    if tokio::time::timeout(limit, waiting)
        .await
        .map_err(|_| Failure::Plain("timed out waiting for the condition".into()))?
        .is_err()
    {
        return plain(format!("pod {} went away before it ran", found.name));
    }
    let server = session.server().await?;
    let now = server.get(&found.path()).await?;
    let namespace = found.namespace.as_deref().unwrap_or_default();
    let container = at(&now, "/spec/containers/0/name").to_owned();
    if matches!(phase(&now), "Succeeded" | "Failed") {
        log(session, found, &container).await?;
    } else {
        if !flags.quiet {
            session.err("If you don't see a command prompt, try pressing enter.\n");
        }
        let talk =
            Talk { container: container.clone(), stdin: flags.stdin, tty: flags.tty, silent: true }.checked(session);
        // An exit code is told of below, with the pod's end.
        let attached = stream::attach(session, namespace, &found.name, &talk).await;
        if let Err(failure) =
            attached.or_else(|failure| if let Failure::Code(_) = failure { Ok(()) } else { Err(failure) })
        {
            session.err(&format!(
                "warning: couldn't attach to pod/{}, falling back to streaming logs: {}\n",
                found.name,
                failure.message()
            ));
            log(session, found, &container).await?;
        }
    }
    if flags.restart != "Never" {
        if flags.stdin && flags.tty && !flags.quiet && flags.restart == "Always" {
            session.out(&format!("Session ended, resume using 'kubectl attach {} -c {container} -i -t' command when the pod is running\n", found.name))?;
        }
        return Ok(());
    }
    until(session, found, |pod| Ok(matches!(phase(pod), "Succeeded" | "Failed"))).await?;
    verdict(&server.get(&found.path()).await?)
}

async fn log(session: &Session, found: &Found, container: &str) -> Result {
    let path = format!("{}/log", found.path());
    let query = vec![("container", container.to_owned())];
    let text = session.server().await?.text(crate::server::Call::new(http::Method::GET, &path).query(query)).await?;
    session.out(&text)
}

/// How a pod that is never restarted ended.
fn verdict(pod: &Value) -> Result {
    let (namespace, name) = (at(pod, "/metadata/namespace"), at(pod, "/metadata/name"));
    match phase(pod) {
        "Succeeded" => Ok(()),
        "Failed" => {
            let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
            let code = int(end, "/exitCode");
            if code == 0 {
                return plain(format!("pod {namespace}/{name} failed with unknown exit code"));
            }
            let text = format!("pod {namespace}/{name} terminated ({})", at(end, "/reason"));
            Err(Failure::Ended(text, u8::try_from(code & 0xff).unwrap_or(1)))
        }
        other => plain(format!("pod {namespace}/{name} left in phase {other}")),
    }
}

async fn remove(session: &Session, flags: &Flags, found: &Found) -> Result {
    let how = super::delete::How {
        grace_seconds: (flags.grace_period >= 0).then_some(flags.grace_period).or(flags.force.then_some(0)),
        ..Default::default()
    };
    match super::delete::delete(session, found, &how).await {
        Ok(_) => session.out(&format!("{} {:?} deleted\n", found.resource.group_kind(), found.name)),
        Err(failure) if failure.is_not_found() => Ok(()),
        Err(failure) => Err(failure),
    }
}
