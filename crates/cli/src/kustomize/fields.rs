//! Fields by path, in objects whose lists are not told apart from their items; and which fields of which kinds each
//! transformation changes.
//!
//! Source of the tables: `sigs.k8s.io/kustomize/api/internal/konfig/builtinpluginconsts`.

use serde_json::{Map, Value};

use super::resource::{Id, Kinds};

/// A field of some kinds.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) kinds: Kinds<'a>,
    /// Names with slashes between; `[]` behind one says that it is a list, `\/` is part of a name.
    pub(super) path: String,
    /// Whether it is made where it is not there.
    pub(super) create: bool,
}

impl Field<'static> {
    fn of(group: &'static str, version: &'static str, kind: &'static str, path: &str, create: bool) -> Self {
        Self { kinds: Kinds { group, version, kind }, path: path.to_owned(), create }
    }
}

impl Field<'_> {
    /// Calls `set` with the field of an object, if it has it or it is to be made of `new`.
    pub(super) fn set(&self, object: &mut Value, new: &Value, set: &mut impl FnMut(&mut Value)) {
        if Id::of(object).is_of(self.kinds) {
            visit(object, &parts(&self.path), self.create.then_some(new), set);
        }
    }
}

/// The names of a path.
fn parts(path: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = path.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'/') => {
                let last = parts.last_mut();
                last.into_iter().for_each(|part| part.push('/'));
                let _ = chars.next();
            }
            '/' => parts.push(String::new()),
            c => parts.last_mut().into_iter().for_each(|part| part.push(c)),
        }
    }
    parts
}

/// Goes along a path, through every item of the lists on its way.
fn visit(value: &mut Value, path: &[String], create: Option<&Value>, set: &mut impl FnMut(&mut Value)) {
    let Some((first, rest)) = path.split_first() else { return set(value) };
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, path, create, set)),
        Value::Object(map) => {
            let (name, is_list) = first.strip_suffix("[]").map_or((&**first, false), |name| (name, true));
            if map.get(name).is_none_or(Value::is_null) {
                let Some(new) = create.filter(|_| !is_list) else { return };
                let made = if rest.is_empty() { new.clone() } else { Value::Object(Map::new()) };
                map.insert(name.to_owned(), made);
            }
            if let Some(inner) = map.get_mut(name) {
                visit(inner, rest, create, set);
            }
        }
        _ => {}
    }
}

/// Calls `set` with what a path leads to; nothing is made.
pub(super) fn each(object: &mut Value, path: &str, set: &mut impl FnMut(&mut Value)) {
    visit(object, &parts(path), None, set);
}

/// `labels` or `annotations` of the objects themselves.
pub(super) fn metadata(what: &str) -> Field<'static> {
    Field::of("", "", "", &format!("metadata/{what}"), true)
}

/// The same of the templates in them.
pub(super) fn templates(what: &str) -> Vec<Field<'static>> {
    const TEMPLATES: &[(&str, &str, &str, &str)] = &[
        ("", "v1", "ReplicationController", "spec/template/metadata"),
        ("", "", "Deployment", "spec/template/metadata"),
        ("", "", "ReplicaSet", "spec/template/metadata"),
        ("", "", "DaemonSet", "spec/template/metadata"),
        ("apps", "", "StatefulSet", "spec/template/metadata"),
        ("batch", "", "Job", "spec/template/metadata"),
        ("batch", "", "CronJob", "spec/jobTemplate/metadata"),
        ("batch", "", "CronJob", "spec/jobTemplate/spec/template/metadata"),
    ];
    let field = |&(group, version, kind, path): &(&'static str, &'static str, &'static str, &str)| {
        Field::of(group, version, kind, &format!("{path}/{what}"), true)
    };
    TEMPLATES.iter().map(field).collect()
}

/// The labels of a set's claims.
pub(super) fn claims() -> Field<'static> {
    Field::of("apps", "", "StatefulSet", "spec/volumeClaimTemplates[]/metadata/labels", true)
}

