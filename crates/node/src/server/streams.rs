//! `/exec`, `/attach` and `/portForward`: streams between a client and a container or a port of a pod.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use stead_podlife::spec;
use stead_runtime::{AttachConfig, Container, ContainerState, ExecConfig, Session};
use stead_streaming::{
    Exit, ForwardedConnection, PortForward, RemoteCommand, StreamError, Wanted, port_forward, remote_command,
};
use tokio::io::{AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::TcpStream;

use super::{Body, Query, Refusal, internal};
use crate::{Node, logs};

/// Ids of containers that are remembered as attached to.
const ATTACHED_MAX: usize = 4096;

impl Node {
    pub(super) async fn exec<B: Send + 'static>(
        self: &Arc<Self>,
        mut request: Request<B>,
        namespace: &str,
        pod: &str,
        container: &str,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let wanted = streams(query)?;
        let pod = self.pod_named(namespace, pod)?;
        let found = self.running(&pod, container).await?;
        let (response, client) = remote_command(&mut request, wanted).map_err(refused)?;
        let node = self.clone();
        let config = ExecConfig {
            command: query.all("command"),
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr && !wanted.tty,
        };
        tokio::spawn(async move {
            let client = match client.await {
                Ok(client) => client,
                Err(error) => return tracing::debug!(%error, "exec client"),
            };
            tracing::debug!(container = found.id, "exec: the client is connected");
            let session = node.engine.exec(&found.id, config).await;
            tracing::debug!(container = found.id, error = ?session.as_ref().err(), "exec: the container has answered");
            join(client, session.map_err(|error| error.to_string())).await;
            tracing::debug!(container = found.id, "exec: ended");
        });
        Ok(response.map(|body| body.map_err(|never| match never {}).boxed_unsync()))
    }

    pub(super) async fn attach<B: Send + 'static>(
        self: &Arc<Self>,
        mut request: Request<B>,
        namespace: &str,
        pod: &str,
        container: &str,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let pod = self.pod_named(namespace, pod)?;
        let stated = spec::container(&pod, container).unwrap_or_default();
        let found = self.attachable(&pod, container, stated.stdin_once.unwrap_or(false)).await?;
        let tty = stated.tty.unwrap_or(false);
        let wanted = Wanted { tty, ..streams(query)? };
        let (response, client) = remote_command(&mut request, wanted).map_err(refused)?;
        let node = self.clone();
        let config = AttachConfig { stdin: wanted.stdin, stdout: wanted.stdout, stderr: wanted.stderr && !tty };
        tokio::spawn(async move {
            let client = match client.await {
                Ok(client) => client,
                Err(error) => return tracing::debug!(%error, "attach client"),
            };
            tracing::debug!(container = found.id, "attach: the client is connected");
            let session = node.engine.attach(&found.id, config).await;
            tracing::debug!(container = found.id, error = ?session.as_ref().err(), "attach: the container has answered");
            let late = if session.is_err() { node.ended_unseen(&pod, &found).await } else { None };
            match late {
                Some(code) => node.replay(client, &pod, &found, code).await,
                None => {
                    node.seen(&found.id);
                    join(client, session.map_err(|error| error.to_string())).await;
                }
            }
            tracing::debug!(container = found.id, "attach: ended");
        });
        Ok(response.map(|body| body.map_err(|never| match never {}).boxed_unsync()))
    }

    /// The newest attempt of a container if it runs. For `once` also one that has ended before anybody was attached: `kubectl
    /// run -i` of a quick command sees its pod run and comes too late by milliseconds, and still wants its output.
    async fn attachable(&self, pod: &Pod, name: &str, once: bool) -> Result<Container, Refusal> {
        let newest = self.attempts(pod, name).await?.pop();
        let late =
            newest.filter(|one| once && matches!(one.state, ContainerState::Exited(_)) && !self.was_seen(&one.id));
        match late {
            Some(ended) => Ok(ended),
            None => self.running(pod, name).await.map_err(|Refusal(code, text)| match code {
                StatusCode::NOT_FOUND => {
                    let (of, namespace, _) = spec::identity(pod);
                    Refusal(code, format!("container {name} not found in pod {of}_{namespace}"))
                }
                code => Refusal(code, text),
            }),
        }
    }

    /// The exit code of a container that has ended with output that nobody has had.
    async fn ended_unseen(&self, pod: &Pod, found: &Container) -> Option<i32> {
        let once = spec::container(pod, &found.name).and_then(|one| one.stdin_once).unwrap_or(false);
        if !once || self.was_seen(&found.id) {
            return None;
        }
        let attempts = self.attempts(pod, &found.name).await.ok()?;
        attempts.into_iter().find(|one| one.id == found.id).and_then(|one| match one.state {
            ContainerState::Exited(exit) => Some(exit.code),
            _ => None,
        })
    }

    /// Gives the client the whole output of an ended container, from its log, and how it ended.
    async fn replay(&self, client: RemoteCommand, pod: &Pod, ended: &Container, code: i32) {
        self.seen(&ended.id);
        let (name, namespace, uid) = spec::identity(pod);
        let path = self.config.pod_log_dir(namespace, name, uid).join(&ended.log_path);
        let RemoteCommand { stdout, stderr, finish, .. } = client;
        for (stream, to) in [("stdout", stdout), ("stderr", stderr)] {
            let Some(mut to) = to else { continue };
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || logs::whole(&path, stream)).await;
            if let Ok(Ok(output)) = read {
                let _ = to.write_all(&output).await;
            }
            let _ = to.shutdown().await;
        }
        finish.send(Exit::Code(code)).await;
    }

    fn was_seen(&self, container: &str) -> bool {
        self.attached.lock().contains(container)
    }

    /// Notes that somebody has had the output of a container by attaching to it.
    fn seen(&self, container: &str) {
        let mut attached = self.attached.lock();
        if attached.len() >= ATTACHED_MAX {
            // Forgetting means that a second one to attach to an ended container gets its output once more.
            attached.clear();
        }
        attached.insert(container.to_owned());
    }

    pub(super) fn port_forward<B: Send + 'static>(
        self: &Arc<Self>,
        mut request: Request<B>,
        namespace: &str,
        pod: &str,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let pod = self.pod_named(namespace, pod)?;
        let names: Vec<String> = ["port", "ports"].iter().flat_map(|name| query.all(name)).collect();
        let ports = names.iter().flat_map(|list| list.split(',')).filter_map(|port| port.parse().ok()).collect();
        let (response, client) = port_forward(&mut request, ports).map_err(refused)?;
        let node = self.clone();
        tokio::spawn(async move {
            match client.await {
                Ok(client) => node.forward(client, &pod).await,
                Err(error) => tracing::debug!(%error, "port-forward client"),
            }
        });
        Ok(response.map(|body| body.map_err(|never| match never {}).boxed_unsync()))
    }

    async fn forward(self: Arc<Self>, mut client: PortForward, pod: &Pod) {
        let (_, _, uid) = spec::identity(pod);
        let host_network = spec::pod_spec(pod).host_network.unwrap_or(false);
        let links = if host_network { Vec::new() } else { self.network.attached().await.unwrap_or_default() };
        let netns = links.into_iter().find(|link| link.id == uid).map(|link| link.netns);
        let name = spec::full_name(pod);
        while let Some(connection) = client.next().await {
            let (netns, name) = (netns.clone(), name.clone());
            tokio::spawn(async move {
                let place = match (&netns, host_network) {
                    (None, false) => Err("the pod has no network".to_owned()),
                    _ => Ok(netns.as_deref()),
                };
                forward_one(connection, place, &name).await;
            });
        }
    }
}

