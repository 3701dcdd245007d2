//! `stead quickstart`: from nothing to three ordered replicas, one replaced with its data, and nothing left behind.

use std::fs;
use std::process::Command;

use crate::support::position;

#[test]
fn quickstart_tells_its_story_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    let output =
        Command::new(env!("CARGO_BIN_EXE_stead")).arg("quickstart").arg("--data-dir").arg(&place).output().unwrap();
    let (told, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{errors}");
    assert_eq!(errors, "");

    let lines: Vec<String> = told.lines().map(str::to_owned).collect();
    let ready = |name: &str| position(&lines, &format!("{name} ready"), |line| is(line, name, "ready"));
    assert!(ready("demo-0") < position(&lines, "demo-1", |line| is(line, "demo-1", "waiting for a place")));
    assert!(ready("demo-1") < position(&lines, "demo-2", |line| is(line, "demo-2", "waiting for a place")));
    assert!(ready("demo-2") < position(&lines, "the first answer", |line| line.ends_with("demo-1 starts=1")));
    let gone = position(&lines, "demo-1 gone", |line| is(line, "demo-1", "gone"));
    assert!(gone < position(&lines, "the second answer", |line| line.ends_with("demo-1 starts=2")));
    assert!(told.contains("stead quickstart --keep"), "{told}");

    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(place.to_str().unwrap()), "mounts are left:\n{mounts}");
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(!line.contains(place.to_str().unwrap()), "a process is left: {line}");
    }
}

/// Whether the line says that the pod came to this state: `  0.696 s    demo-0   ready`.
fn is(line: &str, pod: &str, state: &str) -> bool {
    let mut words = line.split_whitespace().skip(2);
    words.next() == Some(pod) && words.collect::<Vec<_>>().join(" ") == state
}