/// Where labels select.
pub(super) fn selectors() -> Vec<Field<'static>> {
    const SELECTORS: &[(&str, &str, &str, &str, bool)] = &[
        ("", "v1", "Service", "spec/selector", true),
        ("", "v1", "ReplicationController", "spec/selector", true),
        ("", "", "Deployment", "spec/selector/matchLabels", true),
        ("", "", "ReplicaSet", "spec/selector/matchLabels", true),
        ("", "", "DaemonSet", "spec/selector/matchLabels", true),
        ("apps", "", "StatefulSet", "spec/selector/matchLabels", true),
        ("batch", "", "Job", "spec/selector/matchLabels", false),
        ("batch", "", "CronJob", "spec/jobTemplate/spec/selector/matchLabels", false),
        ("policy", "", "PodDisruptionBudget", "spec/selector/matchLabels", false),
        ("networking.k8s.io", "", "NetworkPolicy", "spec/podSelector/matchLabels", false),
        ("networking.k8s.io", "", "NetworkPolicy", "spec/ingress/from/podSelector/matchLabels", false),
        ("networking.k8s.io", "", "NetworkPolicy", "spec/egress/to/podSelector/matchLabels", false),
    ];
    const NEAR: &[&str] = &[
        "affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm",
        "affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution",
        "affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm",
        "affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution",
        "topologySpreadConstraints",
    ];
    let mut fields: Vec<Field<'static>> = SELECTORS
        .iter()
        .map(|&(group, version, kind, path, create)| Field::of(group, version, kind, path, create))
        .collect();
    for kind in ["Deployment", "StatefulSet"] {
        let near = |near: &&str| {
            Field::of("apps", "", kind, &format!("spec/template/spec/{near}/labelSelector/matchLabels"), false)
        };
        fields.extend(NEAR.iter().map(near));
    }
    fields
}

/// Where a namespace stands beside the objects' own.
pub(super) fn namespaces() -> Vec<Field<'static>> {
    vec![
        Field::of("", "v1", "Namespace", "metadata/name", true),
        Field::of("apiregistration.k8s.io", "", "APIService", "spec/service/namespace", true),
        Field::of(
            "apiextensions.k8s.io",
            "",
            "CustomResourceDefinition",
            "spec/conversion/webhook/clientConfig/service/namespace",
            false,
        ),
    ]
}

/// The kinds whose `spec.replicas` is set by name, in upstream's order.
pub(super) const REPLICATED: [&str; 4] = ["Deployment", "StatefulSet", "ReplicaSet", "ReplicationController"];

/// A field of some kinds that names an object of another kind.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) to: Kinds<'static>,
    pub(super) by: Field<'static>,
}

/// Kinds, and where pods are described in them.
type Carriers = &'static [(&'static str, &'static str)];

