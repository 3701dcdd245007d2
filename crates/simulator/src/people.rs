//! The people of a simulated cluster: what they ask for, change, delete and mend.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::line::Line;
use crate::model::{Model, Set, place};
use crate::nodes::BAD_IMAGE;
use crate::profile::LATE_MAX_MS;
use crate::rng::Rng;
use crate::world::{Part, World};

const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";
const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
/// The name of a budget over the pods of all sets.
pub(crate) const SHARED: &str = "shared";
/// Most replicas that anybody asks for.
const REPLICAS_MAX: u64 = 4;
/// Names of claim templates.
const CLAIM_TEMPLATES: &[&[&str]] = &[&[], &["data"], &["data"], &["data", "log"]];
/// Between two actions; and of people who take their time, longer than any view of the world is late.
const PAUSE_MAX_MS: u64 = 60_000;
const LONG_PAUSE_MS: (u64, u64) = (100_000, 160_000);
/// How long people wait for the moment in which something hurts most, and how often they look.
const MOMENT_MAX: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often a set is tried to be made anew while the old one is still going.
const TRIES_MAX: u32 = 20;
/// Until a bad image is taken back.
const REGRET_MAX_MS: u64 = 60_000;
/// While the server is away.
const ASK_AGAIN: Duration = Duration::from_millis(200);

pub(crate) struct People {
    line: Line,
    world: Arc<World>,
    rng: Rng,
    /// Number of the newest image.
    image: u32,
    /// UID of an object that owns some strange pods.
    keeper: Value,
}

/// What people do, weighted by how often it stands here.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Scale,
    NewImage,
    BadImage,
    /// A bad image, taken back in the middle of the roll-out.
    BadRollOut,
    /// An image, taken back the moment that the controller cannot see what it did.
    Waver,
    /// A change of a set that has been paused for long.
    ChangePaused,
    Undo,
    DeletePod,
    KillPod,
    /// A pod whose name another one has, the moment that it is to go.
    Supplant,
    DeleteSet,
    DeleteClaim,
    DeleteVolume,
    Strange,
    Evict,
    Tune,
    ChangeClaims,
    Nothing,
}

const DEEDS: &[Deed] = &[
    Deed::Scale,
    Deed::Scale,
    Deed::Scale,
    Deed::NewImage,
    Deed::NewImage,
    Deed::NewImage,
    Deed::BadImage,
    Deed::BadRollOut,
    Deed::Waver,
    Deed::ChangePaused,
    Deed::Undo,
    Deed::DeletePod,
    Deed::DeletePod,
    Deed::KillPod,
    Deed::Supplant,
    Deed::DeleteSet,
    Deed::DeleteSet,
    Deed::DeleteClaim,
    Deed::DeleteVolume,
    Deed::Strange,
    Deed::Strange,
    Deed::Evict,
    Deed::Evict,
    Deed::Tune,
    Deed::Tune,
    Deed::ChangeClaims,
    Deed::Nothing,
];

impl People {
    #[must_use]
    pub(crate) fn new(line: Line) -> Self {
        let world = line.world.clone();
        Self { rng: world.rng("people"), line, world, image: 1, keeper: Value::Null }
    }

