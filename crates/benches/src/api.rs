//! The API under load, over TLS as any client.

use std::time::Instant;

use anyhow::Result;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use serde_json::json;
use stead_client::Client;

use crate::{figure, percentile};

const CLIENTS: usize = 32;
const REQUESTS_PER_CLIENT: usize = 300;

/// Durable creates of ConfigMaps of 1 KiB.
pub(crate) async fn creates(client: &Client) -> Result<()> {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let one = |worker: usize| {
        let api = api.clone();
        async move {
            let mut times = Vec::with_capacity(REQUESTS_PER_CLIENT);
            for number in 0..REQUESTS_PER_CLIENT {
                let object: ConfigMap = serde_json::from_value(json!({
                    "metadata": {"name": format!("load-{worker}-{number}")}, "data": {"key": "x".repeat(1024)}}))?;
                let started = Instant::now();
                api.create(&PostParams::default(), &object).await?;
                times.push(started.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, anyhow::Error>(times)
        }
    };
    run("durable ConfigMap (1 KiB) creates, 32 clients", one, "7500", "15").await
}

/// The same by one client, so that nobody shares its way to the disk.
pub(crate) async fn alone(client: &Client) -> Result<()> {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let mut times = Vec::with_capacity(REQUESTS_PER_CLIENT);
    for number in 0..REQUESTS_PER_CLIENT {
        let object: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": format!("alone-{number}")}, "data": {"key": "x".repeat(1024)}}))?;
        let started = Instant::now();
        api.create(&PostParams::default(), &object).await?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    figure("durable ConfigMap (1 KiB) creates, one client: median", percentile(&mut times, 0.5), "ms", "-");
    figure("durable ConfigMap (1 KiB) creates, one client: p99", percentile(&mut times, 0.99), "ms", "-");
    Ok(())
}

/// Gets of one of them.
pub(crate) async fn gets(client: &Client) -> Result<()> {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let one = |worker: usize| {
        let api = api.clone();
        async move {
            let mut times = Vec::with_capacity(REQUESTS_PER_CLIENT);
            for number in 0..REQUESTS_PER_CLIENT {
                let started = Instant::now();
                api.get(&format!("load-{worker}-{number}")).await?;
                times.push(started.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, anyhow::Error>(times)
        }
    };
    run("gets, 32 clients", one, "20000", "-").await
}

async fn run<F, W>(what: &str, one: F, rate: &str, p99: &str) -> Result<()>
where
    F: Fn(usize) -> W,
    W: Future<Output = Result<Vec<f64>>> + Send + 'static,
{
    let started = Instant::now();
    let workers: Vec<_> = (0..CLIENTS).map(|worker| tokio::spawn(one(worker))).collect();
    let mut times = Vec::new();
    for samples in try_join_all(workers).await? {
        times.extend(samples?);
    }
    let seconds = started.elapsed().as_secs_f64();
    figure(what, times.len() as f64 / seconds, "/s", rate);
    figure(&format!("{what}: p99"), percentile(&mut times, 0.99), "ms", p99);
    Ok(())
}
