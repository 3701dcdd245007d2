//! The roles and bindings that every cluster has, as data.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy`.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";
const READ: &str = "get,list,watch";
const WRITE: &str = "create,delete,deletecollection,patch,update";
const ALL: &str = "create,delete,deletecollection,get,list,patch,update,watch";

/// What reads usage; a part of `view`, `edit` and `admin`.
const METRICS_READER: &str = "system:aggregated-metrics-reader";
const AGGREGATED_TO_ALL: [&str; 3] = [
    "rbac.authorization.k8s.io/aggregate-to-admin",
    "rbac.authorization.k8s.io/aggregate-to-edit",
    "rbac.authorization.k8s.io/aggregate-to-view",
];

/// Verbs, API groups (`-` is core), resources.
type Rule = (&'static str, &'static str, &'static str);

const EVENTS: Rule = ("create,patch,update", "-,events.k8s.io", "events");
const HEALTH: &str = "/healthz,/livez,/readyz,/version,/version/";

/// One object's worth of rules on resources.
const ROLES: &[(&str, &[Rule])] = &[
    (
        "system:basic-user",
        &[
            ("create", "authorization.k8s.io", "selfsubjectaccessreviews,selfsubjectrulesreviews"),
            ("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    (
        "system:auth-delegator",
        &[
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    (
        "system:kubelet-api-admin",
        &[
            (READ, "-", "nodes"),
            ("proxy", "-", "nodes"),
            ("*", "-", "nodes/log,nodes/metrics,nodes/proxy,nodes/stats,nodes/healthz,nodes/pods,nodes/configz"),
        ],
    ),
    ("system:node-bootstrapper", &[("create,get,list,watch", "certificates.k8s.io", "certificatesigningrequests")]),
    ("system:node-problem-detector", &[("get", "-", "nodes"), ("patch", "-", "nodes/status"), EVENTS]),
    (
        "system:node-proxier",
        &[
            ("list,watch", "-", "services,endpoints"),
            ("get,list,watch", "-", "nodes"),
            EVENTS,
            ("list,watch", "discovery.k8s.io", "endpointslices"),
            ("list,watch", "networking.k8s.io", "servicecidrs"),
        ],
    ),
    (
        "system:kube-scheduler",
        &[
            EVENTS,
            ("create", "coordination.k8s.io", "leases"),
            ("get,list,update,watch", "coordination.k8s.io", "leases"),
            (READ, "-", "nodes"),
            ("delete,get,list,watch", "-", "pods"),
            ("create", "-", "bindings,pods/binding"),
            ("patch,update", "-", "pods/status"),
            (READ, "-", "replicationcontrollers,services,namespaces"),
            (READ, "apps", "replicasets,statefulsets"),
            (READ, "policy", "poddisruptionbudgets"),
            (READ, "-", "persistentvolumeclaims,persistentvolumes"),
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
            (READ, "storage.k8s.io", "csinodes,csidrivers,csistoragecapacities,volumeattachments"),
        ],
    ),
    (
        "system:volume-scheduler",
        &[
            ("get,list,patch,update,watch", "-", "persistentvolumes"),
            (READ, "storage.k8s.io", "storageclasses"),
            ("get,list,patch,update,watch", "-", "persistentvolumeclaims"),
        ],
    ),
    (
        "system:kube-controller-manager",
        &[
            EVENTS,
            ("create,get,list,update,watch", "coordination.k8s.io", "leases"),
            ("create", "-", "secrets,serviceaccounts"),
            ("delete", "-", "secrets"),
            ("get", "-", "namespaces,secrets,serviceaccounts,configmaps"),
            ("update", "-", "secrets,serviceaccounts"),
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
            ("list,watch", "*", "*"),
            ("create", "-", "serviceaccounts/token"),
        ],
    ),
    ("system:kube-dns", &[("list,watch", "-", "endpoints,services")]),
    (
        "system:coredns",
        &[
            ("list,watch", "-", "endpoints,services,pods,namespaces"),
            ("list,watch", "discovery.k8s.io", "endpointslices"),
        ],
    ),
    // Ours: the Service of the cluster's DNS; bound within kube-system only.
    (
        "system:controller:cluster-dns",
        &[("create,get", "-", "services"), ("create,get", "discovery.k8s.io", "endpointslices")],
    ),
    (
        "system:persistent-volume-provisioner",
        &[
            ("create,delete,get,list,watch", "-", "persistentvolumes"),
            ("get,list,update,watch", "-", "persistentvolumeclaims"),
            (READ, "storage.k8s.io", "storageclasses"),
            ("watch", "-", "events"),
            EVENTS,
        ],
    ),
    ("system:certificates.k8s.io:kube-apiserver-client-approver", &[("approve", "certificates.k8s.io", "signers")]),
    ("system:certificates.k8s.io:kubelet-serving-approver", &[("approve", "certificates.k8s.io", "signers")]),
    (
        "system:aggregate-to-view",
        &[
            (
                READ,
                "-",
                "configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status",
            ),
            (
                READ,
                "-",
                "bindings,events,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,resourcequotas,resourcequotas/status",
            ),
            (READ, "-", "namespaces"),
            (READ, "discovery.k8s.io", "endpointslices"),
            (
                READ,
                "apps",
                "controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status",
            ),
            (READ, "autoscaling", "horizontalpodautoscalers,horizontalpodautoscalers/status"),
            (READ, "batch", "cronjobs,cronjobs/status,jobs,jobs/status"),
            (READ, "policy", "poddisruptionbudgets,poddisruptionbudgets/status"),
            (READ, "networking.k8s.io", "ingresses,ingresses/status,networkpolicies"),
        ],
    ),
    (
        "system:aggregate-to-edit",
        &[
            (READ, "-", "pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy"),
            ("impersonate", "-", "serviceaccounts"),
            (WRITE, "-", "pods,pods/attach,pods/exec,pods/portforward,pods/proxy"),
            ("create", "-", "pods/eviction"),
            (
                WRITE,
                "-",
                "configmaps,events,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,services,services/proxy",
            ),
            ("create", "-", "serviceaccounts/token"),
            (
                WRITE,
                "apps",
                "daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,statefulsets,statefulsets/scale",
            ),
            (WRITE, "autoscaling", "horizontalpodautoscalers"),
            (WRITE, "batch", "cronjobs,jobs"),
            (WRITE, "policy", "poddisruptionbudgets"),
            (WRITE, "networking.k8s.io", "ingresses,networkpolicies"),
            (ALL, "coordination.k8s.io", "leases"),
        ],
    ),
    // Upstream's metrics-server brings it along.
    (METRICS_READER, &[(READ, "metrics.k8s.io", "nodes,pods")]),
    (
        "system:aggregate-to-admin",
        &[
            ("create", "authorization.k8s.io", "localsubjectaccessreviews"),
            (ALL, "rbac.authorization.k8s.io", "roles,rolebindings"),
        ],
    ),
];

/// What a node needs beside what its own pods bring with them.
const NODE: &[Rule] = &[
    ("create", "authentication.k8s.io", "tokenreviews"),
    ("create", "authorization.k8s.io", "subjectaccessreviews,localsubjectaccessreviews"),
    (READ, "-", "services"),
    ("create,get,list,patch,update,watch", "-", "nodes"),
    ("patch,update", "-", "nodes/status"),
    EVENTS,
    (READ, "-", "pods"),
    ("create,delete", "-", "pods"),
    ("patch,update", "-", "pods/status"),
    ("create", "-", "pods/eviction"),
    ("get", "-", "endpoints"),
    ("create,get,list,watch", "certificates.k8s.io", "certificatesigningrequests"),
    (READ, "storage.k8s.io", "csidrivers"),
    (READ, "node.k8s.io", "runtimeclasses"),
    (READ, "discovery.k8s.io", "endpointslices"),
];

/// What only the node authoriser grants by relation; the role names it for clusters that bind it by hand.
const NODE_RELATED: &[Rule] = &[
    (READ, "-", "configmaps,secrets"),
    ("get", "-", "persistentvolumeclaims,persistentvolumes"),
    ("get,patch,update", "-", "persistentvolumeclaims/status"),
    ("create", "-", "serviceaccounts/token"),
    ("create,delete,get,patch,update", "coordination.k8s.io", "leases"),
    ("get", "storage.k8s.io", "volumeattachments"),
    ("create,delete,get,patch,update", "storage.k8s.io", "csinodes"),
];

/// The controllers, each with its own account in `kube-system`.
const CONTROLLERS: &[(&str, &[Rule])] = &[
    (
        "attachdetach-controller",
        &[
            ("list,watch", "-", "persistentvolumes,persistentvolumeclaims"),
            (READ, "-", "nodes"),
            ("patch,update", "-", "nodes/status"),
            ("list,watch", "-", "pods"),
            (ALL, "storage.k8s.io", "volumeattachments"),
            (READ, "storage.k8s.io", "csidrivers,csinodes"),
            EVENTS,
        ],
    ),
    (
        "certificate-controller",
        &[
            ("delete,get,list,watch", "certificates.k8s.io", "certificatesigningrequests"),
            ("update", "certificates.k8s.io", "certificatesigningrequests/approval,certificatesigningrequests/status"),
            ("approve,sign", "certificates.k8s.io", "signers"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
            EVENTS,
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &[("escalate,get,list,patch,update,watch", "rbac.authorization.k8s.io", "clusterroles")],
    ),
    (
        "cronjob-controller",
        &[
            ("get,list,update,watch", "batch", "cronjobs"),
            (ALL, "batch", "jobs"),
            ("update", "batch", "cronjobs/status,cronjobs/finalizers"),
            ("delete,list", "-", "pods"),
            EVENTS,
        ],
    ),
    (
        "daemon-set-controller",
        &[
            (READ, "apps", "daemonsets"),
            ("update", "apps", "daemonsets/status,daemonsets/finalizers"),
            ("list,watch", "-", "nodes"),
            ("create,delete,list,patch,watch", "-", "pods"),
            ("create,delete,get,list,patch,update,watch", "apps", "controllerrevisions"),
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            ("get,list,update,watch", "apps", "deployments"),
            ("update", "apps", "deployments/status,deployments/finalizers"),
            ("create,delete,get,list,patch,update,watch", "apps", "replicasets"),
            ("get,list,update,watch", "-", "pods"),
            // Ours: annotations and selector labels are patched.
            ("patch", "apps", "deployments"),
            EVENTS,
        ],
    ),
    (
        "disruption-controller",
        &[
            (READ, "apps", "deployments,replicasets,statefulsets"),
            (READ, "-", "replicationcontrollers"),
            (READ, "policy", "poddisruptionbudgets"),
            ("update", "policy", "poddisruptionbudgets/status"),
            (READ, "-", "pods"),
            ("patch,update", "-", "pods/status"),
            ("get", "*", "*/scale"),
            EVENTS,
        ],
    ),
    (
        "endpoint-controller",
        &[
            (READ, "-", "services,pods"),
            ("create,delete,get,list,update", "-", "endpoints"),
            ("create", "-", "endpoints/restricted"),
            EVENTS,
        ],
    ),
    (
        "endpointslice-controller",
        &[
            (READ, "-", "services,pods,nodes"),
            ("update", "-", "services/finalizers"),
            ("create,delete,get,list,update", "discovery.k8s.io", "endpointslices"),
            ("create", "discovery.k8s.io", "endpointslices/restricted"),
            EVENTS,
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            (READ, "-", "services,endpoints"),
            ("update", "-", "services/finalizers,endpoints/finalizers"),
            ("create,delete,get,list,update", "discovery.k8s.io", "endpointslices"),
            ("create", "discovery.k8s.io", "endpointslices/restricted"),
            EVENTS,
        ],
    ),
    (
        "ephemeral-volume-controller",
        &[
            ("update", "-", "pods/finalizers"),
            (READ, "-", "pods"),
            ("create,get,list,watch", "-", "persistentvolumeclaims"),
            EVENTS,
        ],
    ),
    (
        "expand-controller",
        &[
            ("get,list,patch,update,watch", "-", "persistentvolumes"),
            ("patch,update", "-", "persistentvolumeclaims/status"),
            (READ, "-", "persistentvolumeclaims"),
            (READ, "storage.k8s.io", "storageclasses"),
            EVENTS,
        ],
    ),
    ("generic-garbage-collector", &[("delete,get,list,patch,update,watch", "*", "*"), EVENTS]),
    (
        "horizontal-pod-autoscaler",
        &[
            (READ, "autoscaling", "horizontalpodautoscalers"),
            ("update", "autoscaling", "horizontalpodautoscalers/status"),
            ("get,update", "*", "*/scale"),
            ("list", "-", "pods"),
            ("list", "metrics.k8s.io", "pods"),
            EVENTS,
        ],
    ),
    (
        "job-controller",
        &[
            ("get,list,patch,update,watch", "batch", "jobs"),
            ("update", "batch", "jobs/status,jobs/finalizers"),
            ("create,delete,list,patch,watch", "-", "pods"),
            // Ours: it also ends Jobs whose time is over, upstream's ttl-after-finished-controller.
            ("delete", "batch", "jobs"),
            EVENTS,
        ],
    ),
    (
        "namespace-controller",
        &[
            ("delete,get,list,watch", "-", "namespaces"),
            ("update", "-", "namespaces/finalize,namespaces/status"),
            ("delete,deletecollection,get,list", "*", "*"),
        ],
    ),
    (
        "node-controller",
        &[
            ("delete,get,list,patch,update", "-", "nodes"),
            ("patch,update", "-", "nodes/status"),
            ("patch,update", "-", "pods/status"),
            ("delete,get,list", "-", "pods"),
            EVENTS,
        ],
    ),
    (
        "persistent-volume-binder",
        &[
            ("create,delete,get,list,update,watch", "-", "persistentvolumes"),
            ("update", "-", "persistentvolumes/status"),
            ("get,list,update,watch", "-", "persistentvolumeclaims"),
            ("update", "-", "persistentvolumeclaims/status"),
            ("create,delete,get,list,watch", "-", "pods"),
            (READ, "storage.k8s.io", "storageclasses"),
            ("get,list", "-", "nodes"),
            EVENTS,
        ],
    ),
    (
        "pod-garbage-collector",
        &[("delete,list,watch", "-", "pods"), ("get,list", "-", "nodes"), ("patch,update", "-", "pods/status")],
    ),
    ("pv-protection-controller", &[("get,list,update,watch", "-", "persistentvolumes"), EVENTS]),
    (
        "pvc-protection-controller",
        &[("get,list,update,watch", "-", "persistentvolumeclaims"), (READ, "-", "pods"), EVENTS],
    ),
    (
        "replicaset-controller",
        &[
            ("get,list,update,watch", "apps", "replicasets"),
            ("update", "apps", "replicasets/status,replicasets/finalizers"),
            ("create,delete,list,patch,watch", "-", "pods"),
            EVENTS,
        ],
    ),
    (
        "replication-controller",
        &[
            ("get,list,update,watch", "-", "replicationcontrollers"),
            ("update", "-", "replicationcontrollers/status,replicationcontrollers/finalizers"),
            ("create,delete,list,patch,watch", "-", "pods"),
            EVENTS,
        ],
    ),
    ("resourcequota-controller", &[("list,watch", "*", "*"), ("update", "-", "resourcequotas/status"), EVENTS]),
    ("root-ca-cert-publisher", &[("create,update", "-", "configmaps"), EVENTS]),
    ("service-account-controller", &[("create", "-", "serviceaccounts"), EVENTS]),
    (
        "statefulset-controller",
        &[
            ("list,watch", "-", "pods"),
            (READ, "apps", "statefulsets"),
            ("update", "apps", "statefulsets/status,statefulsets/finalizers"),
            ("create,delete,get,patch,update", "-", "pods"),
            ("create,delete,get,list,patch,update,watch", "apps", "controllerrevisions"),
            ("create,get", "-", "persistentvolumeclaims"),
            ("delete,patch,update", "-", "persistentvolumeclaims"),
            // Ours: roll-outs that ask the disruption budgets.
            ("create", "-", "pods/eviction"),
            // Ours: a set that is being deleted is held by a finalizer until its claims are settled.
            ("patch", "apps", "statefulsets"),
            EVENTS,
        ],
    ),
    // Ours: the class and the directories of local volumes.
    (
        "local-provisioner",
        &[
            ("create", "storage.k8s.io", "storageclasses,csidrivers"),
            // What the side-cars of storage drivers may do upstream.
            (READ, "-", "nodes"),
            ("patch,update", "-", "persistentvolumes"),
            ("patch,update", "-", "persistentvolumeclaims/status"),
            (READ, "storage.k8s.io", "csidrivers,csinodes"),
            ("get,list,patch,update,watch", "storage.k8s.io", "volumeattachments"),
            ("patch,update", "storage.k8s.io", "volumeattachments/status"),
            EVENTS,
        ],
    ),
    ("ttl-after-finished-controller", &[("delete,get,list,watch", "batch", "jobs"), EVENTS]),
    ("ttl-controller", &[("list,patch,update,watch", "-", "nodes"), EVENTS]),
];

/// Cluster role, kind of the subject, its name.
const BINDINGS: &[(&str, &str, &str)] = &[
    ("cluster-admin", "Group", "system:masters"),
    ("system:discovery", "Group", "system:authenticated"),
    ("system:basic-user", "Group", "system:authenticated"),
    ("system:public-info-viewer", "Group", "system:authenticated,system:unauthenticated"),
    ("system:monitoring", "Group", "system:monitoring"),
    ("system:node-proxier", "User", "system:kube-proxy"),
    ("system:kube-controller-manager", "User", "system:kube-controller-manager"),
    ("system:kube-scheduler", "User", "system:kube-scheduler"),
    ("system:volume-scheduler", "User", "system:kube-scheduler"),
    ("system:service-account-issuer-discovery", "Group", "system:serviceaccounts"),
];

fn list(text: &str) -> Value {
    text.split(',').map(|item| json!(if item == "-" { "" } else { item })).collect()
}

fn rule(rule: &Rule) -> Value {
    json!({"verbs": list(rule.0), "apiGroups": list(rule.1), "resources": list(rule.2)})
}

fn paths(urls: &str) -> Value {
    json!({"verbs": ["get"], "nonResourceURLs": list(urls)})
}

fn metadata(name: &str, labels: &[&str]) -> Value {
    let mut all = Map::new();
    all.insert("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".into());
    for label in labels {
        all.insert((*label).to_owned(), "true".into());
    }
    json!({"name": name, "labels": all, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}})
}

fn role(name: &str, labels: &[&str], rules: Vec<Value>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": metadata(name, labels), "rules": rules,
    })
}

fn binding(name: &str, role: &str, subjects: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": metadata(name, &[]),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}, "subjects": subjects,
    })
}

/// Rules of one of the roles above.
fn rules_of(name: &str) -> Vec<Value> {
    ROLES.iter().find(|(role, _)| *role == name).map(|(_, rules)| rules.iter().map(rule).collect()).unwrap_or_default()
}

/// `view`, `edit` and `admin`: each is the sum of what is labelled for it and for the lesser ones.
fn aggregated() -> Vec<Value> {
    let to = |name: &str| format!("rbac.authorization.k8s.io/aggregate-to-{name}");
    let parts = [("view", vec!["view"]), ("edit", vec!["edit", "view"]), ("admin", vec!["admin", "edit", "view"])];
    let mut out = Vec::new();
    for (i, (name, from)) in parts.iter().enumerate() {
        let roles = from.iter().map(|part| format!("system:aggregate-to-{part}"));
        let rules = roles.chain([METRICS_READER.to_owned()]).flat_map(|role| rules_of(&role)).collect();
        let labels: Vec<String> = parts.get(i + 1).map(|(next, _)| to(next)).into_iter().collect();
        let mut role = role(name, &labels.iter().map(String::as_str).collect::<Vec<_>>(), rules);
        role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {to(name): "true"}}]});
        out.push(role);
    }
    out
}

