//! `cp`: files and directories to and from containers, by the `tar` that is in them.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/cp`.

use std::io::Write;
use std::path::{Component, Path, PathBuf};

use clap::Args;
use tokio::sync::mpsc;

use super::pods;
use crate::failure::{Failure, Result, plain, system};
use crate::session::Session;
use crate::stream::capture;

/// How much of an archive waits for the other side, in chunks of at most [`CHUNK_BYTES`].
const CHUNKS_WAITING_MAX: usize = 8;
/// Size of the chunks of an archive on its way.
const CHUNK_BYTES: usize = 32 * 1024;

/// From where to where: one side is POD:PATH or NAMESPACE/POD:PATH.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    words: Vec<String>,
    #[arg(short = 'c', long)]
    container: Option<String>,
    /// Leave owner and permissions out.
    #[arg(long)]
    no_preserve: bool,
    #[arg(long, default_value_t = 0, hide = true)]
    retries: i64,
}

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    namespace: Option<String>,
    /// Empty on this machine.
    pod: String,
    path: String,
}

/// Copies.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let [from, to] = &flags.words[..] else { return plain("source and destination are required") };
    let (from, to) = (place(from)?, place(to)?);
    match (from.pod.is_empty(), to.pod.is_empty()) {
        (true, false) => up(session, &flags, &from.path, &to).await,
        (false, true) => down(session, &flags, &from, &to.path).await,
        (false, false) => plain("one of src or dest must be a local file specification"),
        (true, true) => plain("one of src or dest must be a remote file specification"),
    }
}

fn place(word: &str) -> Result<Place> {
    let Some((before, path)) = word.split_once(':') else {
        return Ok(Place { namespace: None, pod: String::new(), path: word.to_owned() });
    };
    if path.is_empty() || before.is_empty() {
        return plain("filepath can not be empty");
    }
    match before.split('/').collect::<Vec<_>>()[..] {
        [pod] => Ok(Place { namespace: None, pod: pod.to_owned(), path: path.to_owned() }),
        [namespace, pod] => {
            Ok(Place { namespace: Some(namespace.to_owned()), pod: pod.to_owned(), path: path.to_owned() })
        }
        _ => plain(format!("arguments in resource/name form must have a single resource and name: {word}")),
    }
}

/// The namespace and the container of a place.
async fn container(session: &Session, flags: &Flags, place: &Place) -> Result<(String, String)> {
    let namespace = match &place.namespace {
        Some(namespace) => namespace.clone(),
        None => session.namespace().await?.to_owned(),
    };
    let pod = session.read("", "Pod", &namespace, &place.pod).await?;
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        return plain(format!("cannot exec into a container in a completed pod; current phase is {phase}"));
    }
    let container = pods::container(session, &pod, flags.container.as_deref(), false)?;
    Ok((namespace, container))
}

async fn up(session: &Session, flags: &Flags, from: &str, to: &Place) -> Result {
    let source = PathBuf::from(from);
    if !source.exists() {
        return plain(format!("{from} doesn't exist in local filesystem"));
    }
    let (namespace, container) = container(session, flags, to).await?;
    let mut target = to.path.clone();
    // A directory that is there takes the source into it.
    let test = ["test".to_owned(), "-d".to_owned(), target.clone()];
    let is_directory = quietly(session, &namespace, &to.pod, &container, &test).await;
    if is_directory {
        let name = source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        target = format!("{}/{name}", target.trim_end_matches('/'));
    }
    let target = target.trim_end_matches('/').to_owned();
    let (directory, name) = target.rsplit_once('/').map_or((".".to_owned(), target.clone()), |(d, n)| {
        (if d.is_empty() { "/".into() } else { d.to_owned() }, n.to_owned())
    });
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    let packing = std::thread::spawn(move || pack(&source, &name, sender));
    let mut command =
        vec!["tar".to_owned(), if flags.no_preserve { "--no-same-permissions".to_owned() } else { "-xmf".to_owned() }];
    if flags.no_preserve {
        command.extend(["--no-same-owner".to_owned(), "-xmf".to_owned()]);
    }
    command.extend(["-".to_owned(), "-C".to_owned(), directory]);
    let outcome =
        capture(session, &namespace, &to.pod, &container, &command, Some(receiver), crate::stream::to_stdout).await;
    let packed = packing.join().unwrap_or_else(|_| Err(std::io::Error::other("packing failed")));
    outcome?;
    packed.map_err(|error| Failure::Plain(format!("{from}: {}", system(&error))))
}

