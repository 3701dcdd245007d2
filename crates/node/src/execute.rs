//! Does what a plan says, one task per action. Never decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use serde_json::json;
use stead_client::{Class, classify};
use stead_informer::Severity;
use stead_machinery::hand_over::DONE;
use stead_podlife::{Action, StopWhy, Work, cgroup, spec};
use stead_runtime::{EngineError, SandboxConfig};
use stead_wire::{HostPort, PodNet, Protocol};
use tokio::time::Instant;

use crate::container::{self, resources};
use crate::context::Context;
use crate::files;
use crate::hooks;
use crate::inbox::Outcome;
use crate::ledger;
use crate::probing::{Failed, Target, run};
use crate::report;
use crate::start::{NotStarted, start};
use crate::volumes::{self, Mounted, Request};

/// What a container gets for its stop signal, however long its hook took.
const GRACE_MIN: Duration = Duration::from_secs(2);

/// Facts that an action needs and the plan does not carry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// The sandbox to start containers in.
    pub sandbox: Option<String>,
    /// All sandboxes of the pod.
    pub sandboxes: Vec<String>,
}

/// Does `action`, and reports `work` when done.
pub(crate) async fn execute(context: Context, action: Action, work: Work, place: Place) {
    let outcome = match action {
        Action::MountVolumes => mount(&context).await,
        Action::RunSandbox { attempt } => run_sandbox(&context, attempt).await,
        Action::StartContainer { name, attempt, .. } => {
            let sandbox = place.sandbox.unwrap_or_default();
            match start(&context, &sandbox, &name, attempt).await {
                Ok(()) | Err(NotStarted::Ended) => Outcome::Ok,
                Err(NotStarted::Waiting { reason, message }) => Outcome::NotStarted { reason, message },
                Err(NotStarted::Cancelled) => Outcome::Cancelled,
            }
        }
        Action::StopContainer { id, name, grace, why } => stop(&context, &id, &name, grace, why).await,
        Action::RemoveContainer { id } => {
            told(&context, "remove container", context.node.engine.remove_container(&id).await)
        }
        Action::RemoveSandbox { id } => {
            context.node.owners.lock().remove(&id);
            told(&context, "remove sandbox", context.node.engine.remove_sandbox(&id).await)
        }
        Action::HandOver { id, name, command, limit, .. } => hand_over(&context, (&id, &name), &command, limit).await,
        Action::AnswerHandOver { code, .. } => answer_hand_over(&context, code).await,
        Action::StopSandboxes => stop_sandboxes(&context, &place.sandboxes).await,
        Action::Teardown => teardown(&context).await,
        Action::DeleteObject => delete(&context).await,
        Action::Forget => forget(&context, &place.sandboxes).await,
        Action::Cancel => {
            context.cancel.cancel();
            return;
        }
    };
    context.inbox.done(work, outcome);
}

fn told(context: &Context, what: &str, result: Result<(), EngineError>) -> Outcome {
    match result {
        Ok(()) | Err(EngineError::NotFound(_)) => Outcome::Ok,
        Err(error) => {
            tracing::warn!(pod = %spec::full_name(&context.pod), %error, "cannot {what}");
            Outcome::Failed
        }
    }
}

// --- up ---

async fn mount(context: &Context) -> Outcome {
    let request = Request { node: &context.node, pod: &context.pod, inbox: &context.inbox, tokens: &context.tokens };
    // The network takes as long as the volumes and needs nothing of them. A failure is told when the sandbox asks again.
    let host_network = spec::pod_spec(&context.pod).host_network.unwrap_or(false);
    let attached = async {
        if !host_network {
            let _ = attach(context).await;
        }
    };
    // Carried through even when the mounts are given up: taking down must not meet a network that is half made.
    let mounting = context.cancel.run_until_cancelled(request.mount());
    let (mounted, ()) = futures::future::join(mounting, attached).await;
    let Some(mounted) = mounted else { return Outcome::Cancelled };
    match mounted {
        Ok(mounted) => {
            let mut slot = context.mounted.lock();
            // An object that has changed since it was read asks for another look at once.
            let refresh_at = [slot.refresh_at, mounted.refresh_at].into_iter().flatten().min();
            *slot = Mounted { refresh_at, ..mounted };
            Outcome::Ok
        }
        Err(error) => {
            context.event(Severity::Warning, "FailedMount", &error.to_string());
            Outcome::Failed
        }
    }
}

async fn run_sandbox(context: &Context, attempt: u32) -> Outcome {
    match try_sandbox(context, attempt).await {
        Ok(()) => Outcome::Ok,
        Err(cause) => {
            let text = format!("Failed to create pod sandbox: {cause}");
            context.event(Severity::Warning, "FailedCreatePodSandBox", &text);
            Outcome::Failed
        }
    }
}

