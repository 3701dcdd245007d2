//! What a real cluster answered to each command of the five documents, and what ours answers to the same commands in the same
//! order: with our command line, on a real server, with `edit`, terminals and watches.
//!
//! `records/seed-*.txt` are the records (`records/form.rs` says in which form), `records/plain.rs` what is not compared,
//! `records/differences.txt` what differs and why.

mod differences;
mod discovery;
mod form;
mod plain;
mod watch;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use stead_testkit::cluster::Cluster;
use stead_testkit::kubectl::Kubectl;

use crate::support::{root, start};
use differences::Differences;
use form::{Answer, Step, steps};
use plain::Plain;

/// A state that did not change for so long is not on its way to another one: longer than a pod may take to end.
const SETTLED: Duration = Duration::from_secs(35);
/// The same where differences are gathered for a person (`STEAD_RECORDS`), who has no time for what does not come.
const SETTLED_SOON: Duration = Duration::from_secs(5);
/// How long a state may be on its way.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a watch takes to come to the server at most.
const WATCH_COMES: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(30);
/// Commands that change nothing, unless one of [`CHANGES`] is in them: they are asked again while the cluster is on its way to the recorded state.
const LOOKS: &[&str] = &[
    "kubectl get",
    "kubectl describe",
    "kubectl logs",
    "for i in",
    "kubectl rollout history",
    "kubectl exec ",
    "curl ",
];
/// What makes a command one that changes something.
const CHANGES: &[&str] = &[" rm ", " touch ", " SET ", " sh ", "get pvc | grep", " -X ", " -d "];

fn folder() -> PathBuf {
    root().join("crates/stead/tests/e2e/records")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// A second terminal.
struct Watch {
    command: String,
    child: Child,
    seen: Arc<Mutex<String>>,
    errors: Arc<Mutex<String>>,
}

impl Watch {
    fn answer(&self, code: i32) -> Answer {
        let of = |text: &Mutex<String>| text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Answer { output: of(&self.seen), errors: of(&self.errors), code }
    }

    fn interrupt(&mut self) -> i32 {
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        self.child.wait().ok().and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts each line that comes into what was seen.
fn collect(from: impl std::io::Read + Send + 'static) -> Arc<Mutex<String>> {
    let seen = Arc::new(Mutex::new(String::new()));
    let into = seen.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push_str(&line);
            seen.push('\n');
        }
    });
    seen
}

/// One record on its way.
struct Replay {
    watches: Vec<Watch>,
    differences: Differences,
    plain: Plain,
    node: String,
    directory: PathBuf,
    compared: usize,
    equal: usize,
    found: Vec<String>,
    started: Instant,
    settled: Duration,
    gathered: Option<PathBuf>,
    kubectl: Kubectl,
    cluster: Cluster,
}

