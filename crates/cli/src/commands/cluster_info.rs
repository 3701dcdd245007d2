//! `cluster-info`: where the control plane and the services of the cluster itself answer.

use clap::Args;

use crate::failure::Result;
use crate::print::{at, list};
use crate::session::Session;

/// Nothing to choose.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {}

/// Prints the addresses; in colour on a terminal, as kubectl does.
pub(crate) async fn run(session: &Session, _flags: Flags) -> Result {
    use std::io::IsTerminal as _;
    let server = session.server().await?;
    let coloured = std::io::stdout().is_terminal();
    let colour =
        |code: u8, text: &str| if coloured { format!("\u{1b}[0;{code}m{text}\u{1b}[0m") } else { text.to_owned() };
    let services = session.kind("", "Service").await?;
    let query = [("labelSelector", "kubernetes.io/cluster-service=true".to_owned())];
    let found = server.list(&services.path(Some("kube-system")), &query, "application/json").await?;
    session.out(&format!("{} is running at {}\n", colour(32, "Kubernetes control plane"), colour(33, &server.url)))?;
    for service in list(&found, "/items") {
        let name = at(service, "/metadata/name");
        let shown = match at(service, "/metadata/labels/kubernetes.io~1name") {
            "" => name,
            named => named,
        };
        let port = list(service, "/spec/ports").first().map_or("", |port| at(port, "/name"));
        let port = if port.is_empty() { String::new() } else { format!(":{port}") };
        let url = format!("{}/api/v1/namespaces/kube-system/services/{name}{port}/proxy", server.url);
        session.out(&format!("{} is running at {}\n", colour(32, shown), colour(33, &url)))?;
    }
    session.out("\nTo further debug and diagnose cluster problems, use 'kubectl cluster-info dump'.\n")
}
