//! Wrong use is met with upstream's texts: forbidden updates, labels that do not match, bad names, what does not exist, wrong
//! flags, containers that do not run. `wrong_use.txt` is what a real server and kubectl said to the same commands.

use std::path::Path;
use std::process::Command;

use stead_testkit::cluster::Cluster;

use crate::support::cluster;

/// What the record holds.
enum Record<'a> {
    Group(&'a str),
    File { name: &'a str, text: String },
    Command { line: &'a str, errors: String, code: i32 },
}

fn records(text: &str) -> Vec<Record<'_>> {
    let mut records = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("==== ") {
            records.push(Record::Group(name));
        } else if let Some(name) = line.strip_prefix("--- file ") {
            let text =
                lines.by_ref().take_while(|line| *line != "--- end of file").map(|line| format!("{line}\n")).collect();
            records.push(Record::File { name, text });
        } else if let Some(command) = line.strip_prefix("$ ") {
            let mut errors = String::new();
            let code = loop {
                let line = lines.next().expect("every command ends with its exit code");
                if let Some(code) = line.strip_prefix("= ") {
                    break code.parse().expect("a number");
                }
                errors.push_str(line.strip_prefix("! ").unwrap_or_default());
                errors.push('\n');
            };
            records.push(Record::Command { line: command, errors, code });
        }
    }
    records
}

/// Without white space and what differs from one run to the next: container ids, versions of objects.
fn plain(text: &str) -> String {
    let words = text.split_whitespace().map(|word| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_id = bare.len() == 64 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id { word.replace(bare, "ID") } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Runs a command line as a person would, `kubectl` being stead's.
fn run(cluster: &Cluster, directory: &Path, line: &str) -> (i32, String) {
    let path = format!("{}:{}", directory.join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("timeout")
        .args(["60", "sh", "-c", line])
        .current_dir(directory)
        .env("PATH", path)
        .env("KUBECONFIG", cluster.kubeconfig())
        .output()
        .unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn wrong_use_is_met_with_upstreams_texts() {
    let (cluster, kubectl) = cluster();
    let directory = cluster.directory().join("wrong");
    std::fs::create_dir_all(directory.join("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stead"), directory.join("bin/kubectl")).unwrap();
    let _ = kubectl.ok("create namespace err");
    let _ = kubectl.ok("config set-context --current --namespace=err");
    let mut differences = Vec::new();
    let mut compared = 0;
    for record in records(include_str!("wrong_use.txt")) {
        match record {
            Record::Group("pods that run") => {
                let _ = kubectl.ok("rollout status sts/web --timeout=100s");
            }
            Record::Group(_) => {}
            Record::File { name, text } => {
                std::fs::write(directory.join(name), &text).unwrap();
                // These stand for pods in states of their own, which take a while.
                let states = [
                    ("big-cpu.yaml", "get pod big-cpu -o jsonpath={.status.conditions[0].reason}", "Unschedulable"),
                    (
                        "noimg.yaml",
                        "get pod noimg -o jsonpath={.status.containerStatuses[0].state.waiting.reason}",
                        "ImagePullBackOff",
                    ),
                    (
                        "crash.yaml",
                        "get pod crash -o jsonpath={.status.containerStatuses[0].state.waiting.reason}",
                        "CrashLoopBackOff",
                    ),
                    ("done.yaml", "get pod done -o jsonpath={.status.phase}", "Succeeded"),
                ];
                if let Some((_, command, wanted)) = states.iter().find(|(file, ..)| *file == name) {
                    kubectl.apply(&text);
                    kubectl.eventually(command, |seen| seen == *wanted);
                }
            }
            Record::Command { line, errors, code } => {
                let (got, said) = run(&cluster, &directory, line);
                compared += 1;
                if (got, plain(&said)) != (code, plain(&errors)) {
                    differences.push(format!("$ {line}\n  upstream: {code} {errors}  stead:    {got} {said}"));
                }
            }
        }
    }
    assert!(compared > 80, "{compared} commands");
    assert!(differences.is_empty(), "{} of {compared} differ:\n{}", differences.len(), differences.join("\n"));
}
