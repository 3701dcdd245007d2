//! DNS inside the cluster: the time from question to answer.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use stead_client::Client;
use stead_testkit::cluster::Cluster;

use crate::{figure, percentile};

const QUESTIONS: usize = 2_000;

/// Asks the cluster's DNS for the API server's name.
pub(crate) async fn answers(client: &Client, cluster: &Cluster) -> Result<()> {
    let _ = cluster;
    let service =
        Api::<Service>::namespaced(client.clone(), "kube-system").get("kube-dns").await.context("service kube-dns")?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).context("kube-dns has no address")?;
    let mut times = tokio::task::spawn_blocking(move || ask(&address)).await??;
    figure("DNS answer, median", percentile(&mut times, 0.5), "ms", "-");
    figure("DNS answer, p99", percentile(&mut times, 0.99), "ms", "1");
    Ok(())
}

fn ask(address: &str) -> Result<Vec<f64>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.connect((address, 53))?;
    let mut question = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["kubernetes", "default", "svc", "cluster", "local"] {
        question.push(u8::try_from(label.len())?);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let mut answer = [0; 512];
    (0..QUESTIONS)
        .map(|number| {
            question[..2].copy_from_slice(&u16::try_from(number)?.to_be_bytes());
            let started = Instant::now();
            socket.send(&question)?;
            let size = socket.recv(&mut answer)?;
            ensure!(size > question.len() && answer[..2] == question[..2] && answer[3] & 0x0f == 0, "a wrong answer");
            Ok(started.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}
