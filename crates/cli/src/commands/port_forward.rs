//! `port-forward`: local ports to those of a pod.
//!
//! Source of the texts: `k8s.io/client-go/tools/portforward`.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use futures::future::select_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use super::pods;
use crate::failure::{Failure, Result, plain, usage};
use crate::print::{at, int, list};
use crate::session::Session;

/// Where from and to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// POD or TYPE/NAME, then ports: PORT, LOCAL:REMOTE, :REMOTE.
    words: Vec<String>,
    /// Addresses to listen on.
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
    #[arg(long, hide = true)]
    pod_running_timeout: Option<String>,
}

/// Forwards until it is interrupted.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let Some((word, ports)) = flags.words.split_first().filter(|(_, ports)| !ports.is_empty()) else {
        return usage("port-forward", "TYPE/NAME and list of ports are required for port-forward");
    };
    let service = match word.split_once('/') {
        Some((kind, name)) => {
            let resource = session.resource(kind).await?;
            match resource.is("", "Service") {
                true => Some(session.read("", "Service", session.namespace().await?, name).await?),
                false => None,
            }
        }
        None => None,
    };
    let pod = pods::pod(session, word, false).await?;
    let phase = at(&pod.object, "/status/phase");
    if phase != "Running" {
        return plain(format!("unable to forward port because pod is not running. Current status={phase}"));
    }
    let namespace = pod.namespace.clone().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(session.server().await?.client.clone(), &namespace);
    let mut listening = Vec::new();
    for port in ports {
        let (local, remote) = understood(port, service.as_ref(), &pod.object)?;
        let listeners = listen(&flags.address, local).await?;
        for listener in listeners {
            let address = listener.local_addr().map_err(Failure::from)?;
            session.out(&format!("Forwarding from {address} -> {remote}\n"))?;
            listening.push(Box::pin(serve(session, listener, api.clone(), pod.name.clone(), remote)));
        }
    }
    select_all(listening).await.0
}

/// The local and the pod's port. Ports of a Service lead to those that it points to; names are looked up.
fn understood(text: &str, service: Option<&Value>, pod: &Value) -> Result<(u16, u16)> {
    // What follows a second colon is not looked at.
    let mut parts = text.split(':');
    let local = parts.next().unwrap_or_default();
    let remote = parts.next().unwrap_or(local);
    let bad = |which: &str, what: &str| {
        Failure::Plain(format!(
            "error parsing {which} port {what:?}: strconv.ParseUint: parsing {what:?}: invalid syntax"
        ))
    };
    let target = match service {
        Some(service) => {
            let port = list(service, "/spec/ports")
                .iter()
                .find(|p| at(p, "/name") == remote || int(p, "/port").to_string() == remote);
            let Some(port) = port else {
                return plain(format!(
                    "Service {} does not have a service port {remote}",
                    at(service, "/metadata/name")
                ));
            };
            let headless = at(service, "/spec/clusterIP") == "None";
            match &port["targetPort"] {
                _ if headless => int(port, "/port").to_string(),
                Value::String(name) => name.clone(),
                Value::Number(number) => number.to_string(),
                _ => int(port, "/port").to_string(),
            }
        }
        None => remote.to_owned(),
    };
    let by_name = || {
        let ports = list(pod, "/spec/containers").iter().flat_map(|c| list(c, "/ports"));
        let mut named = ports.filter(|p| at(p, "/name") == target).map(|p| int(p, "/containerPort"));
        named.next().and_then(|port| u16::try_from(port).ok())
    };
    let unnamed = || match target.bytes().all(|byte| byte.is_ascii_digit()) {
        true => bad("remote", remote),
        false => Failure::Plain(format!("Pod '{}' does not have a named port '{target}'", at(pod, "/metadata/name"))),
    };
    let remote_port = target.parse().ok().or_else(by_name).ok_or_else(unnamed)?;
    if remote_port == 0 {
        return plain("remote port must be > 0");
    }
    let local_port = match local {
        "" => 0,
        local => local
            .parse()
            .ok()
            .or_else(|| (local == remote).then_some(remote_port))
            .ok_or_else(|| bad("local", local))?,
    };
    Ok((local_port, remote_port))
}

/// Listens on the addresses; `localhost` stands for both loopbacks, of which one is enough.
async fn listen(addresses: &[String], port: u16) -> Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    for address in addresses {
        let candidates: Vec<&str> = if address == "localhost" { vec!["127.0.0.1", "::1"] } else { vec![address] };
        let mut any = false;
        for candidate in candidates {
            let ip: IpAddr = candidate.parse().map_err(|_| Failure::Plain(format!("{candidate} is not a valid IP")))?;
            // The second loopback takes the port that the first one was given.
            let port = if port == 0 {
                listeners.last().and_then(|l| l.local_addr().ok()).map_or(0, |a| a.port())
            } else {
                port
            };
            match TcpListener::bind(SocketAddr::new(ip, port)).await {
                Ok(listener) => {
                    any = true;
                    listeners.push(listener);
                }
                Err(_) if address == "localhost" => {}
                Err(error) => eprintln!("Unable to listen on port {port}: {error}"),
            }
        }
        if !any {
            return plain(format!("unable to listen on any of the requested ports: [{{{port} {port}}}]"));
        }
    }
    Ok(listeners)
}

async fn serve(session: &Session, listener: TcpListener, api: Api<Pod>, pod: String, remote: u16) -> Result {
    let local = listener.local_addr().map_or(0, |address| address.port());
    loop {
        let (connection, _) = listener.accept().await?;
        session.out(&format!("Handling connection for {local}\n"))?;
        let (api, pod) = (api.clone(), pod.clone());
        tokio::spawn(async move {
            if let Err(error) = forward(connection, &api, &pod, remote).await {
                eprintln!("error: an error occurred forwarding {local} -> {remote}: {error}");
            }
        });
    }
}

async fn forward(mut connection: TcpStream, api: &Api<Pod>, pod: &str, remote: u16) -> std::result::Result<(), String> {
    let mut forwarder = api.portforward(pod, &[remote]).await.map_err(|error| error.to_string())?;
    let Some(mut stream) = forwarder.take_stream(remote) else { return Err("no stream".into()) };
    let failure = forwarder.take_error(remote);
    let copied = tokio::io::copy_bidirectional(&mut connection, &mut stream).await;
    drop(stream);
    if let Some(failure) = failure
        && let Ok(Some(text)) = tokio::time::timeout(std::time::Duration::ZERO, failure).await
    {
        return Err(text);
    }
    // Either side may close first.
    let _ = copied;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_numbers_names_and_those_behind_a_service() {
        let pod = json!({"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service =
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80, "targetPort": "http"}]}});
        let of =
            |text: &str, service: Option<&Value>| understood(text, service, &pod).map_err(|failure| failure.message());
        assert_eq!(of("80", None), Ok((80, 80)));
        assert_eq!(of("8000:80", None), Ok((8000, 80)));
        assert_eq!(of(":80", None), Ok((0, 80)));
        assert_eq!(of("9000:http", None), Ok((9000, 8080)));
        assert_eq!(of("80", Some(&service)), Ok((80, 8080)));
        assert_eq!(of("9000:web", Some(&service)), Ok((9000, 8080)));
        assert_eq!(of("81", Some(&service)), Err("Service s does not have a service port 81".into()));
        assert!(of("x", None).is_err());
    }
}
