//! One probe of one container: asks, and says in upstream's words what went wrong (`pkg/probe`).

use std::net::IpAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stead_runtime::{Engine, ExecConfig};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::tls;

/// What is kept of an answer's body or a command's output.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;
const REDIRECTS_MAX: usize = 10;
const SIGKILL: i32 = 9;

/// Where to ask.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub engine: &'a dyn Engine,
    pub container: &'a Container,
    pub container_id: &'a str,
    pub pod_ip: Option<IpAddr>,
}

impl Target<'_> {
    /// Runs a probe once.
    ///
    /// # Errors
    /// What the event says after `Readiness probe failed: `.
    pub(crate) async fn probe(&self, probe: &Probe) -> Result<(), String> {
        let limit = Duration::from_secs(probe.timeout_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(1).max(1));
        if let Some(action) = &probe.exec {
            return self.exec(action, limit).await;
        }
        if let Some(action) = &probe.http_get {
            return self.http_get(action, limit).await.map(|_| ());
        }
        if let Some(action) = &probe.tcp_socket {
            return self.tcp(action, limit).await;
        }
        match &probe.grpc {
            Some(action) => self.grpc(action, limit).await,
            None => Err("missing probe handler".to_owned()),
        }
    }

    async fn exec(&self, action: &ExecAction, limit: Duration) -> Result<(), String> {
        let command = action.command.clone().unwrap_or_default();
        match run(self.engine, self.container_id, &command, limit).await {
            Ok((0, _)) => Ok(()),
            Ok((_, output)) => Err(output),
            Err(Failed::TimedOut) => {
                Err(format!("command timed out: \"{}\" timed out after {}s", command.join(" "), limit.as_secs()))
            }
            Err(Failed::Engine(error)) => Err(error),
        }
    }

    async fn tcp(&self, action: &TCPSocketAction, limit: Duration) -> Result<(), String> {
        let (host, port) = (self.host(action.host.as_deref())?, self.port(&action.port)?);
        dial(&host, port, limit).await.map(|_| ())
    }

    /// Sends a GET; an answer from 200 to 399 is good. Returns the start of the body.
    pub(crate) async fn http_get(&self, action: &HTTPGetAction, limit: Duration) -> Result<String, String> {
        let (host, port) = (self.host(action.host.as_deref())?, self.port(&action.port)?);
        let secure = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let mut path = action.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        let scheme = if secure { "https" } else { "http" };
        let url = |path: &str| format!("{scheme}://{}{path}", authority(&host, port));
        let asking = async {
            for _ in 0..=REDIRECTS_MAX {
                let answer = get(&host, port, secure, &path, action, limit).await;
                let (status, location, body) = answer.map_err(|error| format!("Get \"{}\": {error}", url(&path)))?;
                let same_host = location.as_deref().and_then(|to| local_path(to, &url("")));
                match (status, same_host) {
                    (300..=399, Some(next)) => path = next,
                    (200..=399, _) => return Ok(body),
                    _ => return Err(format!("HTTP probe failed with statuscode: {status}")),
                }
            }
            Err(format!("Get \"{}\": stopped after {REDIRECTS_MAX} redirects", url(&path)))
        };
        let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        let first = url(action.path.as_deref().unwrap_or("/"));
        timeout(limit, asking).await.unwrap_or_else(|_| Err(format!("Get \"{first}\": {late}")))
    }

    async fn grpc(&self, action: &GRPCAction, limit: Duration) -> Result<(), String> {
        let host = self.host(None)?;
        let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
        let service = action.service.as_deref().unwrap_or_default();
        let place = authority(&host, port);
        let late = || {
            format!(
                "timeout: failed to connect service \"{place}\" within {}s: context deadline exceeded",
                limit.as_secs()
            )
        };
        timeout(limit, check_health(&host, port, service)).await.unwrap_or_else(|_| Err(late()))
    }

    fn host(&self, wanted: Option<&str>) -> Result<String, String> {
        match wanted.filter(|host| !host.is_empty()) {
            Some(host) => Ok(host.to_owned()),
            None => self.pod_ip.map(|ip| ip.to_string()).ok_or_else(|| "the pod has no address".to_owned()),
        }
    }

    /// A port by number, or by its name in the container.
    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => {
                let ports = self.container.ports.as_deref().unwrap_or_default();
                let found =
                    ports.iter().find(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port);
                found.or_else(|| name.parse().ok()).ok_or_else(|| format!("couldn't find port: {name}"))?
            }
        };
        u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
    }
}

/// Why a command gave no exit code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    TimedOut,
    Engine(String),
}

/// Runs a command in a container and collects what it prints. At the limit it is killed.
///
/// # Errors
/// When it cannot be run, or does not end in time.
pub(crate) async fn run(
    engine: &dyn Engine,
    id: &str,
    command: &[String],
    limit: Duration,
) -> Result<(i32, String), Failed> {
    let config = ExecConfig { command: command.to_vec(), tty: false, stdin: false, stdout: true, stderr: true };
    let running = async {
        let mut session = engine.exec(id, config).await.map_err(|error| Failed::Engine(error.to_string()))?;
        let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
        let ended = timeout(limit, async { futures::join!(collect(stdout), collect(stderr), &mut session.exit) }).await;
        let Ok((out, err, code)) = ended else {
            if let Some(kill) = &session.kill {
                let _ = kill.send(SIGKILL).await;
            }
            return Err(Failed::TimedOut);
        };
        let code = code.map_err(|_| Failed::Engine("the end of the command is unknown".to_owned()))?;
        let mut output = out;
        output.extend(err);
        output.truncate(OUTPUT_BYTES_MAX);
        Ok((code, String::from_utf8_lossy(&output).into_owned()))
    };
    timeout(limit * 2, running).await.unwrap_or(Err(Failed::TimedOut))
}

