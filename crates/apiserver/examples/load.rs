//! Load on a running API server: creates, gets, one long list, and watchers. Prints rates, delays and the server's own CPU time.
//!
//! `cargo run --release -p stead-apiserver --example load -- --kubeconfig K --server-pid P`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use clap::Parser;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long)]
    server_pid: u32,
    #[arg(long, default_value_t = 32)]
    clients: usize,
    #[arg(long, default_value_t = 500)]
    each: usize,
}

#[derive(Clone)]
struct Door {
    address: String,
    tls: TlsConnector,
}

fn door(path: &PathBuf) -> Result<Door, Failure> {
    let text = std::fs::read_to_string(path)?;
    let value = |key: &str| -> Result<String, Failure> {
        let line = text.lines().find(|l| l.trim().starts_with(key)).ok_or("the kubeconfig lacks a field")?;
        Ok(line.trim()[key.len()..].trim().to_owned())
    };
    let pem =
        |key: &str| -> Result<Vec<u8>, Failure> { Ok(base64::engine::general_purpose::STANDARD.decode(value(key)?)?) };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem("certificate-authority-data:")?)?)?;
    let cert = CertificateDer::from_pem_slice(&pem("client-certificate-data:")?)?;
    let key = PrivateKeyDer::from_pem_slice(&pem("client-key-data:")?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![cert], key)?;
    let address = value("server:")?.trim_start_matches("https://").to_owned();
    Ok(Door { address, tls: TlsConnector::from(Arc::new(config)) })
}

impl Door {
    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let tls = self.tls.connect(ServerName::try_from("localhost")?, stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

async fn send(sender: &mut SendRequest<Full<Bytes>>, method: &str, path: &str, body: Bytes) -> Result<usize, Failure> {
    sender.ready().await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    let answer = sender.send_request(request).await?;
    let code = answer.status();
    let mut size = 0;
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        size += frame?.data_ref().map_or(0, Bytes::len);
    }
    if code.is_success() { Ok(size) } else { Err(format!("{method} {path}: {code}").into()) }
}

/// CPU seconds that a process used so far.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn resident(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find(|l| l.starts_with("VmRSS"))
        .unwrap_or("")
        .split_whitespace()
        .skip(1)
        .collect::<Vec<_>>()
        .join(" ")
}

async fn phase<F, Fut>(what: &str, arguments: &Arguments, door: &Door, work: F) -> Result<(), Failure>
where
    F: Fn(usize, SendRequest<Full<Bytes>>) -> Fut,
    Fut: Future<Output = Result<Vec<Duration>, Failure>> + Send + 'static,
{
    let mut senders = Vec::new();
    for _ in 0..arguments.clients {
        senders.push(door.open().await?);
    }
    let (began, before) = (Instant::now(), cpu(arguments.server_pid));
    let tasks: Vec<_> = senders.into_iter().enumerate().map(|(i, sender)| tokio::spawn(work(i, sender))).collect();
    let mut delays = Vec::new();
    for task in tasks {
        delays.extend(task.await??);
    }
    let seconds = began.elapsed().as_secs_f64();
    delays.sort();
    let at = |part: f64| delays[((delays.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "{what:<28} {:>8.0}/s   p50 {:>6.2} ms  p99 {:>6.2} ms   server CPU {:>5.1} us each   rss {}",
        delays.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        (cpu(arguments.server_pid) - before) * 1e6 / delays.len() as f64,
        resident(arguments.server_pid),
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let door = door(&arguments.kubeconfig)?;
    let each = arguments.each;
    println!("idle rss {}", resident(arguments.server_pid));
    phase("create ConfigMap 1 KiB", &arguments, &door, |i, mut sender| async move {
        let data = "x".repeat(900);
        let mut delays = Vec::new();
        for n in 0..each {
            let body = format!(
                r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"c-{i}-{n}"}},"data":{{"k":"{data}"}}}}"#
            );
            let began = Instant::now();
            send(&mut sender, "POST", "/api/v1/namespaces/default/configmaps", body.into()).await?;
            delays.push(began.elapsed());
        }
        Ok(delays)
    })
    .await?;
    phase("get ConfigMap", &arguments, &door, |i, mut sender| async move {
        let mut delays = Vec::new();
        for n in 0..each * 4 {
            let began = Instant::now();
            let path = format!("/api/v1/namespaces/default/configmaps/c-{i}-{}", n % each);
            send(&mut sender, "GET", &path, Bytes::new()).await?;
            delays.push(began.elapsed());
        }
        Ok(delays)
    })
    .await?;
    let mut sender = door.open().await?;
    for what in ["", "?labelSelector=a%3Db", "?limit=500"] {
        let began = Instant::now();
        let size =
            send(&mut sender, "GET", &format!("/api/v1/namespaces/default/configmaps{what}"), Bytes::new()).await?;
        println!(
            "list of {} ConfigMaps {what}: {size} bytes in {:.1} ms",
            arguments.clients * each,
            began.elapsed().as_secs_f64() * 1e3
        );
    }
    Ok(())
}
