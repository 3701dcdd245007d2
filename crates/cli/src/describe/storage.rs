//! The pages of claims, volumes and storage classes.

use serde_json::Value;

use super::{Page, Related, access_modes, or_none};
use crate::print::{at, list};

/// A PersistentVolumeClaim.
pub(super) fn claim(page: &mut Page, claim: &Value, related: &Related) {
    page.field(0, "Name", at(claim, "/metadata/name"));
    page.field(0, "Namespace", at(claim, "/metadata/namespace"));
    let beta = at(claim, "/metadata/annotations/volume.beta.kubernetes.io~1storage-class");
    page.field(0, "StorageClass", if beta.is_empty() { at(claim, "/spec/storageClassName") } else { beta });
    let (phase, status) = (at(claim, "/status/phase"), &claim["status"]);
    match claim["metadata"]["deletionTimestamp"].is_string() {
        true => page.field(
            0,
            "Status",
            &format!(
                "Terminating (lasts {})",
                stead_machinery::time::since(&claim["metadata"]["deletionTimestamp"], related.now)
            ),
        ),
        false => page.field(0, "Status", phase),
    }
    page.field(0, "Volume", at(claim, "/spec/volumeName"));
    page.labels("Labels", &claim["metadata"]["labels"]);
    page.annotations("Annotations", &claim["metadata"]["annotations"]);
    finalizers(page, claim);
    let bound = !at(claim, "/spec/volumeName").is_empty();
    let capacity = match at(status, "/capacity/storage") {
        _ if !bound => "",
        "" => "0",
        capacity => capacity,
    };
    page.field(0, "Capacity", capacity);
    page.field(0, "Access Modes", &if bound { access_modes(&status["accessModes"]) } else { String::new() });
    if !at(claim, "/spec/volumeMode").is_empty() {
        page.field(0, "VolumeMode", at(claim, "/spec/volumeMode"));
    }
    if let Some(source) = claim["spec"].get("dataSource") {
        page.line(0, "DataSource:");
        for (name, pointer) in [("APIGroup", "/apiGroup"), ("Kind", "/kind"), ("Name", "/name")] {
            page.field(1, name, at(source, pointer));
        }
    }
    let users: Vec<&str> = related.pods.iter().map(|pod| at(pod, "/metadata/name")).collect();
    for (number, user) in users.iter().enumerate() {
        page.line(0, &if number == 0 { format!("Used By:\t{user}") } else { format!("\t{user}") });
    }
    if users.is_empty() {
        page.field(0, "Used By", "<none>");
    }
    conditions(page, status);
}

fn finalizers(page: &mut Page, object: &Value) {
    let names: Vec<&str> = list(object, "/metadata/finalizers").iter().filter_map(Value::as_str).collect();
    page.field(0, "Finalizers", &format!("[{}]", names.join(" ")));
}

fn conditions(page: &mut Page, status: &Value) {
    let conditions = list(status, "/conditions");
    if conditions.is_empty() {
        return;
    }
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus\tLastProbeTime\tLastTransitionTime\tReason\tMessage");
    page.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for condition in conditions {
        let time = |field: &str| match super::time(&condition[field]) {
            unset if unset == "<unset>" => "Mon, 01 Jan 0001 00:00:00 +0000".to_owned(),
            time => time,
        };
        page.line(
            1,
            &format!(
                "{} \t{} \t{}\t{}\t{} \t{} ",
                at(condition, "/type"),
                at(condition, "/status"),
                time("lastProbeTime"),
                time("lastTransitionTime"),
                at(condition, "/reason"),
                at(condition, "/message")
            ),
        );
    }
}

/// A PersistentVolume.
pub(super) fn volume(page: &mut Page, volume: &Value) {
    let spec = &volume["spec"];
    page.field(0, "Name", at(volume, "/metadata/name"));
    page.labels("Labels", &volume["metadata"]["labels"]);
    page.annotations("Annotations", &volume["metadata"]["annotations"]);
    finalizers(page, volume);
    page.field(0, "StorageClass", at(spec, "/storageClassName"));
    let status =
        if volume["metadata"]["deletionTimestamp"].is_string() { "Terminating" } else { at(volume, "/status/phase") };
    page.field(0, "Status", status);
    match spec.get("claimRef") {
        Some(claim) => page.field(0, "Claim", &format!("{}/{}", at(claim, "/namespace"), at(claim, "/name"))),
        None => page.field(0, "Claim", ""),
    }
    page.field(0, "Reclaim Policy", at(spec, "/persistentVolumeReclaimPolicy"));
    page.field(0, "Access Modes", &access_modes(&spec["accessModes"]));
    if !at(spec, "/volumeMode").is_empty() {
        page.field(0, "VolumeMode", at(spec, "/volumeMode"));
    }
    page.field(0, "Capacity", at(spec, "/capacity/storage"));
    affinity(page, &spec["nodeAffinity"]);
    page.field(0, "Message", at(volume, "/status/message"));
    page.line(0, "Source:");
    source(page, spec);
}