async fn collect(stream: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>) -> Vec<u8> {
    let Some(mut stream) = stream else { return Vec::new() };
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    // Read to the end, so that the command is not held up, but kept only up to the limit.
    while let Ok(size @ 1..) = stream.read(&mut buffer).await {
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..size.min(room)]);
    }
    kept
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Connects; the text of an error is Go's.
pub(crate) async fn dial(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let place = authority(host, port);
    match timeout(limit, TcpStream::connect(&place)).await {
        Err(_) => Err(format!("dial tcp {place}: i/o timeout")),
        Ok(Err(error)) => Err(format!("dial tcp {place}: {}", go_words(&error))),
        Ok(Ok(stream)) => Ok(stream),
    }
}

/// The words that Go has for a failed connection.
fn go_words(error: &std::io::Error) -> String {
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::ECONNREFUSED) => "connect: connection refused".to_owned(),
        Some(nix::errno::Errno::EHOSTUNREACH) => "connect: no route to host".to_owned(),
        Some(nix::errno::Errno::ENETUNREACH) => "connect: network is unreachable".to_owned(),
        Some(nix::errno::Errno::ECONNRESET) => "read: connection reset by peer".to_owned(),
        Some(nix::errno::Errno::ETIMEDOUT) => "connect: connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// The path of a redirect within the same server.
fn local_path(location: &str, base: &str) -> Option<String> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(location.to_owned());
    }
    let rest = location.strip_prefix(base)?;
    (rest.is_empty() || rest.starts_with('/')).then(|| if rest.is_empty() { "/".to_owned() } else { rest.to_owned() })
}

type Answer = (u16, Option<String>, String);

async fn get(
    host: &str,
    port: u16,
    secure: bool,
    path: &str,
    action: &HTTPGetAction,
    limit: Duration,
) -> Result<Answer, String> {
    let stream = dial(host, port, limit).await?;
    if secure {
        let stream = tls::unverified(stream, host).await?;
        ask(stream, host, port, path, action).await
    } else {
        ask(stream, host, port, path, action).await
    }
}

async fn ask<S>(stream: S, host: &str, port: u16, path: &str, action: &HTTPGetAction) -> Result<Answer, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let words = |error: hyper::Error| if error.is_incomplete_message() { "EOF".to_owned() } else { error.to_string() };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().uri(path).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    let text = |value: &str| HeaderValue::from_str(value).map_err(|error| error.to_string());
    headers.insert(http::header::HOST, text(&authority(host, port))?);
    headers.insert(http::header::USER_AGENT, HeaderValue::from_static("kube-probe/1.37"));
    headers.insert(http::header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    for header in action.http_headers.iter().flatten() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|error| error.to_string())?;
        headers.insert(name, text(&header.value)?);
    }
    let response = sender.send_request(request).await.map_err(words)?;
    let status = response.status().as_u16();
    let location = response.headers().get(http::header::LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
    let body = Limited::new(response.into_body(), OUTPUT_BYTES_MAX).collect().await;
    driver.abort();
    let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    Ok((status, location, body))
}

/// Calls `grpc.health.v1.Health/Check`.
async fn check_health(host: &str, port: u16, service: &str) -> Result<(), String> {
    let place = authority(host, port);
    let unreachable = |error: &dyn std::fmt::Display| format!("error: health rpc failed: {error}");
    let stream = TcpStream::connect(&place)
        .await
        .map_err(|error| unreachable(&format!("dial tcp {place}: {}", go_words(&error))))?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| unreachable(&error))?;
    let driver = tokio::spawn(connection);
    let request = Request::post(format!("http://{place}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(health_request(service)))
        .map_err(|error| unreachable(&error))?;
    let response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    let headers = response.headers().clone();
    let body = Limited::new(response.into_body(), OUTPUT_BYTES_MAX).collect().await;
    driver.abort();
    let body = body.map_err(|error| unreachable(&error))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status =
        trailers.get("grpc-status").or_else(|| headers.get("grpc-status")).and_then(|status| status.to_str().ok());
    match status.unwrap_or("0") {
        "0" => serving(&body.to_bytes()),
        "12" => {
            Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned())
        }
        code => {
            let message = trailers.get("grpc-message").or_else(|| headers.get("grpc-message"));
            let message = message.and_then(|message| message.to_str().ok()).unwrap_or_default();
            Err(format!("error: health rpc failed: rpc error: code = {code} desc = {message}"))
        }
    }
}

/// `HealthCheckRequest { service }` in its length-prefixed frame.
fn health_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.put_u8(u8::try_from(value).unwrap_or(0));
}

/// Reads `HealthCheckResponse { status }`: 1 is serving.
fn serving(frame: &[u8]) -> Result<(), String> {
    let status = match frame.get(5..).unwrap_or_default() {
        [0x08, status, ..] => *status,
        _ => 0,
    };
    match status {
        1 => Ok(()),
        other => {
            let word =
                ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"].get(usize::from(other)).unwrap_or(&"UNKNOWN");
            Err(format!("service unhealthy (responded with \"{word}\")"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_messages_are_framed() {
        assert_eq!(&health_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&health_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        assert_eq!(
            serving(&[0, 0, 0, 0, 2, 8, 2]),
            Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned())
        );
    }

    #[test]
    fn redirects_are_followed_within_the_server_only() {
        let base = "http://10.0.0.1:80";
        assert_eq!(local_path("/x", base), Some("/x".to_owned()));
        assert_eq!(local_path("http://10.0.0.1:80/y", base), Some("/y".to_owned()));
        assert_eq!(local_path("http://example.com/", base), None);
        assert_eq!(local_path("//example.com/", base), None);
    }
}