/// Whether a command ends well.
async fn quietly(session: &Session, namespace: &str, pod: &str, container: &str, command: &[String]) -> bool {
    let Ok(server) = session.server().await else { return false };
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(server.client.clone(), namespace);
    let params = kube::api::AttachParams::default().container(container).stdin(false).stdout(true).stderr(false);
    let Ok(mut process) = pods.exec(pod, command, &params).await else { return false };
    match process.take_status() {
        Some(status) => status.await.is_some_and(|status| status.status.as_deref() == Some("Success")),
        None => false,
    }
}

/// Sends what is written in chunks to an asynchronous reader.
struct Chunks {
    sender: mpsc::Sender<Vec<u8>>,
    waiting: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.waiting);
        self.sender.blocking_send(chunk).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

fn pack(source: &Path, name: &str, sender: mpsc::Sender<Vec<u8>>) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(Chunks { sender, waiting: Vec::new() });
    archive.follow_symlinks(false);
    if source.is_dir() {
        archive.append_dir_all(name, source)?;
    } else {
        archive.append_path_with_name(std::fs::canonicalize(source)?, name)?;
    }
    archive.into_inner()?.flush()
}

async fn down(session: &Session, flags: &Flags, from: &Place, to: &str) -> Result {
    let (namespace, container) = container(session, flags, from).await?;
    let command = ["tar".to_owned(), "cf".to_owned(), "-".to_owned(), from.path.clone()];
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<u8>>(CHUNKS_WAITING_MAX);
    let (prefix, target) = (from.path.clone(), PathBuf::from(to));
    let unpacking =
        std::thread::spawn(move || unpack(Incoming { receiver, chunk: Vec::new(), at: 0 }, &prefix, &target));
    let outcome = capture(session, &namespace, &from.pod, &container, &command, None, |bytes| {
        sender.send(bytes.to_vec()).map_err(|_| Failure::Plain("the archive cannot be unpacked".into()))
    })
    .await;
    drop(sender);
    let unpacked = unpacking.join().unwrap_or_else(|_| plain("unpacking failed"));
    match (&outcome, &unpacked) {
        (_, Err(Failure::Plain(_))) => unpacked,
        _ => outcome,
    }
}

/// An archive as it arrives.
struct Incoming {
    receiver: std::sync::mpsc::Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl std::io::Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at >= self.chunk.len() {
            match self.receiver.recv() {
                Ok(chunk) => (self.chunk, self.at) = (chunk, 0),
                Err(_) => return Ok(0),
            }
        }
        let length = buffer.len().min(self.chunk.len() - self.at);
        buffer[..length].copy_from_slice(&self.chunk[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// Unpacks what lies below `prefix` to `target`. Nothing is written outside of it; links are left out.
fn unpack(archive: Incoming, prefix: &str, target: &Path) -> Result {
    let prefix = inside(Path::new(prefix));
    let target = match target.is_dir() {
        true => target.join(prefix.file_name().unwrap_or_default()),
        false => target.to_owned(),
    };
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = inside(&entry.path()?);
        let Ok(below) = path.strip_prefix(&prefix) else { continue };
        let place = if below.as_os_str().is_empty() { target.clone() } else { target.join(below) };
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            std::fs::create_dir_all(&place)?;
        } else if kind.is_file() {
            if let Some(parent) = place.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let mut file = std::fs::File::create(&place)
                .map_err(|error| Failure::Plain(format!("open {}: {}", place.display(), system(&error))))?;
            let _ = std::io::copy(&mut entry, &mut file)?;
        } else {
            eprintln!("warning: skipping symlink: {:?}", place.display().to_string());
        }
    }
    Ok(())
}

/// A path without its root and without steps up.
fn inside(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_local_or_in_a_pod() {
        let of =
            |word: &str| place(word).map(|p| (p.namespace.unwrap_or_default(), p.pod, p.path)).map_err(|f| f.message());
        let wanted = |namespace: &str, pod: &str, path: &str| Ok((namespace.into(), pod.into(), path.into()));
        assert_eq!(of("/tmp/x"), wanted("", "", "/tmp/x"));
        assert_eq!(of("web-0:/x"), wanted("", "web-0", "/x"));
        assert_eq!(of("ns/web-0:x"), wanted("ns", "web-0", "x"));
        assert_eq!(of("web-0:"), Err("filepath can not be empty".into()));
    }

    #[test]
    fn nothing_leads_out_of_the_target() {
        assert_eq!(inside(Path::new("/etc/../../x")), Path::new("etc/x"));
    }
}
