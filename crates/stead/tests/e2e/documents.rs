//! The examples in `docs/`: each block of commands is run in order on a real server and must print what stands there.
//!
//! A fence `console` holds commands (`$ ...`) with their output; other fences are not run. `kubectl` is a link to the binary, so that
//! every machine prints the same. Ages, addresses, hashes and times are compared by their form, blanks in a row as one; a line `...`
//! stands for any number of lines. `UPDATE_EXPECT=1 cargo test` writes what was printed into the document.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use regex::Regex;
use stead_testkit::cluster::Cluster;

use crate::support::{layout, root, start};

/// How long a command that only looks is tried again.
const LOOK_FOR: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long one command may take.
const COMMAND_SECONDS: &str = "120";

/// One command of a document with the lines that it printed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    /// Where its output begins, as a line number from 0.
    line: usize,
    command: String,
    expected: Vec<String>,
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            steps.push(Step { line: number + 1, command: command.to_owned(), expected: Vec::new() });
        } else if inside {
            steps.last_mut().expect("a block begins with a command").expected.push(line.to_owned());
        }
    }
    steps
}

/// What two runs have in common of a line.
fn form(line: &str) -> String {
    let forms = [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
        (r"sha256:[0-9a-f]{12,64}", "DIGEST"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
        (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d (GMT|\+0000)", "TIME"),
        (r"\b\d{1,3}(\.\d{1,3}){3}\b", "ADDRESS"),
        (r"\b(\d+(\.\d+)?(ms|us|s|m|h|d))+\b", "AGE"),
        (r"-[bcdfghjklmnpqrstvwxz2456789]{8,10}\b", "-HASH"),
        (r"-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "-NAME"),
        (r"\b[0-9a-f]{12}\b", "DIGEST"),
        (r"\(x\d+, AGE ago\)", "(AGE ago)"),
        (r"\b\d+ \(AGE ago\)", "COUNT (AGE ago)"),
        (r"\brestarts: \d+", "restarts: COUNT"),
        (r"\b\d\d:\d\d:\d\d\b", "TIME"),
        (r"K10[0-9a-f]{64}::\S+", "TOKEN"),
        (r"time=\d+\.\d+", "time=TIME"),
        (r"\d+\.\d+/\d+\.\d+/\d+\.\d+", "TIMES"),
        (r"\b\d+(\.\d+)? ?(MB|MiB|kB|KiB)\b", "SIZE"),
        (r"\bLAST SEEN\b", "LAST-SEEN"),
        (r"\s+", " "),
    ];
    let mut line = line.trim_end().to_owned();
    for (pattern, name) in forms {
        line = Regex::new(pattern).unwrap().replace_all(&line, name).into_owned();
    }
    line
}

fn matches(expected: &[String], printed: &[String]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "..." => (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..])),
        Some((first, rest)) => {
            printed.split_first().is_some_and(|(line, others)| form(first) == form(line) && matches(rest, others))
        }
    }
}

/// A shell in the repository's directory, for which `stead` and `kubectl` are the binary under test.
struct Shell {
    environment: HashMap<&'static str, String>,
    _cluster: Cluster,
    directory: tempfile::TempDir,
}