    /// What a cluster has before anybody uses it.
    pub(crate) async fn prepare(&mut self) {
        let account = json!({"metadata": {"name": "default", "namespace": "default"}});
        self.ask(Method::POST, "/api/v1/namespaces/default/serviceaccounts", Some(account)).await;
        let class = json!({
            "metadata": {
                "name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "stead.dev/local", "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true,
        });
        self.ask(Method::POST, "/apis/storage.k8s.io/v1/storageclasses", Some(class)).await;
        let keeper = json!({"metadata": {"name": "keeper"}});
        let made = self.line.send(Method::POST, CONFIGS, Some(keeper)).await;
        self.keeper = made.map_or(Value::Null, |(_, keeper)| keeper["metadata"]["uid"].clone());
    }

    /// Asks for sets, then does this and that with them.
    pub(crate) async fn act(&mut self) {
        let names: &[&str] = if self.rng.percent(25) { &["web", "db"] } else { &["web"] };
        // One budget over both sets, or one for each: of two over one pod the server accepts none.
        let shared = (names.len() == 2 && self.rng.percent(50)).then(|| names.to_vec());
        if let Some(names) = &shared {
            let selector = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": names}]});
            let budget = json!({"metadata": {"name": SHARED}, "spec": {"maxUnavailable": 1, "selector": selector}});
            self.ask(Method::POST, BUDGETS, Some(budget)).await;
        }
        for name in names {
            let set = self.draw_set(name);
            self.ask(Method::POST, SETS, Some(set)).await;
            if shared.is_none() && self.rng.percent(40) {
                let budget = json!({
                    "metadata": {"name": name},
                    "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": name}}},
                });
                self.ask(Method::POST, BUDGETS, Some(budget)).await;
            }
        }
        for _ in 0..self.rng.between(2, 9) {
            sleep(self.pause()).await;
            let (name, deed) = (*self.rng.pick(names), *self.rng.pick(DEEDS));
            self.world.say(&format!("people: {deed:?} {name}"));
            self.do_one(name, deed).await;
        }
        sleep(self.pause()).await;
    }

    fn pause(&self) -> Duration {
        if self.world.profile.patient && self.rng.percent(60) {
            let (least, most) = LONG_PAUSE_MS;
            return Duration::from_millis(self.rng.between(least, most));
        }
        self.rng.spread(PAUSE_MAX_MS)
    }

    async fn do_one(&mut self, name: &str, deed: Deed) {
        match deed {
            Deed::Scale => {
                let replicas = self.rng.between(0, REPLICAS_MAX);
                self.patch_set(name, json!({"spec": {"replicas": replicas}})).await;
            }
            Deed::NewImage => self.new_image(name).await,
            Deed::Waver => self.waver(name).await,
            Deed::ChangePaused => {
                self.patch_set(name, json!({"metadata": {"annotations": {"stead.dev/paused": "true"}}})).await;
                sleep(Duration::from_millis(LONG_PAUSE_MS.0)).await;
                self.new_image(name).await;
            }
            Deed::BadImage => {
                self.image += 1;
                self.set_image(name, &format!("i:{}{BAD_IMAGE}", self.image)).await;
            }
            Deed::Undo => {
                let before = self.rng.between(1, u64::from(self.image));
                self.set_image(name, &format!("i:{before}")).await;
            }
            Deed::BadRollOut => {
                let before = self.image;
                self.image += 1;
                self.set_image(name, &format!("i:{}{BAD_IMAGE}", self.image)).await;
                sleep(self.rng.spread(REGRET_MAX_MS)).await;
                self.set_image(name, &format!("i:{before}")).await;
            }
            Deed::DeletePod => {
                let Some(pod) = self.any_pod(name) else { return };
                self.ask(Method::DELETE, &format!("{PODS}/{pod}"), Some(json!({}))).await;
            }
            Deed::KillPod => {
                let Some(pod) = self.any_pod(name) else { return };
                self.kill(&pod).await;
            }
            Deed::Supplant => self.supplant(name).await,
            Deed::DeleteSet => self.delete_set(name).await,
            Deed::DeleteClaim => {
                let claim = format!("data-{name}-{}", self.rng.below(REPLICAS_MAX));
                self.ask(Method::DELETE, &format!("{CLAIMS}/{claim}"), None).await;
            }
            Deed::DeleteVolume => {
                let volumes: Vec<String> = self.world.model.lock().volumes.keys().cloned().collect();
                if volumes.is_empty() {
                    return;
                }
                let volume = self.rng.pick(&volumes);
                self.ask(Method::DELETE, &format!("{VOLUMES}/{volume}"), None).await;
            }
            Deed::Strange => {
                let pod = format!("{name}-{}", self.rng.below(REPLICAS_MAX));
                let owned = self.rng.percent(40);
                self.put_in_the_way(name, &pod, owned).await;
            }
            Deed::Evict => {
                for _ in 0..2 {
                    let Some(pod) = self.any_pod(name) else { return };
                    let eviction = json!({"metadata": {"name": pod}});
                    self.ask(Method::POST, &format!("{PODS}/{pod}/eviction"), Some(eviction)).await;
                }
            }
            Deed::Tune => self.tune(name).await,
            Deed::ChangeClaims => self.change_claims(name).await,
            Deed::Nothing => {}
        }
    }

    async fn new_image(&mut self, name: &str) {
        self.image += 1;
        self.set_image(name, &format!("i:{}", self.image)).await;
    }

    /// Removes a pod by force.
    async fn kill(&self, pod: &str) {
        let uid = self.world.model.lock().pods.get(pod).map(|pod| pod.uid.clone());
        self.world.model.lock().forced.extend(uid);
        self.ask(Method::DELETE, &format!("{PODS}/{pod}"), Some(json!({"gracePeriodSeconds": 0}))).await;
    }

    /// A new image, taken back when one pod has it and the next one was just told to end, which its controller does not
    /// see: whoever forgets what it did takes two down.
    async fn waver(&mut self, name: &str) {
        let image = |set: &Set| set.json["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        let Some(before) = self.world.model.lock().sets.get(name).map(image) else { return };
        self.new_image(name).await;
        let now = format!("i:{}", self.image);
        let has_it = |model: &Model| {
            model.pods.iter().any(|(pod, is)| place(pod).is_some_and(|(set, _)| set == name) && is.image == now)
        };
        if self.moment(|world| has_it(&world.model.lock())).await {
            self.world.set_trap(true);
            // An error means that it was not sprung: then the moment is as good as any.
            let _ = timeout(MOMENT_MAX, self.world.snapped.notified()).await;
            self.world.set_trap(false);
        }
        self.set_image(name, before.as_str().unwrap_or("i:1")).await;
    }

    /// Waits for a moment; whether it came.
    async fn moment(&self, is_it: impl Fn(&World) -> bool) -> bool {
        let end = Instant::now() + MOMENT_MAX;
        while !is_it(&self.world) {
            if Instant::now() >= end {
                return false;
            }
            sleep(LOOK_AGAIN).await;
        }
        true
    }

    /// Kills a pod, gives its name to one of another owner, and lets the controller end it, which sees nothing of that.
    async fn supplant(&mut self, name: &str) {
        let Some(pod) = self.any_pod(name) else { return };
        if self.world.profile.echo > 0 {
            self.world.make_late(Part::Sets, "pods", self.rng.spread(LATE_MAX_MS));
        }
        self.kill(&pod).await;
        self.put_in_the_way(name, &pod, true).await;
        if self.rng.percent(50) {
            self.new_image(name).await;
        } else {
            self.patch_set(name, json!({"spec": {"replicas": 0}})).await;
        }
    }

    /// A pod by a name of the set, perhaps with an owner.
    async fn put_in_the_way(&self, name: &str, pod: &str, owned: bool) {
        let labels = if self.rng.percent(50) { json!({"app": name}) } else { json!({"app": "other"}) };
        let owner = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "name": "keeper", "uid": self.keeper, "controller": true,
        });
        let owners = if owned { json!([owner]) } else { json!([]) };
        let pod = json!({
            "metadata": {"name": pod, "labels": labels, "ownerReferences": owners},
            "spec": {"containers": [{"name": "c", "image": "strange"}]},
        });
        self.ask(Method::POST, PODS, Some(pod)).await;
    }

    fn any_pod(&self, set: &str) -> Option<String> {
        let model = self.world.model.lock();
        let pods: Vec<&String> = model.pods.keys().filter(|pod| place(pod).is_some_and(|(s, _)| s == set)).collect();
        if pods.is_empty() { None } else { Some((*self.rng.pick(&pods)).clone()) }
    }

    async fn set_image(&self, name: &str, image: &str) {
        let template = json!({"spec": {"containers": [{"name": "c", "image": image}]}});
        self.patch_set(name, json!({"spec": {"template": template}})).await;
    }

    async fn patch_set(&self, name: &str, patch: Value) {
        self.ask(Method::PATCH, &format!("{SETS}/{name}"), Some(patch)).await;
    }

    async fn tune(&self, name: &str) {
        let patch = match self.rng.below(11) {
            9 => self.draw_overrides(),
            8 => json!({"metadata": {"annotations": {"stead.dev/evict": self.rng.pick(&["true", "false"])}}}),
            0 => json!({"spec": {"ordinals": {"start": self.rng.below(3)}}}),
            1 => json!({"spec": {"updateStrategy": {
                "type": "RollingUpdate", "rollingUpdate": {"partition": self.rng.below(4)},
            }}}),
            2 => json!({"spec": {"updateStrategy": {
                "type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": self.rng.between(1, 3)},
            }}}),
            3 => json!({"spec": {"persistentVolumeClaimRetentionPolicy": self.draw_retention()}}),
            4 => json!({"spec": {"minReadySeconds": self.rng.below(10)}}),
            5 => json!({"metadata": {"annotations": {"stead.dev/paused": self.rng.pick(&["true", "false"])}}}),
            6 => json!({"spec": {"updateStrategy": {"type": "Recreate", "rollingUpdate": null}}}),
            7 => self.draw_stopped(),
            _ => json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}}),
        };
        self.patch_set(name, patch).await;
    }

    /// Lets a claim template grow, or adds one; refused where the set does not ask for it.
    async fn change_claims(&self, name: &str) {
        let set = self.world.model.lock().sets.get(name).map(|set| set.json.clone());
        let Some(set) = set else { return };
        let mut templates = set["spec"]["volumeClaimTemplates"].as_array().cloned().unwrap_or_default();
        let missing = ["data", "log"].into_iter().find(|t| templates.iter().all(|has| has["metadata"]["name"] != **t));
        match (missing, templates.first_mut()) {
            (None, Some(first)) => first["spec"]["resources"]["requests"]["storage"] = "2Gi".into(),
            (Some(_), Some(first)) if self.rng.percent(50) => {
                first["spec"]["resources"]["requests"]["storage"] = "2Gi".into();
                first["metadata"]["labels"] = json!({"grown": "yes"});
            }
            (Some(missing), _) => templates.push(claim_template(missing)),
            (None, None) => {}
        }
        self.patch_set(name, json!({"spec": {"volumeClaimTemplates": templates}})).await;
    }

    /// Deletes a set in one of the three ways; mostly it comes again.
    async fn delete_set(&mut self, name: &str) {
        let policy = *self.rng.pick(&["Background", "Foreground", "Orphan"]);
        self.world.say(&format!("people: delete {name}, {policy}"));
        self.ask(Method::DELETE, &format!("{SETS}/{name}"), Some(json!({"propagationPolicy": policy}))).await;
        if self.rng.percent(25) {
            return;
        }
        if self.rng.percent(50) {
            sleep(self.rng.spread(30_000)).await;
        }
        let set = self.draw_set(name);
        for _ in 0..TRIES_MAX {
            if self.world.profile.echo > 0 && self.rng.percent(20) {
                self.world.make_late(Part::Garbage, "statefulsets", self.rng.spread(LATE_MAX_MS));
            }
            if self.ask(Method::POST, SETS, Some(set.clone())).await == 201 {
                return;
            }
            sleep(Duration::from_secs(2)).await;
        }
    }

    /// Another patch for one or two ordinals, or none.
    fn draw_overrides(&self) -> Value {
        let patch = |rng: &Rng| json!({"metadata": {"annotations": {"note": rng.below(3).to_string()}}});
        let first = self.rng.below(REPLICAS_MAX);
        let overrides = match self.rng.below(3) {
            0 => Value::Null,
            1 => json!({first.to_string(): patch(&self.rng)}).to_string().into(),
            _ => json!({format!("{first}-{}", first + 1): patch(&self.rng)}).to_string().into(),
        };
        json!({"metadata": {"annotations": {"stead.dev/overrides": overrides}}})
    }

    /// Stops one or two ordinals, or starts all again.
    fn draw_stopped(&self) -> Value {
        let any = |rng: &Rng| rng.below(REPLICAS_MAX);
        let stopped = match self.rng.below(3) {
            0 => Value::Null,
            1 => any(&self.rng).to_string().into(),
            _ => format!("{},{}", any(&self.rng), any(&self.rng)).into(),
        };
        json!({"metadata": {"annotations": {"stead.dev/stop-ordinals": stopped}}})
    }

    fn draw_retention(&self) -> Value {
        let any = |rng: &Rng| *rng.pick(&["Retain", "Delete"]);
        json!({"whenDeleted": any(&self.rng), "whenScaled": any(&self.rng)})
    }

    fn draw_set(&self, name: &str) -> Value {
        let rng = &self.rng;
        let mut annotations = json!({});
        for (annotation, value, chance) in [
            ("stead.dev/paused", "true", 5),
            ("stead.dev/ordered-delete", "true", 15),
            ("stead.dev/evict", "true", 30),
            ("stead.dev/hand-over", r#"["leave"]"#, 25),
            ("stead.dev/hand-over-seconds", "20", 50),
            ("stead.dev/progress-deadline-seconds", "60", 15),
            ("stead.dev/grow-claims", "true", 40),
        ] {
            if rng.percent(chance) {
                annotations[annotation] = value.into();
            }
        }
        let strategy = if rng.percent(12) {
            json!({"type": "OnDelete"})
        } else if rng.percent(12) {
            json!({"type": "Recreate"})
        } else {
            let partition = if rng.percent(20) { rng.below(4) } else { 0 };
            let most = if rng.percent(40) { rng.between(2, 3) } else { 1 };
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition, "maxUnavailable": most}})
        };
        let mut pod = json!({
            "terminationGracePeriodSeconds": 10,
            "containers": [{"name": "c", "image": format!("i:{}", self.image)}],
        });
        let (patient, silent) = (self.world.profile.patient, self.world.profile.silent);
        if rng.percent(50) || silent {
            let soon =
                |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 20});
            pod["tolerations"] = json!([soon("node.kubernetes.io/not-ready"), soon("node.kubernetes.io/unreachable")]);
        }
        // A set that was deleted without its pods may so find pods with other volumes.
        let templates = if silent && rng.percent(80) { &[] } else { *rng.pick(CLAIM_TEMPLATES) };
        let claims: Vec<Value> = templates.iter().copied().map(claim_template).collect();
        json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {
                "replicas": rng.between(0, REPLICAS_MAX), "serviceName": name,
                "selector": {"matchLabels": {"app": name}},
                "podManagementPolicy": if rng.percent(40) { "Parallel" } else { "OrderedReady" },
                "updateStrategy": strategy,
                "minReadySeconds": if rng.percent(if patient { 60 } else { 30 }) { rng.between(1, 10) } else { 0 },
                "ordinals": {"start": if rng.percent(20) { rng.between(1, 3) } else { 0 }},
                "persistentVolumeClaimRetentionPolicy": self.draw_retention(),
                "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
                "volumeClaimTemplates": claims,
            },
        })
    }

    /// Afterwards: takes back what cannot work, so that every set can be as its spec says.
    pub(crate) async fn mend(&mut self) {
        self.image += 1;
        let good = format!("i:{}", self.image);
        let sets: Vec<(String, Value)> = {
            let model = self.world.model.lock();
            model.sets.iter().map(|(name, set)| (name.clone(), (*set.json).clone())).collect()
        };
        for (name, set) in sets {
            self.world.say(&format!("people: mend {name}"));
            let image = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or("");
            let mut patch = json!({"metadata": {"annotations": {"stead.dev/paused": null}}});
            // Whether a bad image was ever in a revision that pods below a partition are made from, nobody knows.
            if set["spec"]["updateStrategy"]["type"] != "Recreate" {
                patch["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
            }
            self.patch_set(&name, patch).await;
            if image.ends_with(BAD_IMAGE) || self.rng.percent(50) {
                self.set_image(&name, &good).await;
            }
        }
        let strange: Vec<String> = {
            let model = self.world.model.lock();
            let strange = model.pods.iter().filter(|(_, pod)| pod.owner_kind != "StatefulSet");
            strange.map(|(name, _)| name.clone()).collect()
        };
        for pod in strange {
            self.ask(Method::DELETE, &format!("{PODS}/{pod}"), Some(json!({}))).await;
        }
    }

    /// The status of one request; people wait for a server that is away.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> u16 {
        while self.world.server().is_none() {
            sleep(ASK_AGAIN).await;
        }
        let told = format!("people: {method} {path}");
        match self.line.send(method, path, body).await {
            Ok((status, answer)) => {
                let why = if status >= 400 { answer["message"].as_str().unwrap_or("") } else { "" };
                self.world.say(&format!("{told}: {status} {why}"));
                status
            }
            Err(error) => {
                self.world.say(&format!("{told}: {error}"));
                0
            }
        }
    }
}

fn claim_template(name: &str) -> Value {
    let request = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    json!({"metadata": {"name": name}, "spec": request})
}
