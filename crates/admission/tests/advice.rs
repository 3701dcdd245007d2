//! Advice that goes with objects that are accepted: what is merged into a set or a pod, and the warnings.
//! The texts are upstream's (`pkg/api/pod/warnings.go`).

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tables of stories")]

mod support;

use serde_json::{Value, json};
use stead_admission::{create, update};
use support::{Fixed, World, kind_of, merge, with_context};

fn advised(old: Option<&Value>, object: &Value) -> (Value, Vec<String>) {
    let (mut object, kind) = (object.clone(), kind_of(object));
    object["metadata"]["uid"] = "1".into();
    object["metadata"]["namespace"] = "obj".into();
    let fixed = Fixed::new("10.96.1.1", 30001);
    let warnings = with_context(&World::new(), &fixed, "abcde", |ctx| match old {
        None => create(kind, &mut object, ctx),
        Some(old) => {
            object["metadata"]["resourceVersion"] = "1".into();
            update(kind, &mut object, old, None, ctx)
        }
    });
    (object, warnings.unwrap())
}

fn set() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"},
        "spec": {
            "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    })
}

fn check(base: &Value, stories: &[(Value, &[&str])]) {
    assert_eq!(advised(None, base).1, Vec::<String>::new());
    for (patch, expected) in stories {
        let mut object = base.clone();
        merge(&mut object, patch);
        assert_eq!(advised(None, &object).1, *expected, "{patch}");
    }
}

fn in_template(spec: &Value) -> Value {
    json!({"spec": {"template": {"spec": spec}}})
}

fn with_container(container: &Value) -> Value {
    let mut whole = json!({"name": "c", "image": "i"});
    merge(&mut whole, container);
    in_template(&json!({"containers": [whole]}))
}

#[test]
fn variables_and_ports_that_are_named_twice() {
    const ENV: &str = "spec.template.spec.containers[0].env";
    let hides =
        |i: usize| format!("{ENV}[{i}]: hides previous definition of \"A\", which may be dropped when using apply");
    check(
        &set(),
        &[
            (
                with_container(
                    &json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "B"}]}),
                ),
                &[&hides(1)],
            ),
            (
                with_container(&json!({"env": [
                    {"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "$(A)"},
                    {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ]})),
                &[&hides(2), &hides(3)],
            ),
            (
                with_container(&json!({"ports": [{"containerPort": 80}, {"containerPort": 80, "name": "x"}]})),
                &[
                    "spec.template.spec.containers[0].ports[1]: duplicate port definition with spec.template.spec.containers[0].ports[0]",
                ],
            ),
            (
                with_container(&json!({"ports": [
                    {"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"},
                    {"containerPort": 80, "hostPort": 81}, {"containerPort": 80, "hostPort": 81, "hostIP": "1.1.1.1"},
                ]})),
                &[
                    "spec.template.spec.containers[0].ports[2]: overlapping port definition with spec.template.spec.containers[0].ports[0]",
                    "spec.template.spec.containers[0].ports[3]: overlapping port definition with spec.template.spec.containers[0].ports[0]",
                    "spec.template.spec.containers[0].ports[3]: dangerously ambiguous port definition with spec.template.spec.containers[0].ports[2]",
                ],
            ),
            (
                with_container(&json!({"ports": [{"containerPort": 80, "hostIP": "1.1.1.1"}]})),
                &[
                    "spec.template.spec.containers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:TCP HostIP:1.1.1.1}",
                ],
            ),
            (
                in_template(&json!({"initContainers": [{"name": "i", "image": "i", "ports": [{"containerPort": 80}]}],
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]})),
                &[
                    "spec.template.spec.containers[0].ports[0]: duplicate port definition with spec.template.spec.initContainers[0].ports[0]",
                ],
            ),
        ],
    );
}

