//! The catalogue as a table: each state as it shows in objects and events, and beside it a near miss that must not be told as a fault.
//!
//! What is told is written as a tree of rules: `A(B)` is A because of B, `~A` is waiting, `-A` a note.

// Tables are as long as what they list.
#![allow(clippy::too_many_lines)]

use serde_json::{Value, json};

use crate::{Finding, Listed, Report, Severity, Snapshot, Target, Unread, explain};

const NOW: &str = "2026-11-20T12:00:00Z";
/// Long ago.
const THEN: &str = "2026-11-20T11:00:00Z";
/// A moment ago.
const JUST: &str = "2026-11-20T11:59:58Z";

/// A set `web` of two pods that work, with a claim each, on one node; to be broken.
struct World {
    set: Value,
    services: Vec<Value>,
    pods: Vec<Value>,
    claims: Vec<Value>,
    classes: Vec<Value>,
    volumes: Vec<Value>,
    nodes: Vec<Value>,
    quotas: Vec<Value>,
    budgets: Vec<Value>,
    events: Vec<Value>,
    placed: bool,
    heals: bool,
    companion: Option<bool>,
    unseen: bool,
}

fn pod(ordinal: u32) -> Value {
    json!({
        "metadata": {
            "name": format!("web-{ordinal}"), "namespace": "ns", "uid": format!("pod-{ordinal}"), "creationTimestamp": THEN,
            "labels": {"app": "web", "controller-revision-hash": "web-1", "statefulset.kubernetes.io/pod-name": format!("web-{ordinal}")},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "set", "controller": true}],
        },
        "spec": {
            "nodeName": "n1", "containers": [{"name": "main", "image": "app:1"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": format!("data-web-{ordinal}")}}],
        },
        "status": {
            "phase": "Running", "startTime": THEN,
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": THEN},
                {"type": "Ready", "status": "True", "lastTransitionTime": THEN},
            ],
            "containerStatuses": [{"name": "main", "image": "app:1", "imageID": "", "ready": true, "restartCount": 0, "started": true,
                "state": {"running": {"startedAt": THEN}}}],
        },
    })
}

fn claim(ordinal: u32) -> Value {
    json!({
        "metadata": {"name": format!("data-web-{ordinal}"), "namespace": "ns", "uid": format!("claim-{ordinal}"), "creationTimestamp": THEN},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "standard", "volumeName": format!("pv-{ordinal}"),
            "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Bound"},
    })
}

fn volume(name: &str, phase: &str, claim: Option<&str>) -> Value {
    let holder = claim.map(|claim| json!({"namespace": "ns", "name": claim, "uid": "x"}));
    json!({
        "metadata": {"name": name},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "standard", "claimRef": holder},
        "status": {"phase": phase},
    })
}

