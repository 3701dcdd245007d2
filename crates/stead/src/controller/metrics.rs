//! `/metrics` and `/healthz` of the companion: plain HTTP, for probes and Prometheus.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use stead_controllers::statefulset::Counts;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The pause after a failed accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What is told of this process.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    leads: AtomicBool,
    pub(super) counts: Arc<Counts>,
}

impl Metrics {
    pub(super) fn leads(&self, now: bool) {
        self.leads.store(now, Ordering::Relaxed);
    }

    fn render(&self) -> String {
        let leads = u8::from(self.leads.load(Ordering::Relaxed));
        format!(
            "# HELP stead_companion_leader Whether this process is the one that acts.\n\
             # TYPE stead_companion_leader gauge\nstead_companion_leader {leads}\n{}",
            self.counts.render()
        )
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let (code, text) = match path {
            "/metrics" => (StatusCode::OK, self.render()),
            "/healthz" => (StatusCode::OK, "ok".to_owned()),
            _ => (StatusCode::NOT_FOUND, "there are /metrics and /healthz\n".to_owned()),
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = code;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; version=0.0.4"));
        response
    }
}

/// Listens, and returns what serves until `stop`.
pub(super) async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let listener = TcpListener::bind(address).await?;
    Ok(async move {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, _)) => drop(tokio::spawn(connection(stream, metrics.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    // Out of file descriptors: accepting at once again would only burn the processor.
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    })
}

async fn connection(stream: tokio::net::TcpStream, metrics: Arc<Metrics>) {
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let answer = metrics.answer(request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "metrics");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_leads_and_what_was_done() {
        let metrics = Metrics::default();
        assert!(metrics.render().contains("\nstead_companion_leader 0\n"));
        metrics.leads(true);
        let text = metrics.render();
        assert!(
            text.contains("\nstead_companion_leader 1\n") && text.contains("{action=\"delete_outdated\"} 0"),
            "{text}"
        );
        assert_eq!(metrics.answer("/healthz").status(), StatusCode::OK);
        assert_eq!(metrics.answer("/").status(), StatusCode::NOT_FOUND);
    }
}
