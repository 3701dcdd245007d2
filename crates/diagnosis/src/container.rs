//! Containers: images, crashes, probes, configuration.

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, Probe};
use stead_machinery::quantity::Quantity;

use crate::finding::{Evidence, Finding};
use crate::mend::Owner;
use crate::pod::{absent_object, age, mended, word};
use crate::snapshot::{Snapshot, name};

/// The exit code of a container that was killed by SIGKILL.
const KILLED: i32 = 137;

/// What is wrong with the first container that is not as it should be: init containers first.
pub(crate) fn state(snapshot: &Snapshot, pod: &Pod) -> Option<Finding> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten().filter(|c| !c.ready && c.started != Some(true));
    let main = status.container_statuses.iter().flatten().filter(|c| !c.ready);
    init.chain(main).find_map(|container| one(snapshot, pod, container))
}

fn one(snapshot: &Snapshot, pod: &Pod, container: &ContainerStatus) -> Option<Finding> {
    let state = container.state.clone().unwrap_or_default();
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let message = waiting.message.as_deref().unwrap_or_default();
        let seen =
            Evidence { source: format!("container {} waiting", container.name), text: format!("{reason}: {message}") };
        return match reason {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "RegistryUnavailable"
            | "ImageInspectError" => Some(image(snapshot, pod, container, message, seen)),
            "CrashLoopBackOff" => Some(crash(snapshot, pod, container, seen)),
            "CreateContainerConfigError" => Some(config(snapshot, pod, container, message, seen)),
            "CreateContainerError"
            | "RunContainerError"
            | "PostStartHookError"
            | "PreCreateHookError"
            | "PreStartHookError" => Some(cannot_start(snapshot, pod, container, message, seen)),
            _ => pulling(snapshot, pod, container),
        };
    }
    if let Some(ended) = &state.terminated {
        let again = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) != Some("Never");
        let seen = Evidence { source: format!("container {} ended", container.name), text: exit(ended) };
        if ended.exit_code == 0 && !again {
            return None;
        }
        if matches!(ended.reason.as_deref(), Some("StartError" | "ContainerCannotRun")) {
            return Some(cannot_start(snapshot, pod, container, ended.message.as_deref().unwrap_or_default(), seen));
        }
        return Some(crash(snapshot, pod, container, seen));
    }
    state.running.map(|running| {
        let since = running.started_at.map(|time| time.0);
        unready(snapshot, pod, container, age(snapshot, since))
    })
}

fn spec<'a>(pod: &'a Pod, container: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|one| one.name == container)
}

fn image(snapshot: &Snapshot, pod: &Pod, container: &ContainerStatus, message: &str, seen: Evidence) -> Finding {
    let image = spec(pod, &container.name).and_then(|c| c.image.as_deref()).unwrap_or(&container.image);
    let failed = snapshot.events_of("Pod", &pod.metadata).find(|event| {
        event.reason.as_deref() == Some("Failed") && event.message.as_deref().is_some_and(|m| m.contains("pull"))
    });
    let told =
        format!("{message} {}", failed.and_then(|event| event.message.as_deref()).unwrap_or_default()).to_lowercase();
    let secrets = pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.clone()).unwrap_or_default();
    let why = if told.contains("not found")
        || told.contains("manifest unknown")
        || told.contains("name unknown")
        || told.contains("does not exist")
    {
        "there is no such image or tag"
    } else if ["unauthorized", "denied", "authentication", "forbidden"].iter().any(|word| told.contains(word)) {
        match secrets.is_empty() {
            true => "the registry asks who it is, and the pod names no imagePullSecrets",
            false => "the registry refuses the pod's imagePullSecrets",
        }
    } else if ["no such host", "lookup", "dns"].iter().any(|word| told.contains(word)) {
        "the registry's name does not resolve on the node"
    } else if ["refused", "timeout", "timed out", "unreachable"].iter().any(|word| told.contains(word)) {
        "the registry does not answer"
    } else if told.contains("invalidimagename") || told.contains("invalid reference") || told.contains("parse") {
        "that is no name of an image"
    } else if told.contains("never") {
        "it is not on the node, and imagePullPolicy Never forbids to get it"
    } else {
        "see what the registry answered"
    };
    let finding = Finding::new("ImagePull", word(pod), format!("the image {image:?} cannot be pulled: {why}"))
        .with([seen])
        .with(failed.map(|event| snapshot.shown(event)));
    let owner = Owner::of(snapshot, pod);
    let command = format!("{} set image {} {}=IMAGE", snapshot.kubectl(), owner.word, container.name);
    mended(snapshot, pod, finding, "name an image that can be pulled", Some(command))
}