impl Replay {
    fn new(record: &str) -> Self {
        let cluster = start(&[]);
        let directory = cluster.directory().join("record");
        std::fs::create_dir_all(directory.join("bin")).unwrap();
        let program = directory.join("bin/kubectl");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stead"), &program).unwrap();
        let kubectl = cluster.kubectl(&program);
        let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}");
        let gathered = std::env::var_os("STEAD_RECORDS").map(|at| Path::new(&at).join(format!("{record}.found")));
        Self {
            watches: Vec::new(),
            differences: Differences::of(record, &read("differences.txt")),
            plain: Plain::new(&node),
            node,
            directory,
            compared: 0,
            equal: 0,
            found: Vec::new(),
            started: Instant::now(),
            settled: if gathered.is_some() { SETTLED_SOON } else { SETTLED },
            gathered,
            kubectl,
            cluster,
        }
    }

    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        let path = format!("{}:{}", self.directory.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        command.args(["-c", line]).current_dir(&self.directory).env("PATH", path);
        command.env("KUBECONFIG", self.cluster.kubeconfig());
        command.env("S", format!("https://127.0.0.1:{}", self.cluster.port()));
        command.env("A", "--cacert ca.crt --cert admin.crt --key admin.key");
        command
    }

    /// Runs a line as a person would.
    fn run(&self, line: &str, input: &str) -> Answer {
        let mut child = self
            .shell(&format!("exec timeout 100 sh -c {}", quoted(line)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let feeding = std::thread::spawn(move || {
            // A command that does not read its input closes it: no fault of the test.
            let _ = stdin.write_all(input.as_bytes());
        });
        let output = child.wait_with_output().unwrap();
        let _ = feeding.join();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Answer { output: text(&output.stdout), errors: text(&output.stderr), code: output.status.code().unwrap_or(-1) }
    }

    fn on_terminal(&self, line: &str, typed: &str) -> Answer {
        let done = self.kubectl.on_terminal(line.strip_prefix("kubectl ").unwrap_or(line), typed);
        Answer { output: done.stdout, errors: done.stderr, code: done.code }
    }

    fn open_watches(&self) -> u64 {
        let metrics = self.kubectl.ok("get --raw /metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix("apiserver_longrunning_requests"));
        line.and_then(|line| line.rsplit(' ').next()).and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Starts a command in a second terminal and waits until the server knows of its watch.
    fn start(&mut self, command: String) {
        let mut fewest = self.open_watches();
        let mut child = self
            .shell(&format!("exec {command}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let seen = collect(child.stdout.take().unwrap());
        let errors = collect(child.stderr.take().unwrap());
        self.watches.push(Watch { command, child, seen, errors });
        // Others come and go as well: one more than the fewest that were seen is ours, and so is one that comes as another goes.
        let deadline = Instant::now() + WATCH_COMES;
        loop {
            let now = self.open_watches();
            if now > fewest || Instant::now() > deadline {
                return;
            }
            fewest = fewest.min(now);
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn end(&mut self, command: &str, recorded: &Answer) {
        let at = self.watches.iter().position(|watch| watch.command == command).expect("a watch that was started");
        let mut watch = self.watches.remove(at);
        self.reach(command, recorded, |_| watch.answer(recorded.code));
        let code = watch.interrupt();
        let answer = watch.answer(code);
        self.compare(command, "", recorded, &answer);
    }

    /// Asks again and again until the recorded state is there, or the state no longer changes; the last answer.
    fn reach(&mut self, command: &str, recorded: &Answer, mut ask: impl FnMut(&Self) -> Answer) -> Answer {
        let theirs = self.plain.lines(command, "", recorded);
        let deadline = Instant::now() + PATIENCE;
        let (mut last, mut since) = (Vec::new(), Instant::now());
        loop {
            let answer = ask(self);
            let ours = self.plain.lines(command, "", &answer);
            if theirs == ours || self.differences.excuse(command, &theirs, &ours) {
                return answer;
            }
            if ours != last {
                (last, since) = (ours, Instant::now());
            }
            if since.elapsed() > self.settled || Instant::now() > deadline {
                return answer;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn compare(&mut self, command: &str, typed: &str, recorded: &Answer, answer: &Answer) {
        let (theirs, ours) = (self.plain.lines(command, typed, recorded), self.plain.lines(command, typed, answer));
        self.compared += 1;
        if theirs == ours {
            self.equal += 1;
        } else if !self.differences.excuse(command, &theirs, &ours) {
            self.find(format!("$ {command}\n{}", told(&theirs, &ours)));
        }
    }

    fn find(&mut self, text: String) {
        self.found.push(text);
        if let Some(path) = &self.gathered {
            std::fs::write(path, self.found.join("\n")).unwrap();
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::File { name, text } => std::fs::write(self.directory.join(name), text).unwrap(),
            Step::Prepare(command) => {
                let done = self.run(&command, "");
                assert_eq!(done.code, 0, "{command}: {}", done.errors);
            }
            Step::Until { command, wanted } => self.until(&command, &wanted),
            Step::Start(command) => self.start(command),
            Step::End { command, answer } => self.end(&command, &answer),
            Step::Command { line, terminal, input, answer } => {
                let line = line.replace("THE-NODE", &self.node);
                let looks = LOOKS.iter().any(|start| line.starts_with(start));
                let ours = if terminal {
                    self.on_terminal(&line, &input)
                } else if looks && !CHANGES.iter().any(|part| line.contains(part)) {
                    self.reach(&line, &answer, |replay| replay.run(&line, ""))
                } else {
                    self.run(&line, &input)
                };
                let typed = if terminal { input } else { String::new() };
                self.compare(&line, &typed, &answer, &ours);
            }
        }
    }

    /// Fails if anything differs without an entry, or an entry is not needed.
    fn finish(mut self, record: &str, at_least: usize) {
        let Self { compared, equal, .. } = self;
        eprintln!(
            "record {record}: {compared} compared, {equal} equal without an entry, in {:?}",
            self.started.elapsed()
        );
        let found = std::mem::take(&mut self.found);
        let told = found.join("\n");
        let idle = self.differences.not_needed();
        assert!(
            found.is_empty() && idle.is_empty(),
            "{} of {compared} differ:\n{told}\nentries in records/differences.txt that are not needed:\n{}",
            found.len(),
            idle.join("\n")
        );
        assert!(compared >= at_least, "{compared} commands");
    }

    fn until(&self, command: &str, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.run(command, "");
            if seen.output.trim() == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{command}: stayed {seen:?}");
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// As one word for a shell.
fn quoted(line: &str) -> String {
    format!("'{}'", line.replace('\'', r"'\''"))
}

/// Lines of the record that ours lacks behind `-`, the other way round behind `+`, and the line before each such place.
fn told(theirs: &[String], ours: &[String]) -> String {
    // How many lines both have in common, from each pair of places on.
    let mut common = vec![vec![0_usize; ours.len() + 1]; theirs.len() + 1];
    for i in (0..theirs.len()).rev() {
        for j in (0..ours.len()).rev() {
            common[i][j] =
                if theirs[i] == ours[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut told, mut before) = (0, 0, String::new(), None);
    while i < theirs.len() || j < ours.len() {
        if i < theirs.len() && j < ours.len() && theirs[i] == ours[j] {
            before = Some(&theirs[i]);
            (i, j) = (i + 1, j + 1);
            continue;
        }
        if let Some(line) = before.take() {
            told.push_str(&format!("  {line}\n"));
        }
        if j == ours.len() || (i < theirs.len() && common[i + 1][j] >= common[i][j + 1]) {
            told.push_str(&format!("- {}\n", theirs[i]));
            i += 1;
        } else {
            told.push_str(&format!("+ {}\n", ours[j]));
            j += 1;
        }
    }
    told
}

fn replay(record: &str, at_least: usize) {
    let mut replay = Replay::new(record);
    for step in steps(&read(&format!("{record}.txt"))) {
        replay.step(step);
    }
    replay.finish(record, at_least);
}

#[test]
fn record_of_seed_000() {
    replay("seed-000", 104);
}

#[test]
fn record_of_seed_001() {
    replay("seed-001", 62);
}

#[test]
fn record_of_seed_002() {
    replay("seed-002", 94);
}

#[test]
fn record_of_seed_003() {
    replay("seed-003", 44);
}

#[test]
fn record_of_seed_004() {
    replay("seed-004", 130);
}

#[test]
fn record_of_http() {
    replay("http", 205);
}

#[test]
fn record_of_objects() {
    replay("objects", 50);
}

#[test]
fn record_of_newer() {
    replay("newer", 45);
}

#[test]
fn record_of_errors_manifests() {
    replay("errors-manifests", 60);
}

#[test]
fn record_of_errors_commands() {
    replay("errors-commands", 200);
}

#[test]
fn record_of_errors_claims() {
    replay("errors-claims", 40);
}

#[test]
#[ignore = "the texts of probes that run out of time hang on how busy the machine is"]
fn record_of_errors_pods() {
    replay("errors-pods", 60);
}

#[test]
fn record_of_errors_rules() {
    replay("errors-rules", 80);
}
