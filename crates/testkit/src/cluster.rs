//! A real `stead server` in a directory of its own, for black-box tests.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::kubectl::Kubectl;

/// How long a server may take until it says that it is ready.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(60);
/// Clusters on one machine at the same time: what the address ranges have room for.
const INDEXES: u32 = 60;
/// Below the ports that the kernel hands out, one of which another process may get between two looks.
const FIRST_PORT: u16 = 21_600;
/// The line, on standard output, with which a server says that it is ready.
pub const READY: &str = "stead is ready";
/// What the server logs unless `STEAD_LOG` says otherwise: also each step of an exec or attach, to see where one hung.
const LOG: &str = "info,kube=warn,stead_node::server=debug";
/// What the log says when a part of stead itself lacks a right.
pub const REFUSED: &str = "a component was refused";

/// What a test wants of its server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The `stead` program.
    pub binary: PathBuf,
    /// Content of `registries.yaml`.
    pub registries: Option<String>,
    /// Archives to put in `<data-dir>/agent/images` before the start.
    pub archives: Vec<PathBuf>,
    /// Further flags of `stead server`.
    pub flags: Vec<String>,
}

/// A running server. Dropping it stops the server, its containers and everything that they left on the machine.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    directory: TempDir,
    port: u16,
    /// Distinguishes the address ranges of clusters that run side by side.
    index: u8,
    _claim: UnixListener,
    server: Option<Child>,
}

impl Cluster {
    /// Starts a server on an empty data directory and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start; the end of its log is in the error.
    pub fn start(options: Options) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("stead-test-").tempdir()?;
        let images = directory.path().join("data/agent/images");
        fs::create_dir_all(&images)?;
        for archive in &options.archives {
            fs::copy(archive, images.join(archive.file_name().context("an archive has a name")?))?;
        }
        if let Some(registries) = &options.registries {
            fs::write(directory.path().join("registries.yaml"), registries)?;
        }
        let (index, claim) = claim_index()?;
        let port = FIRST_PORT + u16::from(index);
        let mut cluster = Self { options, directory, port, index, _claim: claim, server: None };
        cluster.start_server()?;
        Ok(cluster)
    }

    /// Starts the server again on the same data directory.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_server(&mut self) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(&self.options.binary);
        command.arg("server").arg("--data-dir").arg(self.data_dir());
        command.arg("--https-listen-port").arg(self.port.to_string());
        command.arg("--write-kubeconfig").arg(self.kubeconfig());
        command.arg("--cluster-cidr").arg(format!("10.{}.0.0/16", 120 + 2 * self.index));
        command.arg("--service-cidr").arg(format!("10.{}.0.0/16", 121 + 2 * self.index));
        command.arg("--cluster-dns").arg(format!("10.{}.0.10", 121 + 2 * self.index));
        let registries = self.directory.path().join("registries.yaml");
        if registries.exists() {
            command.arg("--private-registry").arg(registries);
        }
        command.args(&self.options.flags);
        if std::env::var_os("STEAD_LOG").is_none() {
            command.env("STEAD_LOG", LOG);
        }
        let mut server =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().context("stead server")?;
        let stdout = server.stdout.take().context("stdout is piped")?;
        self.server = Some(server);
        let (sender, ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                if line.starts_with(READY) {
                    let _ = sender.send(());
                }
            }
        });
        if ready.recv_timeout(READY_WITHIN).is_err() {
            bail!("stead server did not become ready; its log ends:\n{}", self.log_tail());
        }
        Ok(())
    }

    /// SIGKILL to the server, and only to it.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill_server(&mut self) -> Result<()> {
        let mut server = self.server.take().context("the server does not run")?;
        server.kill()?;
        server.wait()?;
        Ok(())
    }

    #[must_use]
    pub fn kubectl(&self, program: &Path) -> Kubectl {
        Kubectl { program: program.to_owned(), kubeconfig: self.kubeconfig() }
    }

    /// A directory that goes with the cluster.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig.yaml")
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id of the server.
    #[must_use]
    pub fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// What the server's log says about parts of stead itself that were refused something.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        log.lines().filter(|line| line.contains(REFUSED)).map(str::to_owned).collect()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }
}

/// A number below 60 that no other cluster on this machine has at the same time: who holds it listens on its abstract socket.
fn claim_index() -> Result<(u8, UnixListener)> {
    let first = std::process::id() % INDEXES;
    let indexes = (0..INDEXES).map(|step| (first + step) % INDEXES);
    let claimed = indexes.into_iter().find_map(|index| {
        let address = SocketAddr::from_abstract_name(format!("stead-test-cluster-{index}")).ok()?;
        Some((u8::try_from(index).ok()?, UnixListener::bind_addr(&address).ok()?))
    });
    claimed.context("too many test clusters on this machine")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the server's log ---\n{}", self.log_tail());
        }
        let _ = self.kill_server();
        let refused = self.refused();
        let cleaned = Command::new(&self.options.binary).arg("killall").arg("--data-dir").arg(self.data_dir()).output();
        if let Ok(output) = cleaned
            && !output.status.success()
        {
            eprintln!("stead killall: {}", String::from_utf8_lossy(&output.stderr));
        }
        if !std::thread::panicking() {
            assert_eq!(refused, [""; 0], "parts of stead lack rights");
        }
    }
}