fn crash(snapshot: &Snapshot, pod: &Pod, container: &ContainerStatus, seen: Evidence) -> Finding {
    let own = &container.name;
    let current = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    let end = current.or_else(|| container.last_state.as_ref()?.terminated.as_ref());
    let kubectl = snapshot.kubectl();
    let probe = snapshot.events_of("Pod", &pod.metadata).find(|event| {
        let text = event.message.as_deref().unwrap_or_default();
        event.reason.as_deref() == Some("Unhealthy") && (text.starts_with("Liveness") || text.starts_with("Startup"))
    });
    let oom = end.is_some_and(|end| end.reason.as_deref() == Some("OOMKilled"));
    let what = match end {
        _ if oom => format!("container {own} needs more memory than its limit and is killed (OOMKilled)"),
        Some(end) if probe.is_some() && (end.exit_code == KILLED || end.exit_code == 143) => {
            format!(
                "container {own} is killed again and again: its {} fails",
                probe_kind(probe.and_then(|e| e.message.as_deref()))
            )
        }
        Some(end) => format!("container {own} ends again and again (exit code {}): {}", end.exit_code, meaning(end)),
        None => format!("container {own} ends again and again"),
    };
    let mut finding = Finding::new(if oom { "OutOfMemory" } else { "CrashLoop" }, word(pod), what)
        .seen(format!("container {own} restarts"), container.restart_count.to_string())
        .with([seen])
        .with(
            end.filter(|_| current.is_none())
                .map(|end| Evidence { source: format!("container {own} last end"), text: exit(end) }),
        )
        .with(probe.map(|event| snapshot.shown(event)));
    if let Some(lines) =
        snapshot.logs.get(&(name(&pod.metadata).to_owned(), own.clone())).filter(|lines| !lines.is_empty())
    {
        finding = finding.seen("log", lines.join("\n"));
    }
    if oom {
        let command = more_memory(snapshot, pod, own);
        return mended(snapshot, pod, finding, "give it more memory", Some(command));
    }
    let owner = Owner::of(snapshot, pod);
    let read = format!("{kubectl} logs {} -c {own} --previous", name(&pod.metadata));
    let finding = finding.mended_by("read what it said last", read);
    mended(
        snapshot,
        pod,
        finding,
        "mend what it complains of; its command, environment and probes are in the template",
        Some(format!("{kubectl} edit {}", owner.word)),
    )
}

fn probe_kind(message: Option<&str>) -> &'static str {
    if message.is_some_and(|text| text.starts_with("Startup")) { "startup probe" } else { "liveness probe" }
}

/// What an exit code usually says.
fn meaning(end: &ContainerStateTerminated) -> &'static str {
    match end.exit_code {
        0 => "its command is done, though it is to run on",
        126 => "its command cannot be executed",
        127 => "its command was not found",
        KILLED => "it was killed (SIGKILL)",
        139 => "it crashed (SIGSEGV)",
        143 => "it was told to end (SIGTERM)",
        _ => "its log says why",
    }
}

fn exit(end: &ContainerStateTerminated) -> String {
    let reason = end.reason.as_deref().unwrap_or("-");
    let message = end.message.as_deref().map(|text| format!(": {}", text.trim())).unwrap_or_default();
    format!("exit code {}, reason {reason}{message}", end.exit_code)
}

/// The command that doubles the memory limit.
fn more_memory(snapshot: &Snapshot, pod: &Pod, container: &str) -> String {
    let owner = Owner::of(snapshot, pod);
    let limit = spec(pod, container)
        .and_then(|c| c.resources.as_ref()?.limits.as_ref()?.get("memory")?.0.parse::<Quantity>().ok());
    let amount = limit.map_or_else(|| "MEMORY".to_owned(), |limit| (limit + limit).to_string());
    format!("{} set resources {} -c {container} --limits=memory={amount}", snapshot.kubectl(), owner.word)
}

fn config(snapshot: &Snapshot, pod: &Pod, container: &ContainerStatus, message: &str, seen: Evidence) -> Finding {
    let finding =
        Finding::new("ContainerConfig", word(pod), format!("container {} cannot be made: {message}", container.name))
            .with([seen]);
    if let Some(missing) = absent_object(snapshot, message) {
        return Finding {
            what: format!("container {} cannot be made: something that it is given does not exist", container.name),
            ..finding
        }
        .because(Some(missing));
    }
    let owner = Owner::of(snapshot, pod);
    let command = format!("{} edit {}", snapshot.kubectl(), owner.word);
    mended(snapshot, pod, finding, "correct what it is given", Some(command))
}