fn streams(query: &Query) -> Result<Wanted, Refusal> {
    let wanted = Wanted {
        stdin: query.is_set(&["input", "stdin"]),
        stdout: query.is_set(&["output", "stdout"]),
        stderr: query.is_set(&["error", "stderr"]),
        tty: query.is_set(&["tty"]),
    };
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        let text = "you must specify at least 1 of stdin, stdout, stderr".to_owned();
        return Err(Refusal(StatusCode::BAD_REQUEST, text));
    }
    Ok(wanted)
}

pub(super) fn refused(error: StreamError) -> Refusal {
    match error {
        StreamError::Handshake(text) => Refusal(StatusCode::BAD_REQUEST, text),
        other => internal(&other),
    }
}

/// Copies between the client and the command until the command ends.
async fn join(client: RemoteCommand, session: Result<Session, String>) {
    let RemoteCommand { stdin, stdout, stderr, resize, finish } = client;
    let mut session = match session {
        Ok(session) => session,
        Err(error) => {
            drop((stdout, stderr));
            return finish.send(Exit::Failed(error)).await;
        }
    };
    let input = session.stdin.take().zip(stdin).map(|(mut to, mut from)| {
        tokio::spawn(async move {
            let copied = copy(&mut from, &mut to).await;
            tracing::debug!(?copied, "standard input has ended");
            let _ = to.shutdown().await;
        })
    });
    let sizes = session.resize.take().zip(resize).map(|(to, mut from)| {
        tokio::spawn(async move {
            while let Some(size) = from.recv().await {
                if to.send(size).await.is_err() {
                    return;
                }
            }
        })
    });
    let output = pump(session.stdout.take(), stdout);
    let errors = pump(session.stderr.take(), stderr);
    let ((), (), code) = futures::join!(output, errors, &mut session.exit);
    if let Some(input) = input {
        input.abort();
    }
    if let Some(sizes) = sizes {
        sizes.abort();
    }
    let exit = code.map_or_else(|_| Exit::Failed("the end of the command is unknown".to_owned()), Exit::Code);
    finish.send(exit).await;
}

