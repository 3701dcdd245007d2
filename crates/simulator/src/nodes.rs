//! Simulated nodes: they run the pods that are bound to them, and tell how these are, as a kubelet does.
//!
//! A node that is cut off hears and tells nothing, and its pods run on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::line::Line;
use crate::model::{Model, Pod};
use crate::plant::Plant;
use crate::rng::Rng;
use crate::world::{Part, World};

/// How often a node says that it is there: early enough to be tried again for some time before its silence counts
/// (`parts::SILENCE_MAX`), and as late as that goes where nothing fails. It is the largest part of all writes.
const HEARTBEAT: Duration = Duration::from_secs(25);
const HEARTBEAT_IN_CALM: Duration = Duration::from_secs(45);
/// Pause after a request that failed.
const AGAIN: Duration = Duration::from_millis(300);
/// An image of this tag cannot be pulled.
pub(crate) const BAD_IMAGE: &str = "bad";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its image is pulled and its volumes are mounted until then.
    Starting(Instant),
    /// It will never start.
    NoImage,
    /// It runs, and is Ready from then on.
    Running(Instant),
    Ready(Instant),
    Failed,
    /// It is told to end, and ends then.
    Stopping(Instant),
    Stopped,
}

#[derive(Debug)]
struct Container {
    name: String,
    stage: Stage,
    /// When the node took the pod on, by its clock.
    started: String,
    /// What the API server does not know yet.
    untold: bool,
    /// Since when it is (not) ready, by the node's clock.
    ready_since: String,
    /// The number of times that it will still lose its readiness.
    flaps: u32,
    fails: bool,
    /// The request to hand over that it works on, until when, and whether that has been told.
    handing_over: Option<(String, Instant, bool)>,
}

pub(crate) struct Node {
    number: u8,
    line: Line,
    world: Arc<World>,
    rng: Rng,
    pods: BTreeMap<String, Container>,
    next_heartbeat: Instant,
    registered: bool,
}

impl Node {
    #[must_use]
    pub(crate) fn new(number: u8, line: Line) -> Self {
        let world = line.world.clone();
        let rng = world.rng(&format!("node {number}"));
        Self { number, line, rng, pods: BTreeMap::new(), next_heartbeat: Instant::now(), registered: false, world }
    }

    fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        loop {
            let wake = self.sync().await;
            tokio::select! {
                biased;
                () = self.world.wake_nodes[usize::from(self.number)].notified() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    fn clock(&self) -> String {
        self.world.now(Part::Node(self.number)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// One look at everything; when to look again.
    async fn sync(&mut self) -> Instant {
        let heartbeat = if self.world.is_calm() { HEARTBEAT_IN_CALM } else { HEARTBEAT };
        let mut wake = Instant::now() + heartbeat;
        if self.world.is_off(self.number) {
            self.lose_power();
            return wake;
        }
        let reachable = !self.world.is_cut_off(self.number);
        if reachable {
            self.take_in();
        }
        self.advance();
        if reachable {
            if self.next_heartbeat <= Instant::now() {
                let done = self.heartbeat().await;
                self.next_heartbeat = Instant::now() + if done { heartbeat } else { AGAIN };
            }
            wake = wake.min(self.next_heartbeat);
            if !self.tell().await || !self.answer().await {
                wake = wake.min(Instant::now() + AGAIN);
            }
        }
        let due = self.pods.values().filter_map(|pod| match pod.stage {
            Stage::Starting(at) | Stage::Running(at) | Stage::Stopping(at) => Some(at),
            Stage::Ready(at) if pod.flaps > 0 || pod.fails => Some(at),
            _ => None,
        });
        let answers = self.pods.values().filter_map(|pod| pod.handing_over.as_ref().filter(|(_, _, told)| !told));
        let answers = answers.map(|(_, at, _)| (*at).max(Instant::now() + AGAIN));
        due.chain(answers).chain([wake]).min().unwrap_or(wake)
    }

    /// Every container ends; the node starts them again when it has power again.
    fn lose_power(&mut self) {
        for (uid, pod) in &mut self.pods {
            pod.stage = match pod.stage {
                Stage::Starting(_) | Stage::Running(_) | Stage::Ready(_) => {
                    Stage::Starting(Instant::now() + self.rng.spread(4000))
                }
                Stage::Stopping(_) | Stage::Stopped => Stage::Stopped,
                stage @ (Stage::NoImage | Stage::Failed) => stage,
            };
            pod.untold = true;
            self.world.model.lock().stops(&pod.name, uid);
        }
    }

    /// Looks at the pods that are bound to this node.
    fn take_in(&mut self) {
        let name = self.name();
        let (now, clock) = (Instant::now(), self.clock());
        let model = self.world.model.lock();
        let mine = model.pods.iter().filter(|(_, pod)| pod.node.as_deref() == Some(&name));
        let mine: BTreeMap<&str, _> = mine.map(|(name, pod)| (pod.uid.as_str(), (name, pod))).collect();
        for (uid, container) in &mut self.pods {
            let going = mine.get(uid.as_str()).is_none_or(|(_, pod)| pod.terminating);
            if going && !matches!(container.stage, Stage::Stopping(_) | Stage::Stopped) {
                container.stage = match container.stage {
                    Stage::Starting(_) | Stage::NoImage | Stage::Failed => Stage::Stopping(now),
                    _ => Stage::Stopping(now + self.rng.spread(8000)),
                };
            }
        }
        // Nothing is started while another one of its name is still there.
        for (uid, (name, pod)) in &mine {
            if let Some(ours) = self.pods.get_mut(*uid) {
                // Somebody else wrote its status, for example when this node was silent.
                ours.untold |= pod.ready != matches!(ours.stage, Stage::Ready(_)) && !pod.terminating;
                let annotations = &pod.json["metadata"]["annotations"];
                let request = annotations["stead.dev/hand-over-requested"].as_str();
                let open = request.filter(|_| annotations["stead.dev/hand-over-done"].is_null());
                let known = ours.handing_over.as_ref().map(|(request, ..)| request.as_str());
                if let Some(request) = open.filter(|request| known != Some(request)) {
                    // Longer than it may, at times.
                    ours.handing_over = Some((request.to_owned(), now + self.rng.spread(25_000), false));
                }
            }
            let early = self.world.plant == Some(Plant::StartsTooEarly);
            let known = self.pods.contains_key(*uid) || !early && self.pods.values().any(|other| other.name == **name);
            let ended = matches!(pod.phase.as_str(), "Failed" | "Succeeded");
            if known || ended && !pod.terminating || !pod.terminating && !has_its_volumes(&model, pod) {
                continue;
            }
            let (flap, fail) = (self.world.profile.flap, self.world.profile.fail);
            let container = Container {
                name: (*name).clone(),
                stage: match () {
                    () if pod.terminating => Stage::Stopped,
                    () if pod.image.ends_with(BAD_IMAGE) => Stage::NoImage,
                    () => Stage::Starting(now + self.rng.spread(4000)),
                },
                started: clock.clone(),
                ready_since: clock.clone(),
                untold: true,
                flaps: u32::from(self.rng.percent(flap)),
                fails: self.rng.percent(fail),
                handing_over: None,
            };
            self.pods.insert((*uid).to_owned(), container);
        }
        let gone = |uid: &String, pod: &Container| pod.stage == Stage::Stopped && !mine.contains_key(uid.as_str());
        self.pods.retain(|uid, pod| !gone(uid, pod));
    }

    /// Lets time do its work.
    fn advance(&mut self) {
        let (now, clock, calm) = (Instant::now(), self.clock(), self.world.is_calm());
        for (uid, pod) in &mut self.pods {
            let next = match pod.stage {
                Stage::Starting(at) if at <= now => {
                    let fault = self.world.model.lock().starts(&pod.name, uid, self.number);
                    if let Some(fault) = fault {
                        self.world.violated(fault);
                    }
                    Stage::Running(now + self.rng.spread(6000))
                }
                Stage::Running(at) if at <= now => {
                    pod.ready_since.clone_from(&clock);
                    Stage::Ready(now + Duration::from_millis(self.rng.between(1000, 60_000)))
                }
                Stage::Ready(at) if at <= now && pod.fails && !calm => {
                    pod.fails = false;
                    self.world.model.lock().stops(&pod.name, uid);
                    Stage::Failed
                }
                Stage::Ready(at) if at <= now && pod.flaps > 0 && !calm => {
                    pod.flaps -= 1;
                    pod.ready_since.clone_from(&clock);
                    Stage::Running(now + self.rng.spread(10_000))
                }
                Stage::Ready(at) if at <= now => {
                    (pod.flaps, pod.fails) = (0, false);
                    continue;
                }
                Stage::Stopping(at) if at <= now => {
                    self.world.model.lock().stops(&pod.name, uid);
                    Stage::Stopped
                }
                _ => continue,
            };
            pod.stage = next;
            pod.untold = true;
        }
    }

    /// Tells the API server what it does not know; whether that worked.
    async fn tell(&mut self) -> bool {
        let mut good = true;
        let uids: Vec<String> = self.pods.iter().filter(|(_, pod)| pod.untold).map(|(uid, _)| uid.clone()).collect();
        for uid in uids {
            let pod = &self.pods[&uid];
            let path = format!("/api/v1/namespaces/default/pods/{}", pod.name);
            let answer = if pod.stage == Stage::Stopped {
                let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
                self.line.send(Method::DELETE, &path, Some(options)).await
            } else {
                let patch = status(pod, &uid);
                let kind = "application/strategic-merge-patch+json";
                self.line.send_as(Method::PATCH, &format!("{path}/status"), kind, Some(patch)).await
            };
            let done = matches!(answer, Ok((200..=299 | 404 | 409, _)));
            good &= done;
            if let Some(pod) = self.pods.get_mut(&uid) {
                pod.untold = !done;
            }
        }
        good
    }

    /// Tells of pods that have handed over; whether that worked.
    async fn answer(&mut self) -> bool {
        let mut good = true;
        let now = Instant::now();
        for (uid, pod) in &mut self.pods {
            let Some((request, at, told)) = pod.handing_over.as_mut().filter(|(_, at, told)| !told && *at <= now)
            else {
                continue;
            };
            let version = {
                let model = self.world.model.lock();
                let there = model.pods.get(&pod.name).filter(|there| there.uid == *uid);
                let asks =
                    |there: &&Pod| there.json["metadata"]["annotations"]["stead.dev/hand-over-requested"] == **request;
                there.filter(asks).map(|there| there.json["metadata"]["resourceVersion"].clone())
            };
            let Some(version) = version else {
                *told = true;
                continue;
            };
            let code = if self.rng.percent(20) { "1" } else { "0" };
            let patch = json!({"metadata": {
                "uid": uid, "resourceVersion": version, "annotations": {"stead.dev/hand-over-done": code},
            }});
            let path = format!("/api/v1/namespaces/default/pods/{}/status", pod.name);
            let answer = self.line.send_as(Method::PATCH, &path, "application/merge-patch+json", Some(patch)).await;
            *told = matches!(answer, Ok((200..=299 | 404, _)));
            good &= *told;
            *at = now + AGAIN;
        }
        good
    }

    /// Renews the lease; the first time, and after a silence, the node object too.
    async fn heartbeat(&mut self) -> bool {
        let name = self.name();
        if !self.registered {
            let created = self.line.send(Method::POST, "/api/v1/nodes", Some(node(&name))).await;
            if !matches!(created, Ok((201 | 409, _))) {
                return false;
            }
            let lease =
                json!({"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40}});
            let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
            if !matches!(self.line.send(Method::POST, path, Some(lease)).await, Ok((201 | 409, _))) {
                return false;
            }
            self.registered = true;
        }
        let now = self.world.now(Part::Node(self.number)).strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
        let renewed = self.line.send(Method::PATCH, &path, Some(json!({"spec": {"renewTime": now}}))).await;
        let path = format!("/api/v1/nodes/{name}");
        let ready = self.world.model.lock().nodes.get(&name).is_some_and(Option::is_some);
        if !ready {
            let clock = self.clock();
            let status = json!({"status": {
                "capacity": {"cpu": "64", "memory": "64Gi", "pods": "110"},
                "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "110"},
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated",
                    "lastHeartbeatTime": clock, "lastTransitionTime": clock,
                }],
            }});
            let kind = "application/strategic-merge-patch+json";
            let told = self.line.send_as(Method::PATCH, &format!("{path}/status"), kind, Some(status)).await;
            if !matches!(told, Ok((200, _))) {
                return false;
            }
        }
        self.remove_volumes().await && matches!(renewed, Ok((200, _)))
    }

    /// Removes local volumes of this node that nobody has any more.
    async fn remove_volumes(&mut self) -> bool {
        let name = self.name();
        let released: Vec<String> = {
            let model = self.world.model.lock();
            let ours = model.volumes.iter().filter(|(_, volume)| {
                volume["status"]["phase"] == "Released"
                    && volume["metadata"]["deletionTimestamp"].is_null()
                    && volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
                    && volume["spec"]["nodeAffinity"].to_string().contains(&name)
            });
            ours.map(|(name, _)| name.clone()).collect()
        };
        let mut good = true;
        for volume in released {
            let path = format!("/api/v1/persistentvolumes/{volume}");
            good &= matches!(self.line.send(Method::DELETE, &path, None).await, Ok((200 | 202 | 404, _)));
        }
        good
    }
}

/// Whether the claims of a pod are bound: a node waits for that.
fn has_its_volumes(model: &Model, pod: &Pod) -> bool {
    let claims = pod.json["spec"]["volumes"].as_array().into_iter().flatten();
    let mut names = claims.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str());
    names.all(|name| model.claims.get(name).is_some_and(|claim| claim.json["status"]["phase"] == "Bound"))
}

fn node(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "spec": {},
    })
}

/// The status of a pod as a patch of this very pod.
fn status(pod: &Container, uid: &str) -> Value {
    let ready = matches!(pod.stage, Stage::Ready(_));
    let phase = match pod.stage {
        Stage::Starting(_) | Stage::NoImage => "Pending",
        Stage::Failed => "Failed",
        _ => "Running",
    };
    let mut container = json!({"name": "c", "image": "i", "imageID": "", "ready": ready, "restartCount": 0});
    if pod.stage == Stage::NoImage {
        container["state"] = json!({"waiting": {"reason": "ImagePullBackOff"}});
    }
    json!({
        "metadata": {"uid": uid},
        "status": {
            "phase": phase, "startTime": pod.started,
            "conditions": [{
                "type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": pod.ready_since,
            }],
            "containerStatuses": [container],
        },
    })
}