fn cannot_start(snapshot: &Snapshot, pod: &Pod, container: &ContainerStatus, message: &str, seen: Evidence) -> Finding {
    let why = message.lines().next().unwrap_or_default();
    let finding =
        Finding::new("ContainerStart", word(pod), format!("container {} cannot be started: {why}", container.name))
            .with([seen]);
    let owner = Owner::of(snapshot, pod);
    mended(
        snapshot,
        pod,
        finding,
        "correct its command or what it mounts",
        Some(format!("{} edit {}", snapshot.kubectl(), owner.word)),
    )
}

/// On its way to start: its image is being pulled.
fn pulling(snapshot: &Snapshot, pod: &Pod, container: &ContainerStatus) -> Option<Finding> {
    let newest = snapshot.events_of("Pod", &pod.metadata).next()?;
    (newest.reason.as_deref() == Some("Pulling")).then(|| {
        Finding::new("Pulling", word(pod), format!("the image of container {} is being pulled", container.name))
            .with([snapshot.shown(newest)])
            .waiting()
    })
}

/// It runs, and is not ready: a probe.
fn unready(snapshot: &Snapshot, pod: &Pod, container: &ContainerStatus, running: i64) -> Finding {
    let own = &container.name;
    let spec = spec(pod, own);
    let starting = container.started == Some(false);
    let probe = spec.and_then(|c| if starting { c.startup_probe.as_ref() } else { c.readiness_probe.as_ref() });
    let kind = if starting { "startup" } else { "readiness" };
    let prefix = if starting { "Startup" } else { "Readiness" };
    let event = snapshot.events_of("Pod", &pod.metadata).find(|event| {
        event.reason.as_deref() == Some("Unhealthy")
            && event.message.as_deref().is_some_and(|text| text.starts_with(prefix))
    });
    let Some(probe) = probe else {
        return Finding::new(
            "Starting",
            word(pod),
            format!("container {own} runs for {running} s and is about to be ready"),
        )
        .waiting();
    };
    let asks = asked(probe);
    let source = format!("container {own} {kind}Probe");
    let Some(event) = event else {
        return Finding::new(
            "Probe",
            word(pod),
            format!("container {own} runs for {running} s; its {kind} probe has not succeeded yet"),
        )
        .seen(source, asks)
        .waiting();
    };
    let text = event.message.as_deref().unwrap_or_default();
    let finding = Finding::new(
        "Readiness",
        word(pod),
        format!("container {own} runs, but its {kind} probe fails: {}", refusal(text)),
    )
    .with([snapshot.shown(event)])
    .seen(source, asks);
    let kubectl = snapshot.kubectl();
    let owner = Owner::of(snapshot, pod);
    let pod_name = name(&pod.metadata);
    let see = match probe.exec.as_ref().and_then(|exec| exec.command.as_ref()) {
        Some(command) => {
            let words: Vec<String> = command.iter().map(|word| crate::mend::quoted(word)).collect();
            format!("{kubectl} exec {pod_name} -c {own} -- {}", words.join(" "))
        }
        None => format!("{kubectl} logs {pod_name} -c {own}"),
    };
    let finding = finding.mended_by(
        "see what it asks for; it is tried again by itself, so it is enough that the container answers",
        see,
    );
    mended(snapshot, pod, finding, "correct the probe", Some(format!("{kubectl} edit {}", owner.word)))
}

/// Why a probe failed, from the event's text.
fn refusal(text: &str) -> String {
    if text.contains("connection refused") {
        return "nothing listens on that port".to_owned();
    }
    if let Some((_, code)) = text.split_once("statuscode: ") {
        return format!("the answer is {}", code.trim());
    }
    if text.contains("timed out") || text.contains("deadline exceeded") || text.contains("timeout") {
        return "no answer in time".to_owned();
    }
    let cause = text.split_once("failed: ").map_or("", |(_, cause)| cause.trim());
    if cause.is_empty() {
        "its command says no".to_owned()
    } else {
        cause.lines().next().unwrap_or_default().to_owned()
    }
}

/// What a probe asks for: `GET /ready on port 80, every 10 s`.
fn asked(probe: &Probe) -> String {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    let port = |port: &IntOrString| match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    let what = if let Some(http) = &probe.http_get {
        format!("GET {} on port {}", http.path.as_deref().unwrap_or("/"), port(&http.port))
    } else if let Some(tcp) = &probe.tcp_socket {
        format!("TCP connection to port {}", port(&tcp.port))
    } else if let Some(exec) = &probe.exec {
        format!("exec {:?}", exec.command.clone().unwrap_or_default())
    } else if let Some(grpc) = &probe.grpc {
        format!("gRPC health on port {}", grpc.port)
    } else {
        "nothing".to_owned()
    };
    format!("{what}, every {} s, {} times", probe.period_seconds.unwrap_or(10), probe.failure_threshold.unwrap_or(3))
}
