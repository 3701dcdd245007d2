//! The table of kinds: every stable kind of the Kubernetes version that the types are of.
//!
//! Groups stand in upstream's order of preference; within a group the preferred version of a resource comes first.
//! Source: upstream's discovery documents and `pkg/registry/*/rest`; selectable fields from the kinds' field label conversions.

use crate::columns::{self, access, cluster, headings, network, pods, storage, usage, workloads};
use crate::kinds::Subresource::{
    Approval, Attach, Binding, EphemeralContainers, Eviction, Exec, Finalize, Log, PortForward, Proxy, Resize, Scale,
    Status, Token,
};
use crate::kinds::{Cells, Column, GroupVersion, Kind, Origin, Scope, Subresource};

const NS: Scope = Scope::Namespaced;
const CLUSTER: Scope = Scope::Cluster;

/// Every kind that is served.
pub static KINDS: &[Kind] = &[
    // core
    row("", "v1", "Pod", "pods", "pod", NS, "io.k8s.api.core.v1.Pod")
        .short(&["po"])
        .category(&["all"])
        .with(&[Attach, Binding, EphemeralContainers, Eviction, Exec, Log, PortForward, Proxy, Resize, Status])
        .select(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ])
        .table(headings::POD, pods::pod),
    row("", "v1", "Service", "services", "service", NS, "io.k8s.api.core.v1.Service")
        .short(&["svc"])
        .category(&["all"])
        .with(&[Proxy, Status])
        .select(&["spec.clusterIP", "spec.type"])
        .table(headings::SERVICE, network::service),
    row("", "v1", "Endpoints", "endpoints", "endpoints", NS, "io.k8s.api.core.v1.Endpoints")
        .short(&["ep"])
        .table(headings::ENDPOINTS, network::endpoints),
    row("", "v1", "Namespace", "namespaces", "namespace", CLUSTER, "io.k8s.api.core.v1.Namespace")
        .short(&["ns"])
        .with(&[Finalize, Status])
        .select(&["status.phase"])
        .table(headings::NAMESPACE, cluster::namespace),
    row("", "v1", "Node", "nodes", "node", CLUSTER, "io.k8s.api.core.v1.Node")
        .short(&["no"])
        .with(&[Proxy, Status])
        .select(&["spec.unschedulable"])
        .table(headings::NODE, cluster::node),
    row(
        "",
        "v1",
        "PersistentVolume",
        "persistentvolumes",
        "persistentvolume",
        CLUSTER,
        "io.k8s.api.core.v1.PersistentVolume",
    )
    .short(&["pv"])
    .with(&[Status])
    .table(headings::PERSISTENT_VOLUME, storage::persistent_volume),
    row(
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        "persistentvolumeclaim",
        NS,
        "io.k8s.api.core.v1.PersistentVolumeClaim",
    )
    .short(&["pvc"])
    .with(&[Status])
    .table(headings::CLAIM, storage::claim),
    row("", "v1", "ConfigMap", "configmaps", "configmap", NS, "io.k8s.api.core.v1.ConfigMap")
        .short(&["cm"])
        .table(headings::CONFIG_MAP, cluster::config_map),
    row("", "v1", "Secret", "secrets", "secret", NS, "io.k8s.api.core.v1.Secret")
        .select(&["type"])
        .table(headings::SECRET, cluster::secret),
    row("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", NS, "io.k8s.api.core.v1.ServiceAccount")
        .short(&["sa"])
        .with(&[Token])
        .table(headings::SERVICE_ACCOUNT, cluster::service_account),
    row("", "v1", "Event", "events", "event", NS, "io.k8s.api.core.v1.Event")
        .short(&["ev"])
        .select(&[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ])
        .table(headings::EVENT, cluster::event),
    row("", "v1", "LimitRange", "limitranges", "limitrange", NS, "io.k8s.api.core.v1.LimitRange").short(&["limits"]),
    row("", "v1", "ResourceQuota", "resourcequotas", "resourcequota", NS, "io.k8s.api.core.v1.ResourceQuota")
        .short(&["quota"])
        .with(&[Status])
        .table(headings::QUOTA, cluster::resource_quota),
    row(
        "",
        "v1",
        "ReplicationController",
        "replicationcontrollers",
        "replicationcontroller",
        NS,
        "io.k8s.api.core.v1.ReplicationController",
    )
    .short(&["rc"])
    .category(&["all"])
    .with(&[Scale, Status])
    .select(&["status.replicas"])
    .table(headings::REPLICATION_CONTROLLER, workloads::replication_controller),
    row("", "v1", "PodTemplate", "podtemplates", "podtemplate", NS, "io.k8s.api.core.v1.PodTemplate")
        .table(headings::POD_TEMPLATE, pods::pod_template),
    row("", "v1", "Binding", "bindings", "binding", NS, "io.k8s.api.core.v1.Binding").asked(),
    // apps
    row("apps", "v1", "StatefulSet", "statefulsets", "statefulset", NS, "io.k8s.api.apps.v1.StatefulSet")
        .short(&["sts"])
        .category(&["all"])
        .with(&[Scale, Status])
        .table(headings::STATEFUL_SET, workloads::stateful_set),
    row("apps", "v1", "Deployment", "deployments", "deployment", NS, "io.k8s.api.apps.v1.Deployment")
        .short(&["deploy"])
        .category(&["all"])
        .with(&[Scale, Status])
        .table(headings::DEPLOYMENT, workloads::deployment),
    row("apps", "v1", "ReplicaSet", "replicasets", "replicaset", NS, "io.k8s.api.apps.v1.ReplicaSet")
        .short(&["rs"])
        .category(&["all"])
        .with(&[Scale, Status])
        .select(&["status.replicas"])
        .table(headings::REPLICA_SET, workloads::replica_set),
    row("apps", "v1", "DaemonSet", "daemonsets", "daemonset", NS, "io.k8s.api.apps.v1.DaemonSet")
        .short(&["ds"])
        .category(&["all"])
        .with(&[Status])
        .table(headings::DAEMON_SET, workloads::daemon_set),
    row(
        "apps",
        "v1",
        "ControllerRevision",
        "controllerrevisions",
        "controllerrevision",
        NS,
        "io.k8s.api.apps.v1.ControllerRevision",
    )
    .table(headings::CONTROLLER_REVISION, workloads::controller_revision),
    // batch
    row("batch", "v1", "Job", "jobs", "job", NS, "io.k8s.api.batch.v1.Job")
        .category(&["all"])
        .with(&[Status])
        .select(&["status.successful"])
        .table(headings::JOB, workloads::job),
    row("batch", "v1", "CronJob", "cronjobs", "cronjob", NS, "io.k8s.api.batch.v1.CronJob")
        .short(&["cj"])
        .category(&["all"])
        .with(&[Status])
        .table(headings::CRON_JOB, workloads::cron_job),
    // autoscaling
    row(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "horizontalpodautoscaler",
        NS,
        "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    )
    .short(&["hpa"])
    .category(&["all"])
    .with(&[Status])
    .table(headings::AUTOSCALER, workloads::autoscaler),
    row(
        "autoscaling",
        "v1",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "horizontalpodautoscaler",
        NS,
        "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    )
    .short(&["hpa"])
    .category(&["all"])
    .with(&[Status])
    .stored_as("autoscaling", "v2")
    .table(headings::AUTOSCALER, workloads::autoscaler),
    // policy
    row(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "poddisruptionbudget",
        NS,
        "io.k8s.api.policy.v1.PodDisruptionBudget",
    )
    .short(&["pdb"])
    .with(&[Status])
    .table(headings::DISRUPTION_BUDGET, workloads::disruption_budget),
    // networking.k8s.io
    row("networking.k8s.io", "v1", "Ingress", "ingresses", "ingress", NS, "io.k8s.api.networking.v1.Ingress")
        .short(&["ing"])
        .with(&[Status])
        .table(headings::INGRESS, network::ingress),
    row(
        "networking.k8s.io",
        "v1",
        "IngressClass",
        "ingressclasses",
        "ingressclass",
        CLUSTER,
        "io.k8s.api.networking.v1.IngressClass",
    )
    .table(headings::INGRESS_CLASS, network::ingress_class),
    row(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        "networkpolicy",
        NS,
        "io.k8s.api.networking.v1.NetworkPolicy",
    )
    .short(&["netpol"])
    .table(headings::NETWORK_POLICY, network::network_policy),
    row(
        "networking.k8s.io",
        "v1",
        "IPAddress",
        "ipaddresses",
        "ipaddress",
        CLUSTER,
        "io.k8s.api.networking.v1.IPAddress",
    )
    .short(&["ip"])
    .select(&["spec.parentRef.group", "spec.parentRef.resource", "spec.parentRef.namespace", "spec.parentRef.name"])
    .table(headings::IP_ADDRESS, network::ip_address),
    row(
        "networking.k8s.io",
        "v1",
        "ServiceCIDR",
        "servicecidrs",
        "servicecidr",
        CLUSTER,
        "io.k8s.api.networking.v1.ServiceCIDR",
    )
    .with(&[Status])
    .table(headings::SERVICE_CIDR, network::service_cidr),
    // storage.k8s.io
    row(
        "storage.k8s.io",
        "v1",
        "StorageClass",
        "storageclasses",
        "storageclass",
        CLUSTER,
        "io.k8s.api.storage.v1.StorageClass",
    )
    .short(&["sc"])
    .table(headings::STORAGE_CLASS, storage::storage_class),
    row("storage.k8s.io", "v1", "CSIDriver", "csidrivers", "csidriver", CLUSTER, "io.k8s.api.storage.v1.CSIDriver")
        .table(headings::CSI_DRIVER, storage::csi_driver),
    row("storage.k8s.io", "v1", "CSINode", "csinodes", "csinode", CLUSTER, "io.k8s.api.storage.v1.CSINode")
        .table(headings::CSI_NODE, storage::csi_node),
    row(
        "storage.k8s.io",
        "v1",
        "CSIStorageCapacity",
        "csistoragecapacities",
        "csistoragecapacity",
        NS,
        "io.k8s.api.storage.v1.CSIStorageCapacity",
    )
    .table(headings::CSI_CAPACITY, storage::csi_capacity),
    row(
        "storage.k8s.io",
        "v1",
        "VolumeAttachment",
        "volumeattachments",
        "volumeattachment",
        CLUSTER,
        "io.k8s.api.storage.v1.VolumeAttachment",
    )
    .with(&[Status])
    .table(headings::VOLUME_ATTACHMENT, storage::volume_attachment),
    row(
        "storage.k8s.io",
        "v1",
        "VolumeAttributesClass",
        "volumeattributesclasses",
        "volumeattributesclass",
        CLUSTER,
        "io.k8s.api.storage.v1.VolumeAttributesClass",
    )
    .short(&["vac"])
    .table(headings::VOLUME_ATTRIBUTES_CLASS, storage::volume_attributes_class),
    // rbac.authorization.k8s.io
    row("rbac.authorization.k8s.io", "v1", "Role", "roles", "role", NS, "io.k8s.api.rbac.v1.Role"),
    row(
        "rbac.authorization.k8s.io",
        "v1",
        "RoleBinding",
        "rolebindings",
        "rolebinding",
        NS,
        "io.k8s.api.rbac.v1.RoleBinding",
    )
    .table(headings::ROLE_BINDING, access::role_binding),
    row(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRole",
        "clusterroles",
        "clusterrole",
        CLUSTER,
        "io.k8s.api.rbac.v1.ClusterRole",
    ),
    row(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        "clusterrolebinding",
        CLUSTER,
        "io.k8s.api.rbac.v1.ClusterRoleBinding",
    )
    .table(headings::CLUSTER_ROLE_BINDING, access::role_binding),
    // scheduling.k8s.io
    row(
        "scheduling.k8s.io",
        "v1",
        "PriorityClass",
        "priorityclasses",
        "priorityclass",
        CLUSTER,
        "io.k8s.api.scheduling.v1.PriorityClass",
    )
    .short(&["pc"])
    .table(headings::PRIORITY_CLASS, workloads::priority_class),
    // coordination.k8s.io
    row("coordination.k8s.io", "v1", "Lease", "leases", "lease", NS, "io.k8s.api.coordination.v1.Lease")
        .table(headings::LEASE, cluster::lease),
    // discovery.k8s.io
    row(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        "endpointslice",
        NS,
        "io.k8s.api.discovery.v1.EndpointSlice",
    )
    .table(headings::ENDPOINT_SLICE, network::endpoint_slice),
    // events.k8s.io
    row("events.k8s.io", "v1", "Event", "events", "event", NS, "io.k8s.api.events.v1.Event")
        .short(&["ev"])
        .stored_as("", "v1")
        .select(&[
            "reason",
            "reportingController",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "type",
        ])
        .table(headings::EVENT, cluster::event),
    // node.k8s.io
    row(
        "node.k8s.io",
        "v1",
        "RuntimeClass",
        "runtimeclasses",
        "runtimeclass",
        CLUSTER,
        "io.k8s.api.node.v1.RuntimeClass",
    )
    .table(headings::RUNTIME_CLASS, cluster::runtime_class),
    // certificates.k8s.io
    row(
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        "certificatesigningrequest",
        CLUSTER,
        "io.k8s.api.certificates.v1.CertificateSigningRequest",
    )
    .short(&["csr"])
    .with(&[Approval, Status])
    .select(&["spec.signerName"])
    .table(headings::SIGNING_REQUEST, access::signing_request),
    row(
        "certificates.k8s.io",
        "v1",
        "ClusterTrustBundle",
        "clustertrustbundles",
        "clustertrustbundle",
        CLUSTER,
        "io.k8s.api.certificates.v1.ClusterTrustBundle",
    )
    .select(&["spec.signerName"])
    .table(headings::TRUST_BUNDLE, access::trust_bundle),
    row(
        "certificates.k8s.io",
        "v1",
        "PodCertificateRequest",
        "podcertificaterequests",
        "podcertificaterequest",
        NS,
        "io.k8s.api.certificates.v1.PodCertificateRequest",
    )
    .with(&[Status])
    .select(&["spec.signerName", "spec.podName", "spec.nodeName"]),
    // admissionregistration.k8s.io
    row(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        "mutatingwebhookconfiguration",
        CLUSTER,
        "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
    )
    .category(&["api-extensions"])
    .table(headings::WEBHOOKS, access::webhooks),
    row(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        "validatingwebhookconfiguration",
        CLUSTER,
        "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
    )
    .category(&["api-extensions"])
    .table(headings::WEBHOOKS, access::webhooks),
    row(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        "validatingadmissionpolicy",
        CLUSTER,
        "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    )
    .category(&["api-extensions"])
    .with(&[Status])
    .table(headings::VALIDATING_POLICY, access::validating_policy),
    row(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        "validatingadmissionpolicybinding",
        CLUSTER,
        "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    )
    .category(&["api-extensions"])
    .table(headings::POLICY_BINDING, access::policy_binding),
    row(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingAdmissionPolicy",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicy",
        CLUSTER,
        "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
    )
    .category(&["api-extensions"])
    .table(headings::MUTATING_POLICY, access::mutating_policy),
    row(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
        "mutatingadmissionpolicybinding",
        CLUSTER,
        "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
    )
    .category(&["api-extensions"])
    .table(headings::POLICY_BINDING, access::policy_binding),
    // apiextensions.k8s.io
    row(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "customresourcedefinition",
        CLUSTER,
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    )
    .short(&["crd", "crds"])
    .category(&["api-extensions"])
    .with(&[Status]),
    // apiregistration.k8s.io
    row(
        "apiregistration.k8s.io",
        "v1",
        "APIService",
        "apiservices",
        "apiservice",
        CLUSTER,
        "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
    )
    .category(&["api-extensions"])
    .with(&[Status])
    .table(headings::API_SERVICE, access::api_service),
    // flowcontrol.apiserver.k8s.io
    row(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "FlowSchema",
        "flowschemas",
        "flowschema",
        CLUSTER,
        "io.k8s.api.flowcontrol.v1.FlowSchema",
    )
    .with(&[Status])
    .table(headings::FLOW_SCHEMA, access::flow_schema),
    row(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
        "prioritylevelconfiguration",
        CLUSTER,
        "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
    )
    .with(&[Status])
    .table(headings::PRIORITY_LEVEL, access::priority_level),
    // resource.k8s.io
    row(
        "resource.k8s.io",
        "v1",
        "DeviceClass",
        "deviceclasses",
        "deviceclass",
        CLUSTER,
        "io.k8s.api.resource.v1.DeviceClass",
    )
    .table(headings::NAME_AND_AGE, columns::name_and_age),
    row(
        "resource.k8s.io",
        "v1",
        "DeviceTaintRule",
        "devicetaintrules",
        "devicetaintrule",
        CLUSTER,
        "io.k8s.api.resource.v1.DeviceTaintRule",
    )
    .with(&[Status]),
    row(
        "resource.k8s.io",
        "v1",
        "ResourceClaim",
        "resourceclaims",
        "resourceclaim",
        NS,
        "io.k8s.api.resource.v1.ResourceClaim",
    )
    .with(&[Status])
    .table(headings::RESOURCE_CLAIM, cluster::resource_claim),
    row(
        "resource.k8s.io",
        "v1",
        "ResourceClaimTemplate",
        "resourceclaimtemplates",
        "resourceclaimtemplate",
        NS,
        "io.k8s.api.resource.v1.ResourceClaimTemplate",
    )
    .table(headings::NAME_AND_AGE, columns::name_and_age),
    row(
        "resource.k8s.io",
        "v1",
        "ResourceSlice",
        "resourceslices",
        "resourceslice",
        CLUSTER,
        "io.k8s.api.resource.v1.ResourceSlice",
    )
    .select(&["spec.nodeName", "spec.driver"])
    .table(headings::RESOURCE_SLICE, cluster::resource_slice),
    // storagemigration.k8s.io
    row(
        "storagemigration.k8s.io",
        "v1",
        "StorageVersionMigration",
        "storageversionmigrations",
        "storageversionmigration",
        CLUSTER,
        "io.k8s.api.storagemigration.v1.StorageVersionMigration",
    )
    .with(&[Status])
    .table(headings::MIGRATION, cluster::migration),
    // authentication.k8s.io
    row(
        "authentication.k8s.io",
        "v1",
        "TokenReview",
        "tokenreviews",
        "tokenreview",
        CLUSTER,
        "io.k8s.api.authentication.v1.TokenReview",
    )
    .asked(),
    row(
        "authentication.k8s.io",
        "v1",
        "SelfSubjectReview",
        "selfsubjectreviews",
        "selfsubjectreview",
        CLUSTER,
        "io.k8s.api.authentication.v1.SelfSubjectReview",
    )
    .asked(),
    // authorization.k8s.io
    row(
        "authorization.k8s.io",
        "v1",
        "SubjectAccessReview",
        "subjectaccessreviews",
        "subjectaccessreview",
        CLUSTER,
        "io.k8s.api.authorization.v1.SubjectAccessReview",
    )
    .asked(),
    row(
        "authorization.k8s.io",
        "v1",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        "localsubjectaccessreview",
        NS,
        "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    )
    .asked(),
    row(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        CLUSTER,
        "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    )
    .asked(),
    row(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview",
        CLUSTER,
        "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    )
    .asked(),
    // metrics.k8s.io
    row(
        "metrics.k8s.io",
        "v1beta1",
        "NodeMetrics",
        "nodes",
        "",
        CLUSTER,
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics",
    )
    .measured()
    .table(headings::USAGE, usage::node),
    row(
        "metrics.k8s.io",
        "v1beta1",
        "PodMetrics",
        "pods",
        "",
        NS,
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics",
    )
    .measured()
    .table(headings::USAGE, usage::pod),
];

/// A stored kind without anything special.
const fn row(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    scope: Scope,
    schema: &'static str,
) -> Kind {
    Kind {
        group,
        version,
        kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        scope,
        subresources: &[],
        origin: Origin::Stored,
        storage: GroupVersion { group, version },
        schema,
        selectable: &[],
        columns: columns::DEFAULT,
        cells: columns::default_cells,
    }
}

impl Kind {
    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = names;
        self
    }

    const fn category(mut self, categories: &'static [&'static str]) -> Self {
        self.categories = categories;
        self
    }

    const fn with(mut self, subresources: &'static [Subresource]) -> Self {
        self.subresources = subresources;
        self
    }

    const fn asked(mut self) -> Self {
        self.origin = Origin::Asked;
        self
    }

    const fn measured(mut self) -> Self {
        self.origin = Origin::Measured;
        self
    }

    const fn stored_as(mut self, group: &'static str, version: &'static str) -> Self {
        self.storage = GroupVersion { group, version };
        self
    }

    const fn table(mut self, columns: &'static [Column], cells: Cells) -> Self {
        self.columns = columns;
        self.cells = cells;
        self
    }

    const fn select(mut self, fields: &'static [&'static str]) -> Self {
        self.selectable = fields;
        self
    }
}
