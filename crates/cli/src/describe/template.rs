//! Containers, volumes and pod templates.

use serde_json::Value;

use super::{Page, or_none};
use crate::print::{at, int, list, sorted};

/// A pod template as text with its tabs still in it. `level` is not used by upstream's own callers either.
pub(crate) fn pod_template(template: &Value, _level: usize) -> String {
    let mut page = Page::default();
    describe(&mut page, template);
    page.text
}

/// Adds a pod template.
pub(super) fn describe(page: &mut Page, template: &Value) {
    page.line(0, "Pod Template:");
    if template.is_null() {
        return page.line(0, "  <unset>");
    }
    page.labels("  Labels", &template["metadata"]["labels"]);
    if template["metadata"]["annotations"].as_object().is_some_and(|map| !map.is_empty()) {
        page.annotations("  Annotations", &template["metadata"]["annotations"]);
    }
    let spec = &template["spec"];
    if !at(spec, "/serviceAccountName").is_empty() {
        page.field(1, "Service Account", at(spec, "/serviceAccountName"));
    }
    if !list(spec, "/initContainers").is_empty() {
        containers(page, "Init Containers", spec, "initContainers", None, "  ");
    }
    containers(page, "Containers", spec, "containers", None, "  ");
    volumes(page, spec, "  ");
    topology(page, spec, "  ");
    if !at(spec, "/priorityClassName").is_empty() {
        page.field(1, "Priority Class Name", at(spec, "/priorityClassName"));
    }
    page.labels("  Node-Selectors", &spec["nodeSelector"]);
    tolerations(page, "  Tolerations", spec);
}

/// Adds containers, with their state when `pod` is given. `space` moves their names in.
pub(super) fn containers(page: &mut Page, label: &str, spec: &Value, field: &str, pod: Option<&Value>, space: &str) {
    let containers = list(spec, &format!("/{field}"));
    page.line(0, &format!("{space}{label}:{}", if containers.is_empty() { " <none>" } else { "" }));
    let statuses = match field {
        "containers" => "/status/containerStatuses",
        "initContainers" => "/status/initContainerStatuses",
        _ => "/status/ephemeralContainerStatuses",
    };
    for container in containers {
        let status = pod.and_then(|pod| list(pod, statuses).iter().find(|status| status["name"] == container["name"]));
        let indent = if space.is_empty() { "" } else { " " };
        page.line(1, &format!("{indent}{}:", at(container, "/name")));
        basics(page, container, status);
        words(page, "Command", container, "/command");
        words(page, "Args", container, "/args");
        if let Some(status) = status {
            states(page, status);
        }
        resources(page, &container["resources"]);
        for (name, field) in
            [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
        {
            if container[field].is_object() {
                page.field(2, name, &probe(&container[field]));
            }
        }
        environment_sources(page, container);
        environment(page, container, pod);
        mounts(page, container);
    }
}

fn basics(page: &mut Page, container: &Value, status: Option<&Value>) {
    if let Some(status) = status {
        page.field(2, "Container ID", at(status, "/containerID"));
    }
    page.field(2, "Image", at(container, "/image"));
    if let Some(status) = status {
        page.field(2, "Image ID", at(status, "/imageID"));
    }
    let ports = |field: &str| -> String {
        let one = |port: &Value| {
            let protocol = at(port, "/protocol");
            format!("{}/{}", int(port, field), if protocol.is_empty() { "TCP" } else { protocol })
        };
        list(container, "/ports").iter().map(one).collect::<Vec<_>>().join(", ")
    };
    for (name, field) in [("Port", "/containerPort"), ("Host Port", "/hostPort")] {
        let ports = ports(field);
        let name = if ports.contains(", ") { format!("{name}s") } else { name.to_owned() };
        page.field(2, &name, or_none(&ports));
    }
}

fn words(page: &mut Page, title: &str, container: &Value, pointer: &str) {
    let words = list(container, pointer);
    if words.is_empty() {
        return;
    }
    page.line(2, &format!("{title}:"));
    for line in words.iter().filter_map(Value::as_str).flat_map(|word| word.split('\n')) {
        page.line(3, line);
    }
}

fn states(page: &mut Page, status: &Value) {
    state(page, "State", &status["state"]);
    if status["lastState"]["terminated"].is_object() {
        state(page, "Last State", &status["lastState"]);
    }
    page.field(2, "Ready", if status["ready"] == true { "True" } else { "False" });
    page.field(2, "Restart Count", &int(status, "/restartCount").to_string());
}

fn state(page: &mut Page, title: &str, state: &Value) {
    if state["running"].is_object() {
        page.field(2, title, "Running");
        page.field(3, "Started", &super::time(&state["running"]["startedAt"]));
    } else if state["terminated"].is_object() {
        let end = &state["terminated"];
        page.field(2, title, "Terminated");
        for (name, pointer) in [("Reason", "/reason"), ("Message", "/message")] {
            if !at(end, pointer).is_empty() {
                page.field(3, name, at(end, pointer));
            }
        }
        page.field(3, "Exit Code", &int(end, "/exitCode").to_string());
        if int(end, "/signal") > 0 {
            page.field(3, "Signal", &int(end, "/signal").to_string());
        }
        page.field(3, "Started", &super::time(&end["startedAt"]));
        page.field(3, "Finished", &super::time(&end["finishedAt"]));
    } else {
        page.field(2, title, "Waiting");
        if !at(state, "/waiting/reason").is_empty() {
            page.field(3, "Reason", at(state, "/waiting/reason"));
        }
    }
}

fn resources(page: &mut Page, resources: &Value) {
    for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
        let Some(amounts) = resources[field].as_object().filter(|map| !map.is_empty()) else { continue };
        page.line(2, &format!("{title}:"));
        for (name, amount) in sorted(amounts) {
            page.field(3, name, amount.as_str().unwrap_or_default());
        }
    }
}

