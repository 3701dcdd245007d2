//! What a real StatefulSet controller did with a set, change by change, and what it told, compared with ours.
//!
//! `watch.txt` has scenes: commands, and what was seen of it in the order of the revisions, as `VIEW | LINE`. The views are compared
//! one by one: `order` (what was made, changed, ready and gone, over all objects), `status` (each status of the set that differs
//! from the one before), `set` (events of the set), `pod NAME` (the life of a pod), `told NAME` (its events). The scenes follow
//! each other. Where several things go on at the same time (`in any order` in the title), their common order is not compared.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{LOOK_AGAIN, PATIENCE, Replay, collect, quoted, read, told};

/// A scene in which nothing has changed for so long is over.
const QUIET: Duration = Duration::from_secs(30);
/// How long a command waits for what was seen before it, and for the status that was.
const BEFORE: Duration = Duration::from_secs(20);
const BEFORE_STATUS: Duration = Duration::from_millis(300);
const NAMESPACE: &str = "watch";
const RESOURCES: &[(&str, &str)] = &[
    ("pods", "api/v1"),
    ("events", "api/v1"),
    ("persistentvolumeclaims", "api/v1"),
    ("statefulsets", "apis/apps/v1"),
    ("controllerrevisions", "apis/apps/v1"),
];

/// One scene of the record.
#[derive(Default)]
struct Scene {
    name: String,
    in_any_order: bool,
    lines: Vec<Line>,
}

enum Line {
    /// Before the scene begins.
    Prepare(String),
    Command(String),
    Seen {
        view: String,
        text: String,
    },
}

/// The files and the scenes of the record.
fn scenes(text: &str) -> (Vec<(String, String)>, Vec<Scene>) {
    let (mut files, mut scenes) = (Vec::new(), Vec::<Scene>::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("--- file ") {
            let text = lines.by_ref().take_while(|line| *line != "--- end of file").map(|line| format!("{line}\n"));
            files.push((name.to_owned(), text.collect()));
        } else if let Some(title) = line.strip_prefix("#### ") {
            let name = title.split(':').next().unwrap_or_default().to_owned();
            scenes.push(Scene { name, in_any_order: title.contains("in any order"), lines: Vec::new() });
        } else if let Some(scene) = scenes.last_mut() {
            if let Some(command) = line.strip_prefix("@ ") {
                scene.lines.push(Line::Prepare(command.to_owned()));
                continue;
            }
            match (line.strip_prefix("$ "), line.split_once(" | ")) {
                (Some(command), _) => scene.lines.push(Line::Command(command.to_owned())),
                (None, Some((view, text))) => {
                    scene.lines.push(Line::Seen { view: view.to_owned(), text: text.to_owned() });
                }
                (None, None) => {}
            }
        }
    }
    (files, scenes)
}

/// The lines of each view.
type Views = BTreeMap<String, Vec<String>>;

/// One watch on the server for each kind.
struct Watchers {
    children: Vec<Child>,
    seen: Vec<(&'static str, Arc<Mutex<String>>)>,
}

impl Watchers {
    fn start(replay: &Replay) -> Self {
        let (mut children, mut seen) = (Vec::new(), Vec::new());
        for (resource, group) in RESOURCES {
            let line = format!("exec curl -sN $A \"$S/{group}/namespaces/{NAMESPACE}/{resource}?watch=1\"");
            let mut child = replay.shell(&line).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            seen.push((*resource, collect(child.stdout.take().unwrap())));
            children.push(child);
        }
        Self { children, seen }
    }