fn plain_roles() -> Vec<Value> {
    let mut out = vec![
        role(
            "cluster-admin",
            &[],
            vec![
                json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
                json!({"verbs": ["*"], "nonResourceURLs": ["*"]}),
            ],
        ),
        role("system:discovery", &[], vec![paths(&format!("/api,/api/*,/apis,/apis/*,{HEALTH},/openapi,/openapi/*"))]),
        role("system:public-info-viewer", &[], vec![paths(HEALTH)]),
        role(
            "system:monitoring",
            &[],
            vec![paths("/healthz,/healthz/*,/livez,/livez/*,/metrics,/metrics/slis,/readyz,/readyz/*")],
        ),
        role(
            "system:service-account-issuer-discovery",
            &[],
            vec![paths(
                "/.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/",
            )],
        ),
        role("system:node", &[], NODE.iter().chain(NODE_RELATED).map(rule).collect()),
    ];
    for (name, rules) in ROLES {
        let label =
            name.strip_prefix("system:aggregate-to-").map(|to| format!("rbac.authorization.k8s.io/aggregate-to-{to}"));
        let mut labels: Vec<&str> = label.iter().map(String::as_str).collect();
        if *name == METRICS_READER {
            labels.extend(AGGREGATED_TO_ALL);
        }
        let mut role = role(name, &labels, rules.iter().map(rule).collect());
        if *name == "system:certificates.k8s.io:kube-apiserver-client-approver" {
            role["rules"][0]["resourceNames"] = json!(["kubernetes.io/kube-apiserver-client"]);
        }
        if *name == "system:certificates.k8s.io:kubelet-serving-approver" {
            role["rules"][0]["resourceNames"] = json!(["kubernetes.io/kubelet-serving"]);
        }
        out.push(role);
    }
    out
}

