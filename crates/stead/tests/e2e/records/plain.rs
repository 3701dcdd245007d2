//! Answers without what differs from one run to the next: the rules are few, named, and the same for both sides.

use regex::Regex;
use serde_json::Value;

use super::form::Answer;

/// What, how it looks, what stands for it.
const RULES: &[(&str, &str, &str)] = &[
    ("colours, cursor and end of a terminal", r"\x1b\[[0-9;]*[A-Za-z]|\r|\^@", ""),
    ("how often an event came", r"\(x\d+ over [0-9dhms]+\)", ""),
    ("when a container restarted", r"\([0-9dhms]+ ago\)", ""),
    ("how long a volume ends already", r"\(lasts [0-9dhms]+\)", ""),
    ("events that were put together", r"\(combined from similar events\): ", ""),
    ("times", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    ("times", r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d (\+0000|GMT)", "TIME"),
    ("times", r"[A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d UTC \d{4}", "TIME"),
    ("times", r"\d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d\.\d{3}", "TIME"),
    ("times", r"[A-Z][a-z]{2} +\d+ \d\d:\d\d", "TIME"),
    (
        "how long a pull took",
        r#" in \d[0-9.ms]*( \(\S+ including waiting\))?(\. Image size: \d+ bytes\.)?$"#,
        " in AGE",
    ),
    ("how long a ping took", r"time=[0-9.]+ ms|min/avg/max = [0-9./]+ ms", "AGE"),
    ("uids", r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
    ("ids of containers and images", r"([a-z]+://)?(sha256:)?\b[0-9a-f]{64}\b", "ID"),
    ("addresses", r"\b\d+\.\d+\.\d+\.\d+\b", "ADDRESS"),
    ("the API server's port", r"\bADDRESS:(16443|216\d\d)\b|\b(16443|216\d\d)\b", "ADDRESS:PORT"),
    ("names of volumes with tokens", r"kube-api-access-[a-z0-9]{5}\b", "kube-api-access-RANDOM"),
    ("names with tokens", r#"(\.name = "(web|gen|dep|ds)-)[a-z0-9]{5}""#, "${1}RANDOM\""),
    ("names of slices", r"^([a-z0-9-]+)-[a-z0-9]{5}(\s+IPv4\s)", "${1}-RANDOM$2"),
    ("hashes of revisions", r#"([-="])[bcdfghjklmnpqrstvwxz2456789]{8,10}\b"#, "${1}HASH"),
    ("versions of objects", r#"(resourceVersion|Resource Version):(\s+)["']?\d+["']?"#, "$1:$2 N"),
    ("versions of programs", r"\bv\d+\.\d+\.\d+\S*", "VERSION"),
    ("sizes of the machine", r"\b\d+Ki\b", "SIZE"),
    ("versions of objects", r"resource version: (\d+), current: \d+", "resource version: $1, current: N"),
    ("versions of objects", r"in record \(\d+\)", "in record (N)"),
    ("where volumes are", r#"/hostpath_pv/UID|/[^"\s]*/storage/pvc-UID_[^"\s]+"#, "VOLUME"),
    ("the machine", r"<none>(\s+)\S.*\s(containerd|stead)://\S+$", "<none> MACHINE"),
    ("the machine", r"ephemeral-storage:(\s+)\d+$", "ephemeral-storage: SIZE"),
    ("the page that nginx shows", r"^(Content-Length|ETag): .*", "$1: PAGE"),
    ("the page that nginx shows", r"^welcome \d$", "PAGE"),
    ("why a pull fails without a network", r#"(Failed to pull image "[^"]+"): .*$"#, "$1: WHY"),
    ("what newer templates lack", r#""creationTimestamp":null,?"#, ""),
    (
        "where newer servers found what they do not know",
        r#"(unknown|duplicate) field (\\?")[^"]*?([A-Za-z]+)(\\?")"#,
        "$1 field $2$3$4",
    ),
    ("where a copy is kept", r#""(/\S*/)?kubectl-edit-\S+\.yaml""#, "COPY"),
    ("ports of nodes", r"nodePort = \d+", "nodePort = N"),
    ("certificates", r#""-----BEGIN CERTIFICATE-----.*""#, "CERTIFICATE"),
    ("tokens of long lists", r#"\.continue = ".*""#, ".continue = TOKEN"),
    ("file systems of the machine", r"^(/dev/\S+|tmpfs)\s.*\s(/\S+)$", "DISK SIZES $2"),
    ("sizes of directories", r"^total \d+$", "total N"),
    ("sizes of directories", r"root(\s+)root(\s+)\d+", "root root N"),
    ("how many machines a packet passed", r"ttl=6[34]", "ttl=N"),
    ("what only newer pods have", r#"apps\.kubernetes\.io/pod-index(=\d+,?|: "\d+")"#, ""),
    (
        "what only newer schedulers add",
        r"( no new claims to deallocate,)? preemption: .*$| no new claims to deallocate,$",
        "",
    ),
    ("how newer schedulers count", r"are available: 1 pod has", "are available: pod has"),
    ("how newer kubelets tell of containers", r"(Created|Started) container \S+", "Container ${1}"),
    ("how newer kubelets tell of containers", r"Container created", "Container Created"),
    ("how newer kubelets tell of containers", r"Container started", "Container Started"),
    ("how newer kubelets tell of images", r"( already present on machine) and can be accessed by the pod", "$1"),
    ("what kept several pods, in the order in which it came up", r"\[error when evicting .*\]", "[EACH]"),
    ("what only newer kubelets name", r"(Back-off restarting failed container) \S+ in pod \S+_\S+\(UID\)", "$1"),
];

/// Whole lines, with single blanks, that only one side has: newer servers' fields, older servers' empty ones, warnings that
/// tell of versions, and the names of the machine.
const DROPPED: &str = r"(?x)^(
    PodReadyToStartContainers\ (True|False) | maxUnavailable:\ 1 | MaxUnavailable:\ 1
    | \S*(observedGeneration|terminatingReplicas|status\.terminating|status\.ready|lastPhaseTransitionTime)\ =\ .*
    | \S*(maxUnavailable\ =\ 1|f:maxUnavailable\ =\ \{\})
    | \S*f:persistentVolumeClaimRetentionPolicy\..*
    | \S*conditions\[PodReadyToStartContainers\].* | \S*status\.hostIPs.* | \S*containerStatuses\S*\.(resources|volumeMounts).*
    | \S*labels\.(endpoints\.kubernetes\.io/managed-by|apps\.kubernetes\.io/pod-index)\ =.*
    | \S*columnDefinitions\[(VolumeAttributesClass|PreemptionPolicy|Timezone|Status)\].*
    | persistentVolumeClaimRetentionPolicy: | when(Deleted|Scaled):\ Retain
    | creationTimestamp:\ null | Creation\ Timestamp:\ <nil>
    | !\ Warning:\ v1\ Endpoints\ is\ deprecated.* | !\ WARNING:\ version\ difference.*
    | \S*(persistentVolumeClaimRetentionPolicy\.when(Deleted|Scaled)\ =\ .Retain.|creationTimestamp\ =\ null)
    | \.columnDefinitions\[[^\]]*\]\.description\ =.* | \S*\.f:lastProbeTime\ =.*
    | (Machine\ ID|System\ UUID|Boot\ ID|Kernel\ Version|OS\ Image|Container\ Runtime\ Version|Kube-Proxy\ Version):.*
)$";

/// Commands whose lines come in the order of random names, of events of the same second, or of pods asked at the same time.
const UNORDERED: &[&str] = &[
    "get pv",
    "get controllerrevisions",
    "describe controllerrevisions",
    "get endpointslices",
    "get events",
    "kubectl drain",
    "describe pv",
    " -- env",
    "?watch=1",
];

/// A remark behind a watch: what becomes of several pods at the same time is compared pod by pod.
const EACH_BY_ITSELF: &str = "# each by itself";

fn in_random_order(command: &str) -> bool {
    UNORDERED.iter().any(|part| command.contains(part))
}

/// What of the headers is compared.
const HEADERS: &[&str] = &[
    "http/",
    "content-type:",
    "warning:",
    "allow:",
    "retry-after:",
    "www-authenticate:",
    "x-content-type-options:",
    "content-encoding:",
    "vary:",
    "cache-control:",
    "location:",
];
/// Fields of objects that differ from one run to the next.
const VOLATILE: &[&str] = &[
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "time",
    "lastTransitionTime",
    "startTime",
    "lastHeartbeatTime",
    "lastProbeTime",
    "startedAt",
    "finishedAt",
    "completionTime",
    "lastUpdateTime",
    "holderIdentity",
    "containerID",
    "imageID",
    "renewTime",
];

/// The rules, made ready.
#[derive(Debug)]
pub(super) struct Plain {
    node: Regex,
    rules: Vec<(Regex, &'static str)>,
    dropped: Regex,
    age: Regex,
}

impl Plain {
    pub(super) fn new(node: &str) -> Self {
        let rules = RULES.iter().map(|(_, pattern, with)| (Regex::new(pattern).unwrap(), *with)).collect();
        Self {
            node: Regex::new(&format!(r"\b{}\b([^.]|$)", regex::escape(node))).unwrap(),
            rules,
            dropped: Regex::new(DROPPED).unwrap(),
            age: Regex::new(r#"^"?(\d+[dhmsy])+"?$"#).unwrap(),
        }
    }

    /// The lines of an answer: output, errors behind `!`, the exit code behind `=`.
    pub(super) fn lines(&self, command: &str, typed: &str, answer: &Answer) -> Vec<String> {
        let as_objects = command.starts_with("curl ") || command.contains(" -o json ") || command.ends_with(" -o json");
        let output = if as_objects { http(command, &answer.output) } else { told(&answer.output) };
        let errors = answer.errors.lines().map(|line| format!("! {line}"));
        let mut lines: Vec<String> = output.into_iter().chain(errors).map(|line| self.line(&line)).collect();
        lines.retain(|line| !line.is_empty() && line != "!" && !self.dropped.is_match(line));
        if !typed.is_empty() {
            without_echo(&mut lines, typed);
        }
        without_newer_columns(&mut lines);
        without_pages(&mut lines);
        if command.contains(" -w") || command.contains("rollout status") {
            still_terminating(&mut lines);
            without_repetitions(&mut lines);
        }
        if command.contains(EACH_BY_ITSELF) {
            let name = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
            let head = usize::from(!lines.is_empty());
            lines[head..].sort_by_key(name);
        }
        if lines.iter().any(|line| line.starts_with("** server can't find")) {
            // nslookup asks for several names at the same time, and prints the answers as they come.
            lines.sort();
        }
        if in_random_order(command) {
            in_any_order(&mut lines, 0);
        } else if let Some(events) = lines.iter().position(|line| line == "Events:") {
            in_any_order(&mut lines, events + 1);
        }
        lines.push(format!("= {}", answer.code));
        lines
    }

    pub(super) fn line(&self, line: &str) -> String {
        let mut line = self.node.replace_all(line, "THE-NODE$1").into_owned();
        for (pattern, with) in &self.rules {
            line = pattern.replace_all(&line, *with).into_owned();
        }
        let words = line.split_whitespace().map(|word| if self.age.is_match(word) { "AGE" } else { word });
        words.collect::<Vec<_>>().join(" ")
    }
}

fn told(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// An answer as curl prints it, with or without its head: the headers, then the fields of its objects, a line each.
fn http(command: &str, text: &str) -> Vec<String> {
    let (head, body) = if text.starts_with("HTTP/") {
        text.split_once("\n\n").or_else(|| text.split_once("\r\n\r\n")).unwrap_or((text, ""))
    } else {
        ("", text)
    };
    let compared = |line: &String| HEADERS.iter().any(|name| line.starts_with(name));
    let mut lines: Vec<String> = head.lines().map(str::to_lowercase).filter(compared).collect();
    lines.sort();
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(body).into_iter().collect();
    let Ok(values) = values else {
        lines.extend(told(body));
        return lines;
    };
    for value in values {
        let from = lines.len();
        flatten("", &lasting(value), &mut lines);
        lines[from..].sort();
    }
    if command.contains("/pods") {
        // Which part of a cluster writes a pod's status first is a matter of moments.
        lines.retain(|line| !line.contains(".managedFields["));
    }
    if in_random_order(command) {
        let index = Regex::new(r"^\.items\[\d+\]").unwrap();
        lines = lines.iter().map(|line| index.replace(line, ".items[]").into_owned()).collect();
    }
    if command.contains("as=Table")
        && head.is_empty()
        && !command.contains("/pods?")
        && !command.contains("/statefulsets?")
    {
        lines.retain(|line| !line.starts_with(".rows") && !line.starts_with(".metadata"));
    }
    lines
}

/// Without the [`VOLATILE`] fields.
fn lasting(value: Value) -> Value {
    let keeps = |name: &str, value: &Value| !VOLATILE.contains(&name) || value.is_object();
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(name, value)| keeps(name, value));
            Value::Object(fields.map(|(name, value)| (name, lasting(value))).collect())
        }
        Value::Array(members) => Value::Array(members.into_iter().map(lasting).collect()),
        other => other,
    }
}

/// One line for each value: its path, and what it is. Members of lists go by their name, where all have one.
fn flatten(path: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                flatten(&format!("{path}.{name}"), value, lines);
            }
        }
        Value::Array(members) if !members.is_empty() => {
            let name = |member: &Value| Some(member.get("name").or_else(|| member.get("type"))?.as_str()?.to_owned());
            let names: Option<Vec<String>> = members.iter().map(name).collect();
            for (index, member) in members.iter().enumerate() {
                let key = names.as_ref().map_or_else(|| index.to_string(), |names| names[index].clone());
                flatten(&format!("{path}[{key}]"), member, lines);
            }
        }
        Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            lines.push(format!("{path} = {value}"));
        }
    }
}

/// What was typed on a terminal comes back when and where the terminal likes, as do prompts.
fn without_echo(lines: &mut Vec<String>, typed: &str) {
    let typed: Vec<String> = typed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in lines.iter_mut() {
        while let Some(rest) = line.strip_prefix("/ #").or_else(|| line.strip_prefix("/data #")) {
            *line = rest.trim_start().to_owned();
        }
    }
    lines.retain(|line| !line.is_empty() && !typed.contains(line));
}

/// The page that nginx shows is the image's.
fn without_pages(lines: &mut Vec<String>) {
    while let Some(from) = lines.iter().position(|line| line == "<!DOCTYPE html>") {
        let length = lines[from..].iter().position(|line| line == "</html>").map_or(1, |end| end + 1);
        lines.splice(from..from + length, ["PAGE".to_owned()]);
    }
}

/// Servers since 1.29 have a column that tables of older ones lack.
fn without_newer_columns(lines: &mut [String]) {
    const COLUMN: &str = " VOLUMEATTRIBUTESCLASS";
    let mut inside = false;
    for line in lines {
        if line.contains(COLUMN) {
            inside = true;
            *line = line.replace(COLUMN, "");
        } else if inside {
            *line = line.replacen(" <unset>", "", 1);
        }
    }
}

/// Servers since 1.27 show how the containers of a terminating pod ended, where older ones said that it is terminating.
fn still_terminating(lines: &mut [String]) {
    let mut terminating: Vec<String> = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, _, state, ..] = words[..] else { continue };
        if state == "Terminating" {
            terminating.push(name.to_owned());
        } else if matches!(state, "Completed" | "Error") && terminating.iter().any(|other| other == name) {
            *line = line.replacen(&format!(" {state} "), " Terminating ", 1);
        } else {
            terminating.retain(|other| other != name);
        }
    }
}

/// A watch shows each change of an object, also one that shows in none of its columns.
fn without_repetitions(lines: &mut Vec<String>) {
    let mut seen: Vec<(String, String)> = Vec::new();
    lines.retain(|line| {
        let name = line.split(' ').next().unwrap_or_default();
        match seen.iter_mut().find(|(of, _)| of == name) {
            Some((_, last)) if last == line => false,
            Some((_, last)) => {
                last.clone_from(line);
                true
            }
            None => {
                seen.push((name.to_owned(), line.clone()));
                true
            }
        }
    });
}

fn in_any_order(lines: &mut Vec<String>, from: usize) {
    let mut rest = lines.split_off(from);
    rest.sort();
    rest.dedup();
    lines.append(&mut rest);
}