async fn try_sandbox(context: &Context, attempt: u32) -> Result<(), String> {
    let node = &context.node;
    let pod_spec = spec::pod_spec(&context.pod);
    let host_network = pod_spec.host_network.unwrap_or(false);
    forget_pod_files(context).await?;
    let netns = if host_network { None } else { Some(attach(context).await?) };
    let names = files::names(&context.pod, &node.config.cluster_domain)?;
    let (name, namespace, uid) = spec::identity(&context.pod);
    let grace = context.pod.metadata.deletion_grace_period_seconds.or(pod_spec.termination_grace_period_seconds);
    let labels = [
        (ledger::POD_NAME, name.to_owned()),
        (ledger::POD_NAMESPACE, namespace.to_owned()),
        (ledger::POD_UID, uid.to_owned()),
        (ledger::SANDBOX_ATTEMPT, attempt.to_string()),
        (ledger::POD_GRACE, grace.unwrap_or(30).to_string()),
    ];
    let qos = cgroup::qos(&context.pod).folder().map(|folder| format!("{folder}/")).unwrap_or_default();
    let sysctls = pod_spec.security_context.as_ref().and_then(|context| context.sysctls.clone()).unwrap_or_default();
    let config = SandboxConfig {
        labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        hostname: if host_network { node.config.name.clone() } else { names.kernel },
        netns,
        host_pid: pod_spec.host_pid.unwrap_or(false),
        host_ipc: pod_spec.host_ipc.unwrap_or(false),
        share_pid: pod_spec.share_process_namespace.unwrap_or(false),
        cgroup_parent: format!("{qos}pod{uid}"),
        resources: resources(&cgroup::pod_limits(&context.pod)),
        sysctls: sysctls.into_iter().map(|one| (one.name, one.value)).collect::<BTreeMap<_, _>>(),
        log_directory: node.config.pod_log_dir(namespace, name, uid),
    };
    let id = node.engine.run_sandbox(config).await.map_err(|error| error.to_string())?;
    node.owners.lock().insert(id, uid.to_owned());
    Ok(())
}

/// The pod's small files name its address: a new sandbox gets new ones.
async fn forget_pod_files(context: &Context) -> Result<(), String> {
    let dir = context.node.config.pod_dir(&context.uid);
    volumes::blocking(move || {
        for (name, _) in container::POD_FILES {
            volumes::remove_tree(&dir.join(name)).map_err(|error| format!("{}: {error}", dir.join(name).display()))?;
        }
        Ok(())
    })
    .await
}

/// The pod's network; the address is the one that it had, if it had one.
async fn attach(context: &Context) -> Result<std::path::PathBuf, String> {
    let address = context.node.addresses.take(&context.uid).map_err(|error| error.to_string())?;
    let net = PodNet { id: context.uid.clone(), addresses: vec![address], host_ports: host_ports(&context.pod) };
    let link = context.node.network.attach(&net).await.map_err(|error| error.to_string())?;
    Ok(link.netns)
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let ports = spec::init_containers(pod)
        .iter()
        .filter(|init| spec::is_sidecar(init))
        .chain(spec::main_containers(pod))
        .flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPort {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
                host_ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
                host_port: u16::try_from(port.host_port?).ok().filter(|port| *port > 0)?,
                container_port: u16::try_from(port.container_port).ok()?,
            })
        })
        .collect()
}

// --- handing over ---

/// Exit codes for what has none of its own, as `timeout` and shells have them.
const TIMED_OUT: i32 = 124;
const NOT_RUN: i32 = 126;

async fn hand_over(context: &Context, (id, name): (&str, &str), command: &[String], limit: SignedDuration) -> Outcome {
    let ran = run(context.node.engine.as_ref(), id, command, limit.unsigned_abs()).await;
    let (code, why) = match ran {
        Ok((0, _)) => return Outcome::HandedOver { code: 0 },
        Ok((code, output)) => (code, format!("exited with {code}: {}", output.trim())),
        Err(Failed::TimedOut) => (TIMED_OUT, format!("did not end within {} s", limit.as_secs())),
        Err(Failed::Engine(error)) => (NOT_RUN, format!("could not be run: {error}")),
    };
    let text = format!("hand-over command '{}' {why}", command.join(" "));
    context.event_of(name, Severity::Warning, "FailedHandOver", &text);
    Outcome::HandedOver { code }
}

/// Writes the answer on the pod as it was seen: on no other, and under no other request.
async fn answer_hand_over(context: &Context, code: i32) -> Outcome {
    let pod = &context.pod;
    let patch = json!({"metadata": {
        "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version,
        "annotations": {DONE: code.to_string()},
    }});
    match report::send(&context.node, pod, &patch).await {
        Ok(pod) => {
            context.inbox.pod(Arc::new(pod));
            Outcome::Ok
        }
        Err(error) => {
            tracing::debug!(pod = %spec::full_name(pod), %error, "cannot answer that the pod handed over");
            Outcome::Failed
        }
    }
}

