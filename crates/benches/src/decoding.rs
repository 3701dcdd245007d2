//! What one event of a watch costs its reader: from the bytes of the answer to the object in a cache.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams};
use kube::client::Body;
use stead_client::{Client, in_process};
use stead_informer::{Cache, Caches};

use crate::figure;
use crate::watching::pod;

const EVENTS: u64 = 10_000;
/// Of these the quickest counts: the others were disturbed.
const ROUNDS: usize = 5;
/// Above every revision that the pod itself can have.
const FIRST_REVISION: u64 = 1_000_000;

/// Events of a pod as the server writes it, read by a cache from memory.
pub(crate) async fn events(client: &Client) -> Result<()> {
    let text = stored(client).await?;
    let lines = Bytes::from(lines(&text)?);
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let cache: Cache<Pod> = replay(lines.clone()).of();
        let started = Instant::now();
        cache.reached(FIRST_REVISION + EVENTS - 1).await;
        best = best.min(started.elapsed().as_secs_f64() * 1e6 / EVENTS as f64);
    }
    figure(&format!("watch event of a pod of {} bytes into a cache", text.len()), best, "us", "-");
    Ok(())
}

/// A pod in the words of the server, with all that it fills in and keeps a record of.
async fn stored(client: &Client) -> Result<String> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    api.create(&PostParams::default(), &pod("decoded")?).await?;
    let text = client.request_text(Request::get("/api/v1/namespaces/default/pods/decoded").body(Vec::new())?).await?;
    api.delete("decoded", &DeleteParams::default().grace_period(0)).await?;
    Ok(text.trim().to_owned())
}

/// A watch in which the pod changes again and again.
fn lines(pod: &str) -> Result<String> {
    const VERSION: &str = "\"resourceVersion\":\"";
    let at = pod.find(VERSION).context("the pod has a revision")? + VERSION.len();
    let (head, rest) = pod.split_at(at);
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let mut lines = String::new();
    for revision in FIRST_REVISION..FIRST_REVISION + EVENTS {
        writeln!(lines, r#"{{"type":"MODIFIED","object":{head}{revision}{rest}}}"#)?;
    }
    Ok(lines)
}

/// A server that has no pods, then this watch, and then nothing to say.
fn replay(lines: Bytes) -> Caches {
    let asked = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn(move |_: Request<Body>| {
        let (lines, number) = (lines.clone(), asked.fetch_add(1, Ordering::Relaxed));
        async move {
            let body = match number {
                0 => Bytes::from_static(br#"{"metadata":{"resourceVersion":"1"},"items":[]}"#),
                1 => lines,
                _ => std::future::pending().await,
            };
            Ok::<_, Infallible>(Response::new(Full::new(body)))
        }
    });
    Caches::new(in_process(service, "default"))
}