/// A probe in one line.
fn probe(probe: &Value) -> String {
    let attributes = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        int(probe, "/initialDelaySeconds"),
        int(probe, "/timeoutSeconds"),
        int(probe, "/periodSeconds"),
        int(probe, "/successThreshold"),
        int(probe, "/failureThreshold")
    );
    let port = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if probe["exec"].is_object() {
        let command: Vec<&str> = list(probe, "/exec/command").iter().filter_map(Value::as_str).collect();
        return format!("exec [{}] {attributes}", command.join(" "));
    }
    if let Some(get) = probe.get("httpGet") {
        let path = at(get, "/path");
        let path = if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let scheme = at(get, "/scheme").to_lowercase();
        return format!("http-get {scheme}://{}:{}{path} {attributes}", at(get, "/host"), port(&get["port"]));
    }
    if let Some(tcp) = probe.get("tcpSocket") {
        return format!("tcp-socket {}:{} {attributes}", at(tcp, "/host"), port(&tcp["port"]));
    }
    if let Some(grpc) = probe.get("grpc") {
        return format!("grpc <pod>:{} {} {attributes}", int(grpc, "/port"), at(grpc, "/service"));
    }
    format!("unknown {attributes}")
}

fn environment_sources(page: &mut Page, container: &Value) {
    let sources = list(container, "/envFrom");
    if sources.is_empty() {
        return;
    }
    page.line(2, "Environment Variables from:");
    for source in sources {
        let (from, reference) = match source.get("configMapRef") {
            Some(reference) => ("ConfigMap", reference),
            None => ("Secret", &source["secretRef"]),
        };
        let optional = reference["optional"] == true;
        let prefix = at(source, "/prefix");
        let with = if prefix.is_empty() { String::new() } else { format!(" with prefix '{prefix}'") };
        page.line(3, &format!("{}\t{from}{with}\tOptional: {optional}", at(reference, "/name")));
    }
}

fn environment(page: &mut Page, container: &Value, pod: Option<&Value>) {
    let variables = list(container, "/env");
    if variables.is_empty() {
        return page.line(2, "Environment:\t<none>");
    }
    page.line(2, "Environment:");
    for variable in variables {
        let name = at(variable, "/name");
        let from = &variable["valueFrom"];
        if let Some(field) = from.get("fieldRef") {
            let path = at(field, "/fieldPath");
            let value = pod.map(|pod| field_of(pod, path)).unwrap_or_default();
            page.line(3, &format!("{name}:\t{value} ({}:{path})", at(field, "/apiVersion")));
        } else if let Some(field) = from.get("resourceFieldRef") {
            let resource = at(field, "/resource");
            let value = resource_of(container, resource, at(field, "/divisor"));
            page.line(3, &format!("{name}:\t{value} ({resource})"));
        } else if let Some(secret) = from.get("secretKeyRef") {
            let optional = secret["optional"] == true;
            page.line(
                3,
                &format!(
                    "{name}:\t<set to the key '{}' in secret '{}'>\tOptional: {optional}",
                    at(secret, "/key"),
                    at(secret, "/name")
                ),
            );
        } else if let Some(map) = from.get("configMapKeyRef") {
            let optional = map["optional"] == true;
            page.line(
                3,
                &format!(
                    "{name}:\t<set to the key '{}' of config map '{}'>\tOptional: {optional}",
                    at(map, "/key"),
                    at(map, "/name")
                ),
            );
        } else {
            for (number, line) in at(variable, "/value").split('\n').enumerate() {
                page.line(3, &if number == 0 { format!("{name}:\t{line}") } else { format!("\t{line}") });
            }
        }
    }
}