// --- down ---

async fn stop(context: &Context, id: &str, name: &str, grace: SignedDuration, why: StopWhy) -> Outcome {
    let message = match why {
        StopWhy::PodEnds => format!("Stopping container {name}"),
        StopWhy::Unhealthy(kind) => format!("Container {name} failed {} probe, will be restarted", kind.word()),
        StopWhy::Changed => format!("Container {name} definition changed, will be restarted"),
    };
    context.event_of(name, Severity::Normal, "Killing", &message);
    let grace = grace.unsigned_abs();
    let left = pre_stop(context, id, name, grace).await;
    told(context, "stop container", context.node.engine.stop_container(id, left).await)
}

/// Runs the preStop hook, if there is one; returns what is left of the grace.
async fn pre_stop(context: &Context, id: &str, name: &str, grace: Duration) -> Duration {
    let Some(container) = spec::container(&context.pod, name) else { return grace };
    let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else {
        return grace;
    };
    let began = Instant::now();
    let engine = context.node.engine.as_ref();
    let target = Target { engine, container: &container, container_id: id, pod_ip: context.node.pod_ip(&context.pod) };
    let hooked = hooks::execute(&target, &context.pod, hook, grace);
    // A container that ends by itself, or is killed by a shorter grace, needs no more of its hook.
    let mut events = engine.events();
    let ended = async {
        while let Ok(event) = events.recv().await {
            if matches!(event, stead_runtime::EngineEvent::ContainerExited { container, .. } if container == id) {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ran = tokio::time::timeout(grace, hooked) => if let Ok(Err(cause)) = ran {
            tracing::info!(pod = %spec::full_name(&context.pod), container = name, cause, "preStop hook failed");
            context.event_of(name, Severity::Warning, "FailedPreStopHook", "PreStopHook failed");
        },
        () = ended => {}
    }
    grace.saturating_sub(began.elapsed()).max(GRACE_MIN.min(grace))
}

async fn stop_sandboxes(context: &Context, ids: &[String]) -> Outcome {
    for id in ids {
        let stopped = context.node.engine.stop_sandbox(id).await;
        if told(context, "stop sandbox", stopped) == Outcome::Failed {
            return Outcome::Failed;
        }
    }
    Outcome::Ok
}

async fn teardown(context: &Context) -> Outcome {
    let dir = context.node.config.pod_dir(&context.uid);
    let detached = context.node.network.detach(&context.uid);
    let unmounted = async {
        context.node.release_driver_volumes(&dir).await?;
        volumes::blocking(move || volumes::unmount(&dir)).await
    };
    let (unmounted, detached) = futures::join!(unmounted, detached);
    context.node.objects.release(&context.uid);
    let detached = detached.map_err(|error| error.to_string());
    match unmounted.and(detached) {
        Ok(()) => {
            context.node.addresses.give_back(&context.uid);
            Outcome::Ok
        }
        Err(cause) => {
            tracing::warn!(pod = %spec::full_name(&context.pod), cause, "cannot take down the pod");
            Outcome::Failed
        }
    }
}

async fn delete(context: &Context) -> Outcome {
    let (name, namespace, uid) = spec::identity(&context.pod);
    let api: Api<Pod> = Api::namespaced(context.node.client.clone(), namespace);
    let how = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(name, &how).await {
        Ok(_) => Outcome::Deleted,
        Err(error) if matches!(classify(&error), Class::NotFound | Class::Conflict) => Outcome::Deleted,
        Err(error) => {
            tracing::warn!(pod = %spec::full_name(&context.pod), %error, "cannot delete the pod object");
            Outcome::Failed
        }
    }
}

/// Removes sandboxes, files and logs.
async fn forget(context: &Context, sandboxes: &[String]) -> Outcome {
    for id in sandboxes {
        if told(context, "remove sandbox", context.node.engine.remove_sandbox(id).await) == Outcome::Failed {
            return Outcome::Failed;
        }
        context.node.owners.lock().remove(id);
    }
    let (name, namespace, uid) = spec::identity(&context.pod);
    let config = &context.node.config;
    let (dir, logs) = (config.pod_dir(uid), config.pod_log_dir(namespace, name, uid));
    let removed = async {
        context.node.release_driver_volumes(&dir).await?;
        let remove = move || {
            volumes::unmount(&dir)?;
            for path in [dir, logs] {
                volumes::remove_tree(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            }
            Ok(())
        };
        volumes::blocking(remove).await
    };
    match removed.await {
        Ok(()) => Outcome::Ok,
        Err(cause) => {
            tracing::warn!(pod = %spec::full_name(&context.pod), cause, "cannot remove the pod's files");
            Outcome::Failed
        }
    }
}