fn affinity(page: &mut Page, affinity: &Value) {
    if affinity.is_null() || affinity["required"].is_null() {
        return page.field(0, "Node Affinity", "<none>");
    }
    page.line(0, "Node Affinity:\t");
    let terms = list(affinity, "/required/nodeSelectorTerms");
    page.line(1, &format!("Required Terms:\t{}", if terms.is_empty() { "<none>" } else { "" }));
    for (number, term) in terms.iter().enumerate() {
        let mut first = true;
        for expression in list(term, "/matchExpressions") {
            let values: Vec<&str> = list(expression, "/values").iter().filter_map(Value::as_str).collect();
            let operator = at(expression, "/operator");
            let shown = if values.is_empty() {
                operator.to_lowercase()
            } else {
                format!("{} [{}]", operator.to_lowercase(), values.join(", "))
            };
            let text = format!("{} {shown}", at(expression, "/key"));
            let head = if first { format!("Term {number}:\t") } else { "\t".to_owned() };
            page.line(2, &format!("{head}{text}"));
            first = false;
        }
        if first {
            page.line(2, &format!("Term {number}:\t<none>"));
        }
    }
}

fn source(page: &mut Page, spec: &Value) {
    let mut put = |name: &str, value: &str| page.field(2, name, value);
    let read_only = |source: &Value| (source["readOnly"] == true).to_string();
    if let Some(path) = spec.get("hostPath") {
        put("Type", "HostPath (bare host directory volume)");
        put("Path", at(path, "/path"));
        put("HostPathType", at(path, "/type"));
    } else if let Some(local) = spec.get("local") {
        put("Type", "LocalVolume (a persistent volume backed by local storage on a node)");
        put("Path", at(local, "/path"));
    } else if let Some(nfs) = spec.get("nfs") {
        put("Type", "NFS (an NFS mount that lasts the lifetime of a pod)");
        put("Server", at(nfs, "/server"));
        put("Path", at(nfs, "/path"));
        put("ReadOnly", &read_only(nfs));
    } else if let Some(csi) = spec.get("csi") {
        put("Type", "CSI (a Container Storage Interface (CSI) volume source)");
        put("Driver", at(csi, "/driver"));
        put("FSType", at(csi, "/fsType"));
        put("VolumeHandle", at(csi, "/volumeHandle"));
        put("ReadOnly", &read_only(csi));
        let attributes = crate::print::pairs(&csi["volumeAttributes"]);
        page.labels("    VolumeAttributes", &csi["volumeAttributes"]);
        let _ = attributes;
    } else {
        page.line(2, "<unknown>");
    }
}

/// A VolumeAttributesClass.
pub(super) fn attributes_class(page: &mut Page, class: &Value) {
    let joined = |map: &Value| crate::print::pairs(map).join(",");
    page.field(0, "Name", at(class, "/metadata/name"));
    page.field(0, "Annotations", or_none(&joined(&class["metadata"]["annotations"])));
    page.field(0, "DriverName", at(class, "/driverName"));
    page.field(0, "Parameters", or_none(&joined(&class["parameters"])));
}

/// A CSINode.
pub(super) fn csi_node(page: &mut Page, node: &Value) {
    page.field(0, "Name", at(node, "/metadata/name"));
    page.labels("Labels", &node["metadata"]["labels"]);
    page.annotations("Annotations", &node["metadata"]["annotations"]);
    page.field(0, "CreationTimestamp", &super::time(&node["metadata"]["creationTimestamp"]));
    page.line(0, "Spec:");
    if node["spec"]["drivers"].is_array() {
        page.line(1, "Drivers:");
    }
    for driver in list(node, "/spec/drivers") {
        page.line(2, &format!("{}:", at(driver, "/name")));
        page.field(3, "Node ID", at(driver, "/nodeID"));
        if let Some(count) = driver["allocatable"]["count"].as_i64() {
            page.line(3, "Allocatables:");
            page.field(4, "Count", &count.to_string());
        }
        if driver["topologyKeys"].is_array() {
            let keys: Vec<&str> = list(driver, "/topologyKeys").iter().filter_map(Value::as_str).collect();
            page.field(3, "Topology Keys", &format!("[{}]", keys.join(" ")));
        }
    }
}

/// A StorageClass.
pub(super) fn class(page: &mut Page, class: &Value) {
    let annotations = &class["metadata"]["annotations"];
    page.field(0, "Name", at(class, "/metadata/name"));
    let default = annotations["storageclass.kubernetes.io/is-default-class"] == "true"
        || annotations["storageclass.beta.kubernetes.io/is-default-class"] == "true";
    page.field(0, "IsDefaultClass", if default { "Yes" } else { "No" });
    let pairs = crate::print::pairs(annotations).join(",");
    page.field(0, "Annotations", or_none(&pairs));
    page.field(0, "Provisioner", at(class, "/provisioner"));
    let parameters = crate::print::pairs(&class["parameters"]).join(",");
    page.field(0, "Parameters", or_none(&parameters));
    page.field(
        0,
        "AllowVolumeExpansion",
        &class["allowVolumeExpansion"]
            .as_bool()
            .map_or("<unset>".to_owned(), |flag| if flag { "True".into() } else { "False".into() }),
    );
    let options: Vec<&str> = list(class, "/mountOptions").iter().filter_map(Value::as_str).collect();
    if options.is_empty() {
        page.field(0, "MountOptions", "<none>");
    } else {
        page.line(0, "MountOptions:");
        for option in options {
            page.line(1, option);
        }
    }
    page.field(0, "ReclaimPolicy", at(class, "/reclaimPolicy"));
    page.field(0, "VolumeBindingMode", at(class, "/volumeBindingMode"));
    if let Some(topologies) = class["allowedTopologies"].as_array() {
        page.line(0, "AllowedTopologies:");
        for topology in topologies {
            for expression in list(topology, "/matchLabelExpressions") {
                let values: Vec<&str> = list(expression, "/values").iter().filter_map(Value::as_str).collect();
                page.line(1, &format!("{} in [{}]", at(expression, "/key"), values.join(", ")));
            }
        }
    }
}