const PODS: Carriers = &[
    ("Pod", "spec"),
    ("PodTemplate", "template/spec"),
    ("Deployment", "spec/template/spec"),
    ("ReplicaSet", "spec/template/spec"),
    ("DaemonSet", "spec/template/spec"),
    ("StatefulSet", "spec/template/spec"),
    ("Job", "spec/template/spec"),
    ("CronJob", "spec/jobTemplate/spec/template/spec"),
];
/// The same for some references.
const SOME_PODS: Carriers = &[
    ("Pod", "spec"),
    ("StatefulSet", "spec/template/spec"),
    ("Deployment", "spec/template/spec"),
    ("ReplicationController", "spec/template/spec"),
    ("CronJob", "spec/jobTemplate/spec/template/spec"),
    ("Job", "spec/template/spec"),
    ("DaemonSet", "spec/template/spec"),
];
/// Kind referred to, where the referrers' pods are described, and the field there.
const BY_PODS: &[(&str, Carriers, &str)] = &[
    ("ConfigMap", PODS, "volumes/configMap/name"),
    ("ConfigMap", PODS, "containers/env/valueFrom/configMapKeyRef/name"),
    ("ConfigMap", PODS, "initContainers/env/valueFrom/configMapKeyRef/name"),
    ("ConfigMap", PODS, "containers/envFrom/configMapRef/name"),
    ("ConfigMap", PODS, "initContainers/envFrom/configMapRef/name"),
    ("ConfigMap", PODS, "volumes/projected/sources/configMap/name"),
    ("Secret", PODS, "volumes/secret/secretName"),
    ("Secret", PODS, "containers/env/valueFrom/secretKeyRef/name"),
    ("Secret", PODS, "initContainers/env/valueFrom/secretKeyRef/name"),
    ("Secret", PODS, "containers/envFrom/secretRef/name"),
    ("Secret", PODS, "initContainers/envFrom/secretRef/name"),
    ("Secret", PODS, "imagePullSecrets/name"),
    ("Secret", PODS, "volumes/projected/sources/secret/name"),
    ("ServiceAccount", SOME_PODS, "serviceAccountName"),
    ("PersistentVolumeClaim", SOME_PODS, "volumes/persistentVolumeClaim/claimName"),
    ("PriorityClass", SOME_PODS, "priorityClassName"),
];
/// Kind referred to; group and kind of the referrer; the field.
const BY_OTHERS: &[(&str, &str, &str, &str)] = &[
    ("Deployment", "", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
    ("ReplicationController", "", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
    ("ReplicaSet", "", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
    ("StatefulSet", "", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
    ("ConfigMap", "", "Node", "spec/configSource/configMap"),
    ("ConfigMap", "", "Role", "rules/resourceNames"),
    ("ConfigMap", "", "ClusterRole", "rules/resourceNames"),
    ("ConfigMap", "", "Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/fastcgi-params-configmap"),
    ("Secret", "", "Ingress", "spec/tls/secretName"),
    ("Secret", "", "Ingress", "metadata/annotations/ingress.kubernetes.io\\/auth-secret"),
    ("Secret", "", "Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-secret"),
    ("Secret", "", "Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-tls-secret"),
    ("Secret", "", "ServiceAccount", "imagePullSecrets/name"),
    ("Secret", "", "StorageClass", "parameters/secretName"),
    ("Secret", "", "StorageClass", "parameters/adminSecretName"),
    ("Secret", "", "StorageClass", "parameters/userSecretName"),
    ("Secret", "", "StorageClass", "parameters/secretRef"),
    ("Secret", "", "Role", "rules/resourceNames"),
    ("Secret", "", "ClusterRole", "rules/resourceNames"),
    ("Secret", "", "PersistentVolume", "spec/azureFile/secretName"),
    ("Service", "apps", "StatefulSet", "spec/serviceName"),
    ("Service", "", "Ingress", "spec/rules/http/paths/backend/serviceName"),
    ("Service", "", "Ingress", "spec/backend/serviceName"),
    ("Service", "", "Ingress", "spec/rules/http/paths/backend/service/name"),
    ("Service", "", "Ingress", "spec/defaultBackend/service/name"),
    ("Service", "apiregistration.k8s.io", "APIService", "spec/service/name"),
    ("Service", "admissionregistration.k8s.io", "ValidatingWebhookConfiguration", "webhooks/clientConfig/service"),
    ("Service", "admissionregistration.k8s.io", "MutatingWebhookConfiguration", "webhooks/clientConfig/service"),
    ("Role", "rbac.authorization.k8s.io", "RoleBinding", "roleRef/name"),
    ("ClusterRole", "rbac.authorization.k8s.io", "RoleBinding", "roleRef/name"),
    ("ClusterRole", "rbac.authorization.k8s.io", "ClusterRoleBinding", "roleRef/name"),
    ("ServiceAccount", "rbac.authorization.k8s.io", "RoleBinding", "subjects"),
    ("ServiceAccount", "rbac.authorization.k8s.io", "ClusterRoleBinding", "subjects"),
    ("PersistentVolume", "", "PersistentVolumeClaim", "spec/volumeName"),
    ("PersistentVolume", "", "ClusterRole", "rules/resourceNames"),
    ("StorageClass", "", "PersistentVolume", "spec/storageClassName"),
    ("StorageClass", "", "PersistentVolumeClaim", "spec/storageClassName"),
    ("StorageClass", "", "StatefulSet", "spec/volumeClaimTemplates/spec/storageClassName"),
];

/// All references that are known.
pub(super) fn references() -> Vec<Reference> {
    let to = |kind: &'static str| match kind {
        "Role" | "ClusterRole" => Kinds { group: "rbac.authorization.k8s.io", version: "", kind },
        "StorageClass" => Kinds { group: "storage.k8s.io", version: "v1", kind },
        "PriorityClass" => Kinds { group: "scheduling.k8s.io", version: "v1", kind },
        "Deployment" | "ReplicationController" | "ReplicaSet" | "StatefulSet" => Kinds { kind, ..Kinds::default() },
        _ => Kinds { group: "", version: "v1", kind },
    };
    let mut references = Vec::new();
    for &(kind, carriers, field) in BY_PODS {
        for &(carrier, path) in carriers {
            let by = Field::of("", "", carrier, &format!("{path}/{field}"), false);
            references.push(Reference { to: to(kind), by });
        }
    }
    for &(kind, group, referrer, path) in BY_OTHERS {
        references.push(Reference { to: to(kind), by: Field::of(group, "", referrer, path, false) });
    }
    references
}
