//! More machines on this one: network namespaces on a bridge, with a `stead agent` in each.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result, bail};

use crate::cluster::{READY, READY_WITHIN};

/// A bridge of this machine's with network namespaces on it. Dropping it removes all of them.
#[derive(Debug)]
pub struct Wires {
    mark: String,
    /// Third number of the addresses `10.119.N.x`.
    number: u8,
    machines: Vec<String>,
}

/// Runs `ip` (of iproute2).
fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().context("ip (iproute2)")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

impl Wires {
    /// A bridge with the address `.1`, which is this machine's.
    ///
    /// # Errors
    /// When this process may not administer the network.
    pub fn new() -> Result<Self> {
        let id = std::process::id();
        let number = u8::try_from(id % 250 + 1).unwrap_or(1);
        let wires = Self { mark: format!("st{:x}", id % 0xffff), number, machines: Vec::new() };
        ip(&format!("link add {} type bridge", wires.bridge()))?;
        ip(&format!("address add {}/24 dev {}", wires.address(1), wires.bridge()))?;
        ip(&format!("link set {} up", wires.bridge()))?;
        Ok(wires)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.mark)
    }

    /// The address of a machine; this one is number 1.
    #[must_use]
    pub fn address(&self, machine: u8) -> String {
        format!("10.119.{}.{machine}", self.number)
    }

    /// One more machine, with the next address, and its number.
    ///
    /// # Errors
    /// When the namespace cannot be made.
    pub fn add(&mut self) -> Result<u8> {
        let machine = u8::try_from(self.machines.len() + 2).context("too many machines")?;
        let name = format!("{}m{machine}", self.mark);
        ip(&format!("netns add {name}"))?;
        self.machines.push(name.clone());
        let (outer, bridge) = (format!("{}v{machine}", self.mark), self.bridge());
        ip(&format!("link add {outer} type veth peer name eth0 netns {name}"))?;
        ip(&format!("link set {outer} master {bridge} up"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} address add {}/24 dev eth0", self.address(machine)))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        ip(&format!("-n {name} route add default via {}", self.address(1)))?;
        Ok(machine)
    }

    /// A command that will run on a machine. Its process is the command's own.
    #[must_use]
    pub fn command(&self, machine: u8, program: &Path) -> Command {
        // Only the network differs: with namespaces of its own for mounts a second start would not see the first one's.
        let mut command = Command::new("nsenter");
        let name = self.machines.get(usize::from(machine).saturating_sub(2));
        command.arg(format!("--net=/run/netns/{}", name.map_or("", String::as_str)));
        command.arg(program);
        command
    }

    /// Takes a machine off the bridge, or puts it back.
    ///
    /// # Errors
    /// When its interface is not there.
    pub fn cut(&self, machine: u8, off: bool) -> Result<()> {
        ip(&format!("link set {}v{machine} {}", self.mark, if off { "down" } else { "up" }))
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        for name in &self.machines {
            let _ = ip(&format!("netns del {name}"));
        }
        let _ = ip(&format!("link del {}", self.bridge()));
    }
}

/// A `stead agent` on a machine.
#[derive(Debug)]
pub struct Agent {
    binary: PathBuf,
    directory: PathBuf,
    machine: u8,
    arguments: Vec<String>,
    process: Option<Child>,
    ready: Option<mpsc::Receiver<()>>,
}

impl Agent {
    /// An agent that does not run yet, with its data below `directory`. Archives are put where it imports them.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(
        binary: &Path,
        directory: &Path,
        machine: u8,
        archives: &[PathBuf],
        arguments: &[String],
    ) -> Result<Self> {
        let images = directory.join("data/agent/images");
        fs::create_dir_all(&images)?;
        for archive in archives {
            fs::copy(archive, images.join(archive.file_name().context("an archive has a name")?))?;
        }
        let (binary, directory, arguments) = (binary.to_owned(), directory.to_owned(), arguments.to_vec());
        Ok(Self { binary, directory, machine, arguments, process: None, ready: None })
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Starts it, and waits until its node is ready.
    ///
    /// # Errors
    /// When that takes too long; the end of its log is in the error.
    pub fn start(&mut self, wires: &Wires) -> Result<()> {
        self.begin(wires)?;
        self.ready()
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the process cannot be made.
    pub fn begin(&mut self, wires: &Wires) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.directory.join("agent.log"))?;
        let mut command = wires.command(self.machine, &self.binary);
        command.arg("agent").arg("--data-dir").arg(self.data_dir()).args(&self.arguments);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let stdout = process.stdout.take().context("stdout is piped")?;
        self.process = Some(process);
        let (sender, ready) = mpsc::channel();
        self.ready = Some(ready);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                if line.starts_with(READY) {
                    let _ = sender.send(());
                }
            }
        });
        Ok(())
    }

    /// Waits until its node is ready.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn ready(&mut self) -> Result<()> {
        let ready = self.ready.take().context("the agent was not started")?;
        if ready.recv_timeout(READY_WITHIN).is_err() {
            bail!("the agent did not become ready; its log ends:\n{}", self.log_tail());
        }
        Ok(())
    }

    /// SIGKILL to the agent, and only to it.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent does not run")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.directory.join("agent.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Stops it and its containers, and removes what they left on the machine.
    pub fn clean_up(&mut self, wires: &Wires) {
        if std::thread::panicking() {
            eprintln!("--- end of the log of agent {} ---\n{}", self.machine, self.log_tail());
        }
        let _ = self.kill();
        let mut command = wires.command(self.machine, &self.binary);
        let cleaned = command.arg("killall").arg("--data-dir").arg(self.data_dir()).output();
        if let Ok(output) = cleaned
            && !output.status.success()
        {
            eprintln!("stead killall: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