    /// Everything seen so far, in the order of the revisions.
    fn changes(&self) -> Vec<(u64, &'static str, Value)> {
        let mut all = Vec::new();
        for (resource, text) in &self.seen {
            let text = text.lock().unwrap_or_else(PoisonError::into_inner);
            // A line that is still on its way is not there yet.
            let whole = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            all.extend(whole.map(|change| (revision(&change["object"]), *resource, change)));
        }
        all.sort_by_key(|(revision, ..)| *revision);
        all
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What is known while the changes go by.
#[derive(Default)]
struct Telling {
    known: BTreeMap<(&'static str, String), Value>,
    /// Revisions by the order in which they were first heard of.
    letters: Vec<String>,
    /// The revision, the view and the line.
    told: Vec<(u64, String, String)>,
    now: u64,
}

impl Telling {
    fn say(&mut self, view: &str, text: String) {
        self.told.push((self.now, view.to_owned(), text));
    }

    /// Both in the common order and in the life of a pod.
    fn say_of_pod(&mut self, name: &str, text: &str) {
        self.say("order", format!("pod {name} {text}"));
        self.say(&format!("pod {name}"), text.to_owned());
    }

    fn letter(&mut self, revision: &str) -> char {
        if revision.is_empty() {
            return '-';
        }
        let at = self.letters.iter().position(|known| known == revision).unwrap_or_else(|| {
            self.letters.push(revision.to_owned());
            self.letters.len() - 1
        });
        char::from(b'A' + u8::try_from(at).expect("few revisions"))
    }

    /// What is to be told of these changes.
    fn of(changes: &[(u64, &'static str, Value)]) -> Self {
        let mut telling = Self::default();
        for (revision, resource, change) in changes {
            telling.now = *revision;
            telling.take(resource, change);
        }
        telling
    }

    fn take(&mut self, resource: &'static str, change: &Value) {
        let (object, gone) = (&change["object"], change["type"] == "DELETED");
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = (resource, name.clone());
        let old = if gone { self.known.remove(&key) } else { self.known.insert(key, object.clone()) };
        let old = old.filter(|old| old["metadata"]["uid"] == object["metadata"]["uid"]).unwrap_or_default();
        match resource {
            "events" if !gone => self.event(object),
            "statefulsets" => self.set(&old, object, gone),
            "controllerrevisions" => self.revision(&name, &old, object, gone),
            "persistentvolumeclaims" => self.claim(&name, &old, object, gone),
            "pods" => self.pod(&name, &old, object, gone),
            _ => {}
        }
    }

    fn event(&mut self, event: &Value) {
        let about = &event["involvedObject"];
        let view = match about["kind"].as_str() {
            Some("StatefulSet") => "set".to_owned(),
            Some("Pod") => format!("told {}", text(&about["name"])),
            _ => return,
        };
        let source = [&event["source"]["component"], &event["reportingComponent"]].map(text);
        let source = source.into_iter().find(|source| !source.is_empty()).unwrap_or("-");
        let (count, reason) = (event["count"].as_u64().unwrap_or(1), text(&event["reason"]));
        self.say(&view, format!("{} {reason} x{count} {source}: {}", text(&event["type"]), text(&event["message"])));
    }

    fn set(&mut self, old: &Value, set: &Value, gone: bool) {
        if gone {
            return self.say("order", "set gone".to_owned());
        }
        let ends = |set: &Value| set["metadata"]["deletionTimestamp"].is_string();
        if old.is_null() {
            self.say("order", "set made".to_owned());
        } else if old["metadata"]["generation"] != set["metadata"]["generation"] && !ends(set) {
            self.say("order", "set changed".to_owned());
        }
        if ends(set) && !ends(old) {
            self.say("order", "set ending".to_owned());
        }
        let (before, now) = (self.status(&old["status"]), self.status(&set["status"]));
        if old.is_null() || before != now {
            self.say("status", now);
        }
    }

    fn status(&mut self, status: &Value) -> String {
        let number = |field: &str| status[field].as_i64().unwrap_or(0);
        let [current, update] = ["currentRevision", "updateRevision"].map(|field| self.letter(text(&status[field])));
        format!(
            "seen {}: {} replicas, {} ready, {} available, {} current {current}, {} updated {update}",
            number("observedGeneration"),
            number("replicas"),
            number("readyReplicas"),
            number("availableReplicas"),
            number("currentReplicas"),
            number("updatedReplicas"),
        )
    }

    fn revision(&mut self, name: &str, old: &Value, object: &Value, gone: bool) {
        let (letter, number) = (self.letter(name), &object["revision"]);
        if gone {
            return self.say("order", format!("revision {letter} gone"));
        }
        if old.is_null() {
            self.say("order", format!("revision {letter} made {number}"));
        } else if old["revision"] != *number {
            self.say("order", format!("revision {letter} is {number}"));
        }
        if !old.is_null() && owners(old) != owners(object) {
            self.say("order", format!("revision {letter} owned by {}", owners(object)));
        }
    }

    fn claim(&mut self, name: &str, old: &Value, claim: &Value, gone: bool) {
        if gone {
            return self.say("order", format!("claim {name} gone"));
        }
        if old.is_null() {
            self.say("order", format!("claim {name} made"));
        }
        let before = if old.is_null() { "nobody".to_owned() } else { owners(old) };
        if before != owners(claim) {
            self.say("order", format!("claim {name} owned by {}", owners(claim)));
        }
        let ends = |claim: &Value| claim["metadata"]["deletionTimestamp"].is_string();
        if ends(claim) && !ends(old) {
            self.say("order", format!("claim {name} ending"));
        }
    }

    fn pod(&mut self, name: &str, old: &Value, pod: &Value, gone: bool) {
        if gone {
            return self.say_of_pod(name, "gone");
        }
        let view = format!("pod {name}");
        if old.is_null() {
            let letter = self.letter(text(&pod["metadata"]["labels"]["controller-revision-hash"]));
            self.say_of_pod(name, &format!("made at {letter}"));
        } else if owners(old) != owners(pod) {
            self.say("order", format!("pod {name} owned by {}", owners(pod)));
        }
        if pod["spec"]["nodeName"].is_string() && !old["spec"]["nodeName"].is_string() {
            self.say(&view, "scheduled".to_owned());
        }
        let ends = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_string();
        let (was, is) = (ready(old), ready(pod));
        if is && !was {
            self.say_of_pod(name, "ready");
        }
        if ends(pod) && !ends(old) {
            self.say_of_pod(name, "ending");
        }
        match (was && !is, ends(pod)) {
            (true, true) => self.say(&view, "stopped".to_owned()),
            (true, false) => self.say_of_pod(name, "not ready"),
            (false, _) => {}
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn owners(object: &Value) -> String {
    let owners = object["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let owners: Vec<String> =
        owners.iter().map(|owner| format!("{} {}", text(&owner["kind"]), text(&owner["name"]))).collect();
    if owners.is_empty() { "nobody".to_owned() } else { owners.join(" and ") }
}

/// A scene on its way.
struct Stage<'a> {
    replay: &'a mut Replay,
    watchers: &'a Watchers,
    /// The revision at which the scene began.
    from: u64,
    in_any_order: bool,
}

impl Stage<'_> {
    /// What has been seen since the scene began.
    fn seen(&self) -> Views {
        let lines = Telling::of(&self.watchers.changes()).told;
        self.views(lines.into_iter().filter(|(at, ..)| *at > self.from).map(|(_, view, text)| (view, text)))
    }

    fn views(&self, lines: impl Iterator<Item = (String, String)>) -> Views {
        let mut views = Views::new();
        for (view, text) in lines {
            views.entry(view).or_default().push(self.replay.plain.line(&text));
        }
        if self.in_any_order {
            views.get_mut("order").into_iter().for_each(|lines| lines.sort());
        }
        views
    }

    /// Waits until the last of what was seen before a command is there.
    fn reach(&self, wanted: &Views) {
        for (view, patience) in [("order", BEFORE), ("status", BEFORE_STATUS)] {
            let deadline = Instant::now() + patience;
            let Some(last) = wanted.get(view).and_then(|lines| lines.last()) else { continue };
            let often =
                |views: &Views| views.get(view).map_or(0, |lines| lines.iter().filter(|line| *line == last).count());
            while often(&self.seen()) < often(wanted) && Instant::now() < deadline {
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }

    /// Waits until all is as recorded, or nothing changes any more; the views that differ.
    fn settle(&mut self, scene: &str, wanted: &Views) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let (mut last, mut since) = (Views::new(), Instant::now());
        loop {
            let seen = self.seen();
            let mut views: Vec<&String> = wanted.keys().chain(seen.keys()).collect();
            views.sort();
            views.dedup();
            let none = Vec::new();
            let pair = |view: &String| (wanted.get(view).unwrap_or(&none), seen.get(view).unwrap_or(&none));
            let differing: Vec<&String> = views
                .iter()
                .copied()
                .filter(|view| {
                    let (theirs, ours) = pair(view);
                    theirs != ours && !self.replay.differences.excuse(&format!("{view} {scene}"), theirs, ours)
                })
                .collect();
            let over = differing.is_empty() || since.elapsed() > QUIET || Instant::now() > deadline;
            if over {
                self.replay.compared += views.len();
                self.replay.equal += views.iter().filter(|view| pair(view).0 == pair(view).1).count();
                let found = differing.into_iter().map(|view| {
                    let (theirs, ours) = pair(view);
                    format!("{view} {scene}\n{}", told(theirs, ours))
                });
                return found.collect();
            }
            if seen != last {
                (last, since) = (seen, Instant::now());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

fn prepare(replay: &Replay, files: &[(String, String)]) {
    for (name, text) in files {
        std::fs::write(replay.directory.join(name), text).unwrap();
    }
    let config =
        |path: &str, file: &str| format!("kubectl config view --raw -o jsonpath={{{path}}} | base64 -d > {file}");
    for line in [
        config(".users[0].user.client-certificate-data", "admin.crt"),
        config(".users[0].user.client-key-data", "admin.key"),
        config(".clusters[0].cluster.certificate-authority-data", "ca.crt"),
        "kubectl delete storageclass --all && kubectl apply -f standard.yaml".to_owned(),
        format!("kubectl create namespace {NAMESPACE} && kubectl config set-context --current --namespace={NAMESPACE}"),
        "kubectl wait --for=create serviceaccount/default --timeout=20s".to_owned(),
        "kubectl create -f svc.yaml".to_owned(),
    ] {
        let done = replay.run(&line, "");
        assert_eq!(done.code, 0, "{line}: {}", done.errors);
    }
    // So that no pod of the record waits for its image.
    for image in ["nginx:1.21", "nginx:1.22"] {
        let line = format!("kubectl run pull -n default --image={image} --restart=Never --quiet --rm -i -- true");
        assert_eq!(replay.run(&line, "").code, 0, "{}", quoted(&line));
    }
}

fn play(replay: &mut Replay, watchers: &Watchers, scene: &Scene) {
    for line in &scene.lines {
        if let Line::Prepare(command) = line {
            let done = replay.run(command, "");
            assert_eq!(done.code, 0, "{command}: {}", done.errors);
        }
    }
    let from = watchers.changes().last().map_or(0, |(revision, ..)| *revision);
    let mut stage = Stage { replay, watchers, from, in_any_order: scene.in_any_order };
    let mut so_far: Vec<(String, String)> = Vec::new();
    for line in &scene.lines {
        match line {
            Line::Prepare(_) => {}
            Line::Seen { view, text } => so_far.push((view.clone(), text.clone())),
            Line::Command(command) => {
                let wanted = stage.views(so_far.iter().cloned());
                stage.reach(&wanted);
                let done = stage.replay.run(command, "");
                assert_eq!(done.code, 0, "{command}: {}", done.errors);
            }
        }
    }
    let wanted = stage.views(so_far.into_iter());
    let found = stage.settle(&scene.name, &wanted);
    found.into_iter().for_each(|found| stage.replay.find(found));
}

fn replay_scenes(record: &str, at_least: usize) {
    let (files, scenes) = scenes(&read(&format!("{record}.txt")));
    let mut replay = Replay::new(record);
    prepare(&replay, &files);
    let watchers = Watchers::start(&replay);
    for scene in &scenes {
        play(&mut replay, &watchers, scene);
    }
    replay.finish(record, at_least);
}

#[test]
fn record_of_watch() {
    replay_scenes("watch", 70);
}

#[test]
fn record_of_watch_with_retention() {
    replay_scenes("watch-retention", 20);
}