impl Shell {
    fn new(flags: &[&str]) -> Self {
        let cluster = start(flags);
        let directory = tempfile::tempdir().unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_stead"));
        for name in ["stead", "kubectl"] {
            std::os::unix::fs::symlink(binary, directory.path().join(name)).unwrap();
        }
        let own = |name: &str| directory.path().join(name).display().to_string();
        let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap_or_default());
        let environment = HashMap::from([
            ("PATH", path),
            ("KUBECONFIG", cluster.kubeconfig().display().to_string()),
            ("KUBECACHEDIR", own("cache")),
            ("DATA_DIR", cluster.data_dir().display().to_string()),
            ("EXPORT", own("export")),
            ("ARCHIVE", own("images.tar")),
        ]);
        Self { environment, _cluster: cluster, directory }
    }

    fn run(&self, command: &str) -> Vec<String> {
        let output = Command::new("timeout")
            .args([COMMAND_SECONDS, "sh", "-c", &format!("exec 2>&1 < /dev/null; {command}")])
            .envs(&self.environment)
            .current_dir(root())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Runs a command; one that only looks is run until it prints what is expected, for the world may be on its way there.
    fn settle(&self, step: &Step) -> Vec<String> {
        let looks = ["kubectl get", "kubectl describe", "kubectl logs", "stead check", "stead explain", "kubectl exec"];
        let deadline = Instant::now() + LOOK_FOR;
        loop {
            let printed = self.run(&step.command);
            let again = looks.iter().any(|look| step.command.starts_with(look)) && !step.command.contains(" SET ");
            if matches(&step.expected, &printed) || !again || step.expected.is_empty() || Instant::now() > deadline {
                return printed;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// Runs the blocks of a document in order on a server of their own.
#[track_caller]
fn run(document: &str) {
    let path: PathBuf = root().join("docs").join(document);
    let text = fs::read_to_string(&path).unwrap();
    let shell = Shell::new(&["--node-name", "node-1"]);
    if text.contains("$ARCHIVE") {
        let names = ["library/busybox:1.36"];
        stead_testkit::images::archive(&layout(), &names, &shell.directory.path().join("images.tar")).unwrap();
    }
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut moved: isize = 0;
    let mut wrong = String::new();
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    for step in steps(&text) {
        let started = Instant::now();
        let printed = shell.settle(&step);
        eprintln!("{document} {:5.1} s $ {}", started.elapsed().as_secs_f32(), step.command);
        if matches(&step.expected, &printed) {
            continue;
        }
        if update {
            let at = step.line.strict_add_signed(moved);
            lines.splice(at..at + step.expected.len(), printed.iter().cloned());
            moved += printed.len().cast_signed() - step.expected.len().cast_signed();
        } else {
            wrong = format!(
                "{document}, line {}: $ {}\n--- expected\n{}\n--- printed\n{}\n",
                step.line,
                step.command,
                step.expected.join("\n"),
                printed.join("\n")
            );
            break;
        }
    }
    if update {
        fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_documents_output_is_compared_by_its_form() {
    let text = "x\n```sh\n$ no\n```\n```console\n$ one\na 5s\n...\nlast\n$ two\n```\n";
    let found = steps(text);
    assert_eq!(found.iter().map(|step| step.command.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((found[0].line, found[0].expected.len()), (6, 3));
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(matches(&found[0].expected, &lines("a   1m2s\nb\nc\nlast")));
    assert!(matches(&found[0].expected, &lines("a 3s\nlast")));
    assert!(!matches(&found[0].expected, &lines("b 3s\nlast")));
    assert!(!matches(&found[0].expected, &lines("a 3s\nlast\nmore")));
    assert_eq!(
        form("web-5d9c7f6b8  10.1.2.3   Bound pvc-0b1c2d3e-0b1c-0b1c-0b1c-0b1c2d3e4f5a"),
        form("web-7c4d8b9f6 10.9.9.9 Bound pvc-1b1c2d3e-0b1c-0b1c-0b1c-0b1c2d3e4f5a")
    );
}

macro_rules! documents {
    ($($name:ident: $path:literal,)*) => {
        $(
            #[test]
            fn $name() {
                run($path);
            }
        )*
    };
}

documents! {
    document_seed_000: "seeds/000-redis.md",
    document_seed_001: "seeds/001-order-and-claims.md",
    document_seed_002: "seeds/002-updates.md",
    document_seed_003: "seeds/003-shared-storage.md",
    document_seed_004: "seeds/004-nginx-and-mysql.md",
    document_run: "run.md",
    document_updates: "updates.md",
    document_debugging: "debugging.md",
    document_air_gap: "air-gap.md",
}
