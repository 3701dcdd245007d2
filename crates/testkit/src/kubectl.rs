//! Stock kubectl, driven as a person would.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long one command may take before the test fails.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at a condition that has no event to wait for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One kubectl and the cluster that it talks to.
#[derive(Clone, Debug)]
pub struct Kubectl {
    pub program: PathBuf,
    pub kubeconfig: PathBuf,
}

/// What a command printed and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

impl Kubectl {
    /// Runs `kubectl ARGS`; the arguments are split at blanks, with single and double quotes as in a shell.
    #[must_use]
    pub fn run(&self, command: &str) -> Done {
        self.run_with_input(command, "")
    }

    /// The same with `input` on its standard input.
    #[must_use]
    pub fn run_with_input(&self, command: &str, input: &str) -> Done {
        self.finish(self.command(command), input)
    }

    /// The same on a terminal of its own (as `script` makes one) into which `typed` is typed; both outputs come as one.
    #[must_use]
    pub fn on_terminal(&self, command: &str, typed: &str) -> Done {
        let limit = COMMAND_TIMEOUT.as_secs();
        // In the foreground: `timeout` and what it starts would else be stopped as soon as they touch the terminal, unless the
        // shell in between happens to give its place to it.
        let line = format!(
            "exec timeout --foreground {limit} {} --kubeconfig {} {command}",
            self.program.display(),
            self.kubeconfig.display()
        );
        let mut process = Command::new("script");
        process.env("SHELL", "/bin/sh").env_remove("KUBECONFIG");
        process.args(["-q", "-e", "-c", &line, "/dev/null"]);
        self.finish(process, typed)
    }

    fn finish(&self, mut command: Command, input: &str) -> Done {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_owned();
        let feeding = std::thread::spawn(move || {
            // A command that does not read its input closes it: no fault of the test.
            let _ = stdin.write_all(input.as_bytes());
        });
        let output = child.wait_with_output().expect("kubectl was started");
        let _ = feeding.join();
        Done {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// Runs a command that must succeed and returns its standard output.
    #[track_caller]
    #[must_use]
    pub fn ok(&self, command: &str) -> String {
        let done = self.run(command);
        assert_eq!(done.code, 0, "kubectl {command}\n{}{}", done.stdout, done.stderr);
        done.stdout
    }

    /// Applies a manifest given as text and returns what kubectl printed.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        let done = self.run_with_input("apply -f -", manifest);
        assert_eq!(done.code, 0, "kubectl apply\n{manifest}\n{}{}", done.stdout, done.stderr);
        done.stdout
    }

    /// Looks again and again until `command` prints what `wanted` accepts.
    #[track_caller]
    pub fn eventually(&self, command: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        loop {
            let done = self.run(command);
            if done.code == 0 && wanted(&done.stdout) {
                return done.stdout;
            }
            assert!(Instant::now() < deadline, "kubectl {command}\nstayed\n{}{}", done.stdout, done.stderr);
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Starts a command that goes on (`get -w`, `logs -f`) and collects its lines.
    #[must_use]
    pub fn start(&self, command: &str) -> Running {
        let mut child = self
            .command(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child, lines, seen: Vec::new() }
    }

    fn command(&self, command: &str) -> Command {
        let mut process = Command::new("timeout");
        process.arg(COMMAND_TIMEOUT.as_secs().to_string()).arg(&self.program);
        process.arg("--kubeconfig").arg(&self.kubeconfig).args(words(command));
        process.env("KUBECACHEDIR", self.kubeconfig.with_extension("cache"));
        process.env_remove("KUBECONFIG");
        process
    }
}

/// A command that goes on until it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    /// Waits for a line that `wanted` accepts and returns all lines up to it.
    #[track_caller]
    pub fn until(&mut self, wanted: impl Fn(&str) -> bool) -> &[String] {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = wanted(&line);
                    self.seen.push(line);
                    if found {
                        return &self.seen;
                    }
                }
                Err(_) => panic!("the line that was waited for did not come; seen:\n{}", self.seen.join("\n")),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Splits a command line at blanks; quotes keep blanks.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quote, mut open) = (None, false);
    for c in command.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => (quote, open) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            (_, c) => word.push(c),
        }
    }
    if open || !word.is_empty() {
        words.push(word);
    }
    words
}

/// The kubectls to test with: the machine's own, when it has one, and Debian's (1.20), unpacked below `tools`.
///
/// # Errors
/// When Debian's package cannot be fetched.
pub fn programs(tools: &Path) -> Result<Vec<PathBuf>> {
    let debian = tools.join("kubernetes-client/usr/bin/kubectl");
    if !debian.exists() {
        let directory = tools.join("kubernetes-client");
        std::fs::create_dir_all(&directory)?;
        let script = "apt-get download -q kubernetes-client && dpkg-deb -x kubernetes-client_*.deb . && rm kubernetes-client_*.deb";
        let output = Command::new("sh").args(["-c", script]).current_dir(&directory).output().context("sh")?;
        if !output.status.success() {
            bail!("kubernetes-client: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    let mut programs = vec![debian];
    let own = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|d| d.join("kubectl")).find(|candidate| candidate.is_file()));
    programs.extend(own);
    programs.reverse();
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_blanks() {
        assert_eq!(
            words(r#"exec redis-0 -- redis-cli SET k "a b" '' "#),
            ["exec", "redis-0", "--", "redis-cli", "SET", "k", "a b", ""]
        );
    }
}