/// What a container's variable takes from its pod.
fn field_of(pod: &Value, path: &str) -> String {
    if let Some((map, key)) = path.split_once("['") {
        let pointer = format!("/{}", map.replace('.', "/"));
        return pod
            .pointer(&pointer)
            .and_then(|m| m[key.trim_end_matches("']")].as_str())
            .unwrap_or_default()
            .to_owned();
    }
    at(pod, &format!("/{}", path.replace('.', "/"))).to_owned()
}

/// The amount of a container's own resources; `limits.cpu` counts cores, rounded up.
fn resource_of(container: &Value, resource: &str, divisor: &str) -> String {
    let amount = at(&container["resources"], &format!("/{}", resource.replacen('.', "/", 1)));
    let parse = |text: &str| text.parse::<stead_machinery::quantity::Quantity>().ok();
    let Some(amount) = parse(amount) else {
        return if resource.starts_with("limits.") { "node allocatable".to_owned() } else { "0".to_owned() };
    };
    let divisor = parse(divisor).filter(|d| !d.is_zero()).map_or(1000, |d| d.milli_value());
    let amount = amount.milli_value();
    (amount / divisor + i64::from(amount % divisor != 0)).to_string()
}

fn mounts(page: &mut Page, container: &Value) {
    let mut mounts: Vec<&Value> = list(container, "/volumeMounts").iter().collect();
    mounts.sort_by_key(|mount| at(mount, "/mountPath"));
    if mounts.is_empty() {
        page.line(2, "Mounts:\t<none>");
    } else {
        page.line(2, "Mounts:");
    }
    for mount in mounts {
        let mut flags = vec![if mount["readOnly"] == true { "ro".to_owned() } else { "rw".to_owned() }];
        match (at(mount, "/subPath"), at(mount, "/subPathExpr")) {
            ("", "") => {}
            ("", path) | (path, _) => flags.push(format!("path=\"{path}\"")),
        }
        page.line(3, &format!("{} from {} ({})", at(mount, "/mountPath"), at(mount, "/name"), flags.join(",")));
    }
    let devices = list(container, "/volumeDevices");
    if !devices.is_empty() {
        page.line(2, "Devices:");
    }
    for device in devices {
        page.line(3, &format!("{} from {}", at(device, "/devicePath"), at(device, "/name")));
    }
}

/// Adds volumes.
pub(super) fn volumes(page: &mut Page, spec: &Value, space: &str) {
    let volumes = list(spec, "/volumes");
    if volumes.is_empty() {
        return page.line(0, &format!("{space}Volumes:\t<none>"));
    }
    page.line(0, &format!("{space}Volumes:"));
    let indent = if space.is_empty() { "" } else { " " };
    for volume in volumes {
        page.line(1, &format!("{indent}{}:", at(volume, "/name")));
        source(page, volume);
    }
}