/// Everything that a new cluster gets, to be created where it is missing.
#[must_use]
pub fn objects() -> Vec<Value> {
    let mut out = plain_roles();
    out.extend(aggregated());
    for (role, kind, names) in BINDINGS {
        let subjects: Value =
            names.split(',').map(|name| json!({"apiGroup": GROUP, "kind": kind, "name": name})).collect();
        out.push(binding(role, role, &subjects));
    }
    let account = |name: &str| json!([{"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}]);
    out.push(binding("system:kube-dns", "system:kube-dns", &account("kube-dns")));
    out.push(binding("system:coredns", "system:coredns", &account("coredns")));
    out.push(binding(
        "system:local-provisioner",
        "system:persistent-volume-provisioner",
        &account("local-provisioner"),
    ));
    let mut dns = binding("system:controller:cluster-dns", "system:controller:cluster-dns", &account("cluster-dns"));
    dns["kind"] = "RoleBinding".into();
    dns["metadata"]["namespace"] = "kube-system".into();
    out.push(dns);
    out.push(binding("system:node", "system:node", &json!([])));
    for (name, rules) in CONTROLLERS {
        let full = format!("system:controller:{name}");
        out.push(role(&full, &[], rules.iter().map(rule).collect()));
        out.push(binding(&full, &full, &account(name)));
    }
    out
}

static NODE_RULES: LazyLock<Vec<Value>> = LazyLock::new(|| NODE.iter().map(rule).collect());

/// What every node may do without relation to a pod.
pub(super) fn node_rules() -> &'static [Value] {
    &NODE_RULES
}