impl World {
    fn healthy() -> Self {
        Self {
            set: json!({
                "metadata": {"name": "web", "namespace": "ns", "uid": "set", "generation": 1, "creationTimestamp": THEN},
                "spec": {
                    "serviceName": "web", "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                    "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "app:1"}]}},
                    "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                        "storageClassName": "standard", "resources": {"requests": {"storage": "1Gi"}}}}],
                },
                "status": {"replicas": 2, "observedGeneration": 1, "currentRevision": "web-1", "updateRevision": "web-1"},
            }),
            services: vec![
                json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "None", "selector": {"app": "web"}}}),
            ],
            pods: vec![pod(0), pod(1)],
            claims: vec![claim(0), claim(1)],
            classes: vec![
                json!({"metadata": {"name": "standard"}, "provisioner": "stead.dev/local", "volumeBindingMode": "WaitForFirstConsumer"}),
            ],
            volumes: vec![volume("pv-0", "Bound", Some("data-web-0")), volume("pv-1", "Bound", Some("data-web-1"))],
            nodes: vec![json!({"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi"},
                "conditions": [{"type": "Ready", "status": "True"}]}})],
            quotas: Vec::new(),
            budgets: Vec::new(),
            events: Vec::new(),
            placed: true,
            heals: true,
            companion: None,
            unseen: false,
        }
    }

    fn event(&mut self, kind: &str, name: &str, reason: &str, message: &str) {
        self.events.push(json!({
            "metadata": {"name": format!("e{}", self.events.len())},
            "involvedObject": {"kind": kind, "name": name}, "type": "Warning", "reason": reason, "message": message, "lastTimestamp": JUST,
        }));
    }

    /// The second pod is not Ready; its container is in that state.
    fn container(&mut self, state: &Value) {
        self.pods[1]["status"]["conditions"][1]["status"] = "False".into();
        self.pods[1]["status"]["conditions"][1]["lastTransitionTime"] = THEN.into();
        self.pods[1]["status"]["containerStatuses"][0]["ready"] = false.into();
        self.pods[1]["status"]["containerStatuses"][0]["state"] = state.clone();
    }

    fn waiting(&mut self, reason: &str, message: &str) {
        self.container(&json!({"waiting": {"reason": reason, "message": message}}));
    }

    /// The second pod has no node, for that reason.
    fn unscheduled(&mut self, reasons: &str) {
        let message = format!(
            "0/1 nodes are available: {reasons}. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        );
        self.pods[1]["spec"]["nodeName"] = Value::Null;
        self.pods[1]["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]});
        self.event("Pod", "web-1", "FailedScheduling", &message);
    }

    /// The second pod's claim has no volume.
    fn unbound(&mut self, class: Value) {
        self.claims[1]["status"]["phase"] = "Pending".into();
        self.claims[1]["spec"]["volumeName"] = Value::Null;
        self.claims[1]["spec"]["storageClassName"] = class;
        self.volumes.pop();
        self.unscheduled("1 pod has unbound immediate PersistentVolumeClaims");
    }

    /// A roll-out of `web-2` is under way, and the second pod is of that revision.
    fn rolls(&mut self) {
        self.set["status"]["updateRevision"] = "web-2".into();
        self.pods[1]["metadata"]["labels"]["controller-revision-hash"] = "web-2".into();
    }

    /// The set is another cluster's, and asks for a companion.
    fn managed(&mut self, annotations: Value) {
        self.heals = false;
        self.set["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
        self.set["metadata"]["annotations"] = annotations;
        self.set["metadata"]["annotations"]["stead.dev/managed"] = "true".into();
    }

    fn snapshot(&self) -> Snapshot {
        fn listed<T: serde::de::DeserializeOwned>(objects: &[Value]) -> Listed<T> {
            let named = |object: &Value| {
                (
                    object["metadata"]["name"].as_str().expect("a name").to_owned(),
                    serde_json::from_value(object.clone()).expect("an object"),
                )
            };
            Listed(Some(objects.iter().map(named).collect()))
        }
        let pods = listed(&self.pods);
        let (classes, volumes, nodes, unread) = match self.unseen {
            true => (
                Listed(None),
                Listed(None),
                Listed(None),
                vec![Unread { resource: "nodes".to_owned(), why: "forbidden".to_owned() }],
            ),
            false => (listed(&self.classes), listed(&self.volumes), listed(&self.nodes), Vec::new()),
        };
        Snapshot {
            namespace: "ns".to_owned(),
            now: NOW.parse().expect("a time"),
            heals: self.heals,
            companion: self.companion,
            sets: listed(std::slice::from_ref(&self.set)),
            placed: self.placed.then(|| pods.values().cloned().collect()),
            pods,
            claims: listed(&self.claims),
            services: listed(&self.services),
            quotas: listed(&self.quotas),
            budgets: listed(&self.budgets),
            classes,
            volumes,
            nodes,
            events: self.events.iter().map(|event| serde_json::from_value(event.clone()).expect("an event")).collect(),
            unread,
            ..Snapshot::default()
        }
    }

    fn report(&self) -> Report {
        explain(&self.snapshot(), &Target::Set("web".to_owned())).expect("the set is there")
    }
}

fn tree(findings: &[Finding]) -> String {
    let one = |finding: &Finding| {
        let mark = match finding.severity {
            Severity::Note => "-",
            Severity::Waiting => "~",
            Severity::Fault => "",
        };
        let below = if finding.causes.is_empty() { String::new() } else { format!("({})", tree(&finding.causes)) };
        format!("{mark}{}{below}", finding.rule)
    };
    findings.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Every mend, as text and command.
fn mends(report: &Report) -> String {
    let mut all = String::new();
    for finding in &report.findings {
        finding.walk(&mut |one| {
            for mend in &one.mend {
                all.push_str(&format!("{} $ {}\n", mend.text, mend.command.as_deref().unwrap_or_default()));
            }
        });
    }
    all
}

type Story = (&'static str, fn(&mut World), &'static str);

#[track_caller]
fn check(stories: &[Story]) {
    for (name, make, expected) in stories {
        let mut world = World::healthy();
        make(&mut world);
        let report = world.report();
        assert_eq!(tree(&report.findings), *expected, "{name}\n{}", crate::text::report(&report));
    }
}

#[test]
fn what_is_stopped_on_purpose_is_no_fault() {
    let stopped = |world: &mut World, ordinals: &str| {
        world.set["metadata"]["annotations"] = json!({"stead.dev/stop-ordinals": ordinals});
    };
    let mut world = World::healthy();
    stopped(&mut world, "1");
    world.pods.pop();
    let report = world.report();
    assert_eq!((tree(&report.findings).as_str(), report.headline.as_str()), ("-Stopped", "1 of 1 pods are Ready"));
    stopped(&mut world, "0");
    world.pods = vec![pod(0), pod(1)];
    assert_eq!(tree(&world.report().findings), "~ScaleDown -Stopped");
}

#[test]
fn a_roll_out_that_evicts_names_the_budget_that_holds_it() {
    let budget = |name: &str, desired: i32| {
        json!({
            "metadata": {"name": name, "generation": 1}, "spec": {"selector": {"matchLabels": {"app": "web"}}},
            "status": {"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 2, "desiredHealthy": desired, "expectedPods": 4},
        })
    };
    for (budgets, expected) in [
        (vec![budget("two", 2)], "~RollOut(~Budget)"),
        (vec![budget("all", 4)], "~RollOut(~Budget)"),
        (vec![budget("one", 2), budget("two", 2)], "RollOut(Budget Budget)"),
    ] {
        let mut world = World::healthy();
        world.set["metadata"]["annotations"] = json!({"stead.dev/evict": "true"});
        world.set["status"]["updateRevision"] = "web-2".into();
        world.budgets = budgets;
        let report = world.report();
        assert_eq!(tree(&report.findings), expected, "{}", crate::text::report(&report));
    }
}

#[test]
fn overrides_that_cannot_be_used_are_named() {
    for (text, expected) in
        [("5: {}", ""), ("nonsense", "Overrides"), ("1: {spec: {containers: [{image: x}]}}", "Overrides")]
    {
        let mut world = World::healthy();
        world.set["metadata"]["annotations"] = json!({"stead.dev/overrides": text});
        let report = world.report();
        assert_eq!(tree(&report.findings), expected, "{text}: {}", crate::text::report(&report));
    }
}

#[test]
fn claims_are_followed_to_the_class_the_provisioner_or_the_volumes() {
    check(&[
        ("nothing is wrong", |_| {}, ""),
        ("1: no class, no default", |w| w.unbound(Value::Null), "Unschedulable(NoClass)"),
        (
            "1: a claim without class is bound all the same",
            |w| w.claims[1]["spec"]["storageClassName"] = Value::Null,
            "",
        ),
        ("2: the class is missing", |w| w.unbound("fast".into()), "Unschedulable(ClassMissing)"),
        (
            "2: classes may not be read, and nobody says so",
            |w| {
                w.unbound("fast".into());
                w.unseen = true;
            },
            "Unschedulable",
        ),
        (
            "2: classes may not be read, but an event says so",
            |w| {
                w.unbound("fast".into());
                w.unseen = true;
                w.event(
                    "PersistentVolumeClaim",
                    "data-web-1",
                    "ProvisioningFailed",
                    "storageclass.storage.k8s.io \"fast\" not found",
                );
            },
            "Unschedulable(ClassMissing)",
        ),
        (
            "3: waiting by design",
            |w| {
                w.unbound("standard".into());
                w.pods[1] = pod(1);
                w.container(&json!({"waiting": {"reason": "ContainerCreating"}}));
            },
            "~Starting",
        ),
        (
            "4: the provisioner does not answer",
            |w| {
                w.unbound("standard".into());
                w.classes[0]["volumeBindingMode"] = "Immediate".into();
            },
            "Unschedulable(Provisioner)",
        ),
        (
            "4: it has just been asked",
            |w| {
                w.unbound("standard".into());
                w.classes[0]["volumeBindingMode"] = "Immediate".into();
                w.claims[1]["metadata"]["creationTimestamp"] = JUST.into();
            },
            "Unschedulable(~Provisioner)",
        ),
        (
            "4: it cannot",
            |w| {
                w.unbound("standard".into());
                w.classes[0]["volumeBindingMode"] = "Immediate".into();
                w.event(
                    "PersistentVolumeClaim",
                    "data-web-1",
                    "ProvisioningFailed",
                    "access mode ReadWriteMany is not supported",
                );
            },
            "Unschedulable(ProvisioningFailed)",
        ),
        (
            "6: volumes are made by hand and none fits",
            |w| {
                w.unbound("standard".into());
                w.classes[0]["provisioner"] = "kubernetes.io/no-provisioner".into();
            },
            "Unschedulable(NoVolume)",
        ),
        ("6: none is to be made", |w| w.unbound("".into()), "Unschedulable(NoVolume)"),
        (
            "8: the volume vanished",
            |w| {
                w.volumes.pop();
            },
            "ClaimLost",
        ),
        (
            "8: volumes may not be read",
            |w| {
                w.volumes.pop();
                w.unseen = true;
            },
            "",
        ),
        (
            "10: the claim is gone",
            |w| {
                w.unscheduled("persistentvolumeclaim \"data-web-1\" not found");
                w.claims.pop();
            },
            "Unschedulable(ClaimMissing)",
        ),
        (
            "10: the claim goes",
            |w| {
                w.claims[1]["metadata"]["deletionTimestamp"] = THEN.into();
                w.claims[1]["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
            },
            "ClaimDeleted",
        ),
        (
            "11: the volume is another's",
            |w| {
                w.unbound("standard".into());
                w.claims[1]["spec"]["volumeName"] = "pv-0".into();
            },
            "Unschedulable(VolumeChosen)",
        ),
        (
            "25: it grows when the pod starts again",
            |w| w.claims[1]["status"]["conditions"] = json!([{"type": "FileSystemResizePending", "status": "True"}]),
            "ClaimGrows",
        ),
        (
            "25: it grows",
            |w| w.claims[1]["status"]["conditions"] = json!([{"type": "Resizing", "status": "True"}]),
            "~ClaimGrows",
        ),
        ("22: claims of pods that are not wanted", |w| w.claims.push(claim(7)), "-ClaimsKept"),
        (
            "22: claims of another set",
            |w| w.claims.push(json!({"metadata": {"name": "data-web-x-7"}, "spec": {}, "status": {"phase": "Bound"}})),
            "",
        ),
    ]);
}

#[test]
fn nodes_are_followed_to_what_they_lack() {
    check(&[
        (
            "5: resources",
            |w| {
                w.unscheduled("1 Insufficient cpu");
                w.pods[1]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "9"}});
            },
            "Unschedulable(Resources)",
        ),
        (
            "several reasons",
            |w| w.unscheduled("1 Insufficient memory, 2 node(s) were unschedulable"),
            "Unschedulable(Resources Cordoned)",
        ),
        (
            "anti-affinity",
            |w| w.unscheduled("1 node(s) didn't match pod anti-affinity rules"),
            "Unschedulable(AntiAffinity)",
        ),
        (
            "selector",
            |w| w.unscheduled("1 node(s) didn't match Pod's node affinity/selector"),
            "Unschedulable(NodeSelector)",
        ),
        ("taint", |w| w.unscheduled("1 node(s) had untolerated taint {dedicated: db}"), "Unschedulable(Taint)"),
        (
            "7: volume elsewhere",
            |w| w.unscheduled("1 node(s) had volume node affinity conflict"),
            "Unschedulable(VolumeElsewhere)",
        ),
        (
            "9: another pod has the claim",
            |w| {
                w.unscheduled(
                    "1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
                )
            },
            "Unschedulable(ClaimInUse)",
        ),
        ("27: volume limit", |w| w.unscheduled("1 node(s) exceed max volume count"), "Unschedulable(VolumeLimit)"),
        ("an unknown reason", |w| w.unscheduled("1 node(s) had the blues"), "Unschedulable"),
        (
            "9: attached elsewhere",
            |w| {
                w.waiting("ContainerCreating", "");
                w.event("Pod", "web-1", "FailedAttachVolume", "Multi-Attach error for volume \"pv-1\" Volume is already exclusively attached to one node and can't be attached to another");
            },
            "MultiAttach",
        ),
        (
            "a ConfigMap to mount is missing",
            |w| {
                w.waiting("ContainerCreating", "");
                w.event(
                    "Pod",
                    "web-1",
                    "FailedMount",
                    "MountVolume.SetUp failed for volume \"c\" : configmap \"settings\" not found",
                );
            },
            "Volumes(ObjectMissing)",
        ),
        (
            "that was before it started",
            |w| w.event("Pod", "web-1", "FailedMount", "configmap \"settings\" not found"),
            "",
        ),
        (
            "19: its node is lost",
            |w| w.nodes[0]["status"]["conditions"][0]["status"] = "Unknown".into(),
            "NodeNotReady NodeNotReady",
        ),
        (
            "19: nodes may not be read",
            |w| {
                w.nodes[0]["status"]["conditions"][0]["status"] = "Unknown".into();
                w.unseen = true;
            },
            "",
        ),
    ]);
}

#[test]
fn containers_are_followed_to_images_crashes_and_probes() {
    check(&[
        ("12: image", |w| w.waiting("ImagePullBackOff", "Back-off pulling image \"app:1\""), "ImagePull"),
        (
            "12: it is being pulled",
            |w| {
                w.waiting("ContainerCreating", "");
                w.event("Pod", "web-1", "Pulling", "Pulling image \"app:1\"");
            },
            "~Pulling",
        ),
        ("13: crash loop", |w| w.waiting("CrashLoopBackOff", "back-off 10s"), "CrashLoop"),
        (
            "13: out of memory",
            |w| {
                w.waiting("CrashLoopBackOff", "back-off 10s");
                w.pods[1]["status"]["containerStatuses"][0]["lastState"] =
                    json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
            },
            "OutOfMemory",
        ),
        (
            "13: it crashed once, long ago",
            |w| w.pods[1]["status"]["containerStatuses"][0]["restartCount"] = 1.into(),
            "",
        ),
        (
            "14: readiness",
            |w| {
                w.container(&json!({"running": {"startedAt": THEN}}));
                w.pods[1]["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"port": 80}});
                w.event("Pod", "web-1", "Unhealthy", "Readiness probe failed: Get \"http://10.0.0.1:80/\": dial tcp 10.0.0.1:80: connect: connection refused");
            },
            "Readiness",
        ),
        (
            "14: not asked yet",
            |w| {
                w.container(&json!({"running": {"startedAt": JUST}}));
                w.pods[1]["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"port": 80}});
            },
            "~Probe",
        ),
        (
            "14: an event of an earlier pod of that name",
            |w| {
                w.container(&json!({"running": {"startedAt": JUST}}));
                w.pods[1]["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"port": 80}});
                w.event("Pod", "web-1", "Unhealthy", "Readiness probe failed: no");
                w.events[0]["involvedObject"]["uid"] = "earlier".into();
            },
            "~Probe",
        ),
        (
            "a Secret is missing",
            |w| w.waiting("CreateContainerConfigError", "secret \"keys\" not found"),
            "ContainerConfig(ObjectMissing)",
        ),
        (
            "a key is missing",
            |w| w.waiting("CreateContainerConfigError", "couldn't find key x in Secret ns/keys"),
            "ContainerConfig",
        ),
        (
            "no such command",
            |w| w.waiting("RunContainerError", "exec: \"nothere\": executable file not found in $PATH"),
            "ContainerStart",
        ),
        (
            "a readiness gate",
            |w| {
                w.pods[1]["status"]["conditions"][1]["status"] = "False".into();
                w.pods[1]["spec"]["readinessGates"] = json!([{"conditionType": "example.com/ready"}]);
            },
            "ReadinessGate",
        ),
        (
            "26: it was evicted",
            |w| {
                w.pods[1]["status"] =
                    json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."})
            },
            "Finished",
        ),
        (
            "19: it ends within its grace",
            |w| {
                w.pods[1]["metadata"]["deletionTimestamp"] = "2026-11-20T12:00:20Z".into();
                w.pods[1]["metadata"]["deletionGracePeriodSeconds"] = 30.into();
            },
            "~Ending",
        ),
        (
            "19: a finalizer holds it",
            |w| {
                w.pods[1]["metadata"]["deletionTimestamp"] = THEN.into();
                w.pods[1]["metadata"]["finalizers"] = json!(["x/y"]);
            },
            "Finalizers",
        ),
        (
            "19: its node does not answer",
            |w| {
                w.pods[1]["metadata"]["deletionTimestamp"] = THEN.into();
                w.nodes[0]["status"]["conditions"][0]["status"] = "Unknown".into();
            },
            "NodeNotReady Ending(NodeNotReady)",
        ),
    ]);
}

#[test]
fn a_set_is_followed_to_the_pod_that_it_waits_for() {
    check(&[
        (
            "15: ordered",
            |w| {
                w.waiting("ImagePullBackOff", "");
                w.set["spec"]["replicas"] = 4.into();
            },
            "OrderedGate(ImagePull)",
        ),
        (
            "15: Parallel waits for nobody",
            |w| {
                w.waiting("ImagePullBackOff", "");
                w.set["spec"]["replicas"] = 3.into();
                w.set["spec"]["podManagementPolicy"] = "Parallel".into();
            },
            "ImagePull ~NotMadeYet",
        ),
        (
            "15: minReadySeconds",
            |w| {
                w.set["spec"]["replicas"] = 3.into();
                w.set["spec"]["minReadySeconds"] = 30.into();
                w.pods[1]["status"]["conditions"][1]["lastTransitionTime"] = JUST.into();
            },
            "~MinReady",
        ),
        (
            "about to be made",
            |w| {
                w.pods.pop();
            },
            "~NotMadeYet",
        ),
        (
            "16: refused",
            |w| {
                w.pods.pop();
                w.event("StatefulSet", "web", "FailedCreate", "create Pod web-1 in StatefulSet web failed error: Pod \"web-1\" is invalid: spec.containers: Required value");
            },
            "NotCreated",
        ),
        (
            "16: refused once, then made",
            |w| {
                w.event("StatefulSet", "web", "FailedCreate", "create Pod web-1 in StatefulSet web failed error: x");
                w.event("StatefulSet", "web", "SuccessfulCreate", "create Pod web-1 in StatefulSet web successful");
            },
            "",
        ),
        (
            "16: quota",
            |w| {
                w.pods.pop();
                w.event("StatefulSet", "web", "FailedCreate", "create Pod web-1 in StatefulSet web failed error: pods \"web-1\" is forbidden: exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1");
            },
            "NotCreated(Quota)",
        ),
        ("24: a stranger", |w| w.pods[1]["metadata"]["ownerReferences"] = Value::Null, "Stranger"),
        (
            "23: scale-down is held",
            |w| {
                w.set["spec"]["replicas"] = 1.into();
                w.pods[0]["status"]["conditions"][1]["status"] = "False".into();
                w.pods[0]["status"]["containerStatuses"][0]["ready"] = false.into();
                w.pods[0]["status"]["containerStatuses"][0]["state"] =
                    json!({"waiting": {"reason": "CrashLoopBackOff"}});
            },
            "ScaleDownHeld(CrashLoop)",
        ),
        ("23: scale-down goes on", |w| w.set["spec"]["replicas"] = 1.into(), "~ScaleDown"),
        (
            "depends on a set that is not there",
            |w| {
                w.set["metadata"]["annotations"] = json!({"stead.dev/depends-on": "db"});
                w.pods.clear();
            },
            "DependsOn(Dependency)",
        ),
        ("the newest spec has not been seen", |w| w.set["metadata"]["generation"] = 2.into(), "~Unseen"),
        ("20: no grace", |w| w.set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 0.into(), "-NoGrace"),
    ]);
}

#[test]
fn a_roll_out_is_followed_to_what_holds_it() {
    check(&[
        (
            "17: stuck on a broken pod",
            |w| {
                w.rolls();
                w.waiting("ImagePullBackOff", "");
            },
            "RollOutStuck(ImagePull)",
        ),
        ("17: not begun", |w| w.set["status"]["updateRevision"] = "web-2".into(), "~RollOut"),
        (
            "18: partition",
            |w| {
                w.rolls();
                w.set["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
            },
            "-Partition",
        ),
        (
            "18: OnDelete",
            |w| {
                w.rolls();
                w.set["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
            },
            "-OnDelete",
        ),
        (
            "18: paused",
            |w| {
                w.rolls();
                w.set["metadata"]["annotations"] = json!({"stead.dev/paused": "true"});
            },
            "-Paused",
        ),
        (
            "18: a companion rolls out",
            |w| {
                w.set["status"]["updateRevision"] = "web-2".into();
                w.managed(json!({}));
            },
            "~RollOut",
        ),
        (
            "18: a companion waits for a pod that starts",
            |w| {
                w.rolls();
                w.managed(json!({}));
                w.waiting("ContainerCreating", "");
            },
            "~RollOut(~Starting)",
        ),
        (
            "18: the partition of a companion",
            |w| {
                w.rolls();
                w.managed(json!({"stead.dev/partition": "1"}));
            },
            "-Partition",
        ),
        (
            "18: a companion that is not there",
            |w| {
                w.rolls();
                w.managed(json!({}));
                w.companion = Some(false);
            },
            "NoCompanion -OnDelete",
        ),
        (
            "18: a companion that has looked holds another lease",
            |w| {
                w.rolls();
                w.managed(json!({"stead.dev/progress": r#"{"message": "Revision \"web-2\" is progressing"}"#}));
                w.companion = Some(false);
            },
            "~RollOut",
        ),
        (
            "what no companion can do",
            |w| w.managed(json!({"stead.dev/reserve-ordinals": "0", "stead.dev/max-unavailable": "none"})),
            "-IgnoredAnnotation -IgnoredAnnotation",
        ),
        (
            "what another cluster does not know",
            |w| {
                w.heals = false;
                w.rolls();
                w.set["metadata"]["annotations"] = json!({"stead.dev/paused": "true", "stead.dev/heal": "false"});
            },
            "~RollOut -IgnoredAnnotation",
        ),
        (
            "18: it waits for a pod that starts",
            |w| {
                w.rolls();
                w.waiting("ContainerCreating", "");
            },
            "~RollOut(~Starting)",
        ),
        (
            "undone",
            |w| w.set["metadata"]["annotations"] = json!({"stead.dev/rolled-back-from": "web-2"}),
            "-RolledBack",
        ),
    ]);
}

#[test]
fn names_are_followed_to_the_service() {
    check(&[
        ("21: none", |w| w.services.clear(), "ServiceMissing"),
        ("21: wrong selector", |w| w.services[0]["spec"]["selector"] = json!({"app": "wbe"}), "WrongSelector"),
        ("21: no selector", |w| w.services[0]["spec"]["selector"] = Value::Null, "WrongSelector"),
        (
            "21: a selector of fewer labels",
            |w| w.set["spec"]["template"]["metadata"]["labels"] = json!({"app": "web", "tier": "db"}),
            "",
        ),
        ("21: wrong serviceName", |w| w.services[0]["metadata"]["name"] = "web-headless".into(), "WrongServiceName"),
        (
            "21: another Service that is not headless does not count",
            |w| {
                w.services[0]["metadata"]["name"] = "web-lb".into();
                w.services[0]["spec"]["clusterIP"] = "10.0.0.1".into();
            },
            "ServiceMissing",
        ),
        ("21: not headless", |w| w.services[0]["spec"]["clusterIP"] = "10.0.0.1".into(), "-NotHeadless"),
        ("21: no serviceName", |w| w.set["spec"]["serviceName"] = Value::Null, "-NoServiceName"),
    ]);
}

#[test]
fn a_broken_pod_of_a_roll_out_is_to_be_deleted_by_hand_only_where_nothing_heals() {
    let by_hand = "delete pod web-1";
    for (heals, template_mended, wanted) in
        [(true, false, false), (true, true, false), (false, false, true), (false, true, true)]
    {
        let mut world = World::healthy();
        world.rolls();
        world.waiting("ImagePullBackOff", "");
        world.heals = heals;
        if template_mended {
            world.set["status"]["updateRevision"] = "web-1".into();
        }
        let report = world.report();
        let mends = mends(&report);
        assert_eq!(
            mends.contains(by_hand),
            wanted,
            "heals {heals}, mended {template_mended}:\n{}",
            crate::text::report(&report)
        );
        assert_eq!(mends.contains("rollout undo"), !template_mended, "{mends}");
    }
}

#[test]
fn a_smaller_request_fits_beside_what_is_there() {
    let mut world = World::healthy();
    world.pods[0]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1500m"}});
    world.unscheduled("1 Insufficient cpu");
    world.pods[1]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "3"}});
    let told = mends(&world.report());
    assert!(told.contains("set resources statefulset/web -c main --requests=cpu=2500m"), "{told}");
    world.placed = false;
    let told = mends(&world.report());
    assert!(told.contains("--requests=cpu=AMOUNT"), "{told}");
}

#[test]
fn the_class_that_most_likely_works_is_proposed() {
    let mut world = World::healthy();
    world.unbound(Value::Null);
    let class = |name: &str, provisioner: &str| json!({"metadata": {"name": name}, "provisioner": provisioner});
    world.classes =
        vec![class("a-by-hand", "kubernetes.io/no-provisioner"), class("b-other", "x"), class("standard", "y")];
    let told = mends(&world.report());
    assert!(told.contains("kubectl patch storageclass standard -p"), "it has made a volume: {told}");
    world.classes[1]["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "false"});
    let told = mends(&world.report());
    assert!(told.contains("kubectl patch storageclass b-other -p"), "it was the default once: {told}");
}

#[test]
fn a_volume_that_would_fit_is_offered_and_the_others_say_why_not() {
    let mut world = World::healthy();
    world.unbound("standard".into());
    world.classes[0]["provisioner"] = "kubernetes.io/no-provisioner".into();
    world.volumes = vec![volume("free-but-small", "Available", None), volume("old", "Released", Some("data-web-9"))];
    world.volumes[0]["spec"]["capacity"]["storage"] = "100Mi".into();
    let report = world.report();
    let text = crate::text::report(&report);
    for part in [
        "persistentvolume/free-but-small: too small: 100Mi",
        "persistentvolume/old: Released, of the claim ns/data-web-9",
        "kubectl patch pv old --type=json -p '[{\"op\":\"remove\",\"path\":\"/spec/claimRef\"}]'",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}