async fn pump(from: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>, to: Option<tokio::io::DuplexStream>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        let copied = copy(&mut from, &mut to).await;
        tracing::debug!(?copied, "an output has ended");
        let _ = to.shutdown().await;
    }
}

async fn forward_one(mut connection: ForwardedConnection, netns: Result<Option<&Path>, String>, pod: &str) {
    let port = connection.port;
    let dialled = match netns {
        Ok(netns) => dial(netns, port).await,
        Err(error) => Err(error),
    };
    match dialled {
        Ok(mut stream) => {
            let _ = copy_bidirectional(&mut connection.data, &mut stream).await;
        }
        Err(error) => {
            connection
                .fail(&format!("failed to connect to localhost:{port} inside namespace of pod {pod}: {error}"))
                .await
        }
    }
}

/// Connects to the port on localhost within the namespace: IPv4 first, then IPv6.
async fn dial(netns: Option<&Path>, port: u16) -> Result<TcpStream, String> {
    let mut failure = String::new();
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let address = SocketAddr::new(ip, port);
        let socket = socket_within(netns, address).await?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if failure.is_empty() => failure = format!("dial tcp {address}: {error}"),
            Err(_) => {}
        }
    }
    Err(failure)
}

/// A socket belongs for ever to the namespace of the thread that made it. That thread is made for it and ends right after,
/// so no other code ever runs in the pod's namespace.
async fn socket_within(netns: Option<&Path>, address: SocketAddr) -> Result<tokio::net::TcpSocket, String> {
    let make = move || match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    };
    let Some(netns) = netns.map(Path::to_owned) else { return make().map_err(|error| error.to_string()) };
    let (answer, made) = tokio::sync::oneshot::channel();
    let handle = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name("in-netns".to_owned())
        .spawn(move || {
            let entered = std::fs::File::open(&netns).and_then(|file| {
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)
            });
            let _runtime = handle.enter();
            let _ = answer.send(entered.and_then(|()| make()));
        })
        .map_err(|error| error.to_string())?;
    let socket = made.await.map_err(|_| "the thread in the namespace has ended".to_owned())?;
    socket.map_err(|error| format!("cannot enter the network namespace: {error}"))
}