/// Adds where a volume's data comes from.
fn source(page: &mut Page, volume: &Value) {
    let flag = |value: &Value| (value == true).to_string();
    let mut put = |name: &str, value: &str| page.field(2, name, value);
    if let Some(path) = volume.get("hostPath") {
        put("Type", "HostPath (bare host directory volume)");
        put("Path", at(path, "/path"));
        put("HostPathType", at(path, "/type"));
    } else if let Some(dir) = volume.get("emptyDir") {
        put("Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
        put("Medium", at(dir, "/medium"));
        let limit = at(dir, "/sizeLimit");
        put("SizeLimit", if limit.is_empty() { "<unset>" } else { limit });
    } else if let Some(map) = volume.get("configMap") {
        put("Type", "ConfigMap (a volume populated by a ConfigMap)");
        put("Name", at(map, "/name"));
        put("Optional", &flag(&map["optional"]));
    } else if let Some(secret) = volume.get("secret") {
        put("Type", "Secret (a volume populated by a Secret)");
        put("SecretName", at(secret, "/secretName"));
        put("Optional", &flag(&secret["optional"]));
    } else if let Some(claim) = volume.get("persistentVolumeClaim") {
        put("Type", "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)");
        put("ClaimName", at(claim, "/claimName"));
        put("ReadOnly", &flag(&claim["readOnly"]));
    } else if let Some(nfs) = volume.get("nfs") {
        put("Type", "NFS (an NFS mount that lasts the lifetime of a pod)");
        put("Server", at(nfs, "/server"));
        put("Path", at(nfs, "/path"));
        put("ReadOnly", &flag(&nfs["readOnly"]));
    } else if let Some(projected) = volume.get("projected") {
        put("Type", "Projected (a volume that contains injected data from multiple sources)");
        for source in list(projected, "/sources") {
            projection(page, source);
        }
    } else if let Some(downward) = volume.get("downwardAPI") {
        page.field(2, "Type", "DownwardAPI (a volume populated by information about the pod)");
        page.line(0, "Items:");
        for item in list(downward, "/items") {
            let from = match at(item, "/fieldRef/fieldPath") {
                "" => at(item, "/resourceFieldRef/resource"),
                path => path,
            };
            page.line(3, &format!("{from} -> {}", at(item, "/path")));
        }
    } else if let Some(csi) = volume.get("csi") {
        put("Type", "CSI (a Container Storage Interface (CSI) volume source)");
        put("Driver", at(csi, "/driver"));
        put("FSType", at(csi, "/fsType"));
        put("ReadOnly", &flag(&csi["readOnly"]));
    } else if let Some(ephemeral) = volume.get("ephemeral") {
        put(
            "Type",
            "EphemeralVolume (an inline specification for a volume that gets created and deleted with the pod)",
        );
        let claim = &ephemeral["volumeClaimTemplate"]["spec"];
        put("StorageClass", at(claim, "/storageClassName"));
        put("Capacity", at(claim, "/resources/requests/storage"));
        put("Access Modes", &super::access_modes(&claim["accessModes"]));
    } else {
        page.line(2, "<unknown>");
    }
}

fn projection(page: &mut Page, source: &Value) {
    let optional = |value: &Value| value.as_bool().map_or("<nil>".to_owned(), |flag| flag.to_string());
    if let Some(secret) = source.get("secret") {
        page.field(2, "SecretName", at(secret, "/name"));
        page.field(2, "SecretOptionalName", &optional(&secret["optional"]));
    } else if source.get("downwardAPI").is_some() {
        page.field(2, "DownwardAPI", "true");
    } else if let Some(map) = source.get("configMap") {
        page.field(2, "ConfigMapName", at(map, "/name"));
        page.field(2, "ConfigMapOptional", &optional(&map["optional"]));
    } else if let Some(token) = source.get("serviceAccountToken") {
        page.field(2, "TokenExpirationSeconds", &int(token, "/expirationSeconds").to_string());
    }
}

/// Adds spread constraints, when there are any.
pub(super) fn topology(page: &mut Page, spec: &Value, space: &str) {
    let constraints = list(spec, "/topologySpreadConstraints");
    let mut sorted: Vec<&Value> = constraints.iter().collect();
    sorted.sort_by_key(|constraint| at(constraint, "/topologyKey"));
    for (number, constraint) in sorted.into_iter().enumerate() {
        let head = if number == 0 { format!("{space}Topology Spread Constraints:\t") } else { "\t".to_owned() };
        let selector = super::selector_text(&constraint["labelSelector"]);
        let selects = if selector.is_empty() { String::new() } else { format!(" for selector {selector}") };
        page.line(
            0,
            &format!(
                "{head}{}:{} when max skew {} is exceeded{selects}",
                at(constraint, "/topologyKey"),
                at(constraint, "/whenUnsatisfiable"),
                int(constraint, "/maxSkew")
            ),
        );
    }
}

/// Adds tolerations.
pub(super) fn tolerations(page: &mut Page, title: &str, spec: &Value) {
    let mut tolerations: Vec<&Value> = list(spec, "/tolerations").iter().collect();
    tolerations.sort_by_key(|toleration| at(toleration, "/key"));
    if tolerations.is_empty() {
        return page.line(0, &format!("{title}:\t<none>"));
    }
    for (number, toleration) in tolerations.into_iter().enumerate() {
        let head = if number == 0 { format!("{title}:\t") } else { "\t".to_owned() };
        let (key, value, effect) = (at(toleration, "/key"), at(toleration, "/value"), at(toleration, "/effect"));
        let mut text = key.to_owned();
        if !value.is_empty() {
            text.push_str(&format!("={value}"));
        }
        if !effect.is_empty() {
            text.push_str(&format!(":{effect}"));
        }
        if at(toleration, "/operator") == "Exists" && value.is_empty() {
            text.push_str(if text.is_empty() { "op=Exists" } else { " op=Exists" });
        }
        if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
            text.push_str(&format!(" for {seconds}s"));
        }
        page.line(0, &format!("{head}{text}"));
    }
}