#[test]
fn labels_annotations_and_volumes_that_are_going_away() {
    check(
        &set(),
        &[
            (
                in_template(&json!({"nodeSelector": {"beta.kubernetes.io/os": "linux", "disk": "ssd"}})),
                &[
                    "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                ],
            ),
            (
                in_template(&json!({"affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [
                            {"key": "failure-domain.beta.kubernetes.io/zone", "operator": "Exists"}]}]},
                        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {"matchExpressions": [
                            {"key": "x", "operator": "Exists"}, {"key": "beta.kubernetes.io/arch", "operator": "Exists"}]}}],
                    },
                    "podAntiAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}],
                        "preferredDuringSchedulingIgnoredDuringExecution": [
                            {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname"}}],
                    },
                }})),
                &[
                    "spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
                    "spec.template.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[1].key: beta.kubernetes.io/arch is deprecated since v1.14; use \"kubernetes.io/arch\" instead",
                    "spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector results in matching no pod",
                    "spec.template.spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod",
                ],
            ),
            (
                in_template(&json!({"topologySpreadConstraints": [{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
                "topologyKey": "failure-domain.beta.kubernetes.io/zone"}]})),
                &[
                    "spec.template.spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
                    "spec.template.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                ],
            ),
            (
                json!({"spec": {"template": {"metadata": {"annotations": {
                    "scheduler.alpha.kubernetes.io/critical-pod": "",
                    "seccomp.security.alpha.kubernetes.io/pod": "runtime/default",
                    "container.seccomp.security.alpha.kubernetes.io/c": "runtime/default",
                    "container.apparmor.security.beta.kubernetes.io/c": "runtime/default",
                }}}}}),
                &[
                    "spec.template.metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead",
                    "spec.template.metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the \"seccompProfile\" field instead",
                    "spec.template.metadata.annotations[container.seccomp.security.alpha.kubernetes.io/c]: non-functional in v1.27+; use the \"seccompProfile\" field instead",
                    "spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the \"appArmorProfile\" field instead",
                ],
            ),
            (
                in_template(&json!({"volumes": [
                    {"name": "a", "gitRepo": {"repository": "r"}},
                    {"name": "b", "configMap": {"name": "m", "items": [{"key": "x", "path": "p"}, {"key": "y", "path": "p/q"}]}},
                    {"name": "d", "projected": {"sources": [
                        {"serviceAccountToken": {"path": "token"}},
                        {"secret": {"name": "s", "items": [{"key": "x", "path": "token"}]}}, {"configMap": {"name": "all"}}]}},
                ]})),
                &[
                    "spec.template.spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
                    "volume \"b\" (ConfigMap \"m\"): overlapping paths: \"p/q\" with \"p\"",
                    "volume \"d\" (Projected Secret \"s\"): overlapping paths: \"token\" with \"token\"",
                ],
            ),
        ],
    );
}

#[test]
fn numbers_and_names_that_surprise() {
    check(
        &set(),
        &[
            (
                with_container(&json!({"resources": {"requests": {"memory": "100m"}, "limits": {"memory": "1500m"}}})),
                &[
                    "spec.template.spec.containers[0].resources.limits[memory]: fractional byte value \"1500m\" is invalid, must be an integer",
                    "spec.template.spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                ],
            ),
            (
                in_template(&json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}],
                "hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}]})),
                &[
                    "spec.template.spec.hostAliases[1].ip: duplicate ip \"1.1.1.1\"",
                    "spec.template.spec.imagePullSecrets[1].name: duplicate name \"a\"",
                    "spec.template.spec.imagePullSecrets[2].name: invalid empty name \"\"",
                ],
            ),
            (
                json!({"spec": {"revisionHistoryLimit": -1, "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1500m"}}}}]}}),
                &[
                    "spec.volumeClaimTemplates[0].resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer",
                    "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended",
                ],
            ),
        ],
    );
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    check(
        &pod,
        &[
            (
                json!({"metadata": {"name": "web.0"}}),
                &[
                    "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
                ],
            ),
            (
                json!({"spec": {"terminationGracePeriodSeconds": -1}}),
                &[
                    "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
                ],
            ),
            (
                json!({"spec": {"nodeSelector": {"beta.kubernetes.io/arch": "amd64"}}}),
                &[
                    "spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use \"kubernetes.io/arch\" instead",
                ],
            ),
        ],
    );
}

#[test]
fn a_change_is_advised_when_it_changes_the_spec() {
    let mut made = set();
    merge(&mut made, &in_template(&json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}})));
    let (old, warnings) = advised(None, &made);
    assert_eq!(warnings.len(), 1);
    let mut new = old.clone();
    merge(&mut new, &json!({"metadata": {"annotations": {"a": "b"}}}));
    assert!(advised(Some(&old), &new).1.is_empty(), "the spec is what it was");
    merge(&mut new, &json!({"spec": {"replicas": 3}}));
    assert_eq!(advised(Some(&old), &new).1, warnings);
}
