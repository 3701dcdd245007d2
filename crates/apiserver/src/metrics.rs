//! Counters of the server and their text form for `/metrics`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the server counts. Names follow upstream's where upstream has one.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By class of the status code: 1xx to 5xx.
    requests: [AtomicU64; 5],
    pub inflight: AtomicU64,
    pub watches: AtomicU64,
    pub watch_events: AtomicU64,
    /// Requests of our own components that were forbidden.
    pub refused: AtomicU64,
}

impl Metrics {
    pub(crate) fn request_done(&self, code: u16) {
        let class = usize::from(code / 100).clamp(1, 5) - 1;
        self.requests[class].fetch_add(1, Ordering::Relaxed);
    }

    /// Prometheus' text format.
    #[must_use]
    pub(crate) fn render(&self, revision: u64) -> String {
        let mut out = String::with_capacity(1024);
        let mut head = |name: &str, kind: &str, help: &str| {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            std::mem::take(&mut out)
        };
        let mut text = head("apiserver_request_total", "counter", "Requests by class of the answer's code.");
        for (class, count) in self.requests.iter().enumerate() {
            let _ =
                writeln!(text, "apiserver_request_total{{code=\"{}xx\"}} {}", class + 1, count.load(Ordering::Relaxed));
        }
        for (name, kind, help, value) in [
            (
                "apiserver_current_inflight_requests",
                "gauge",
                "Requests being served.",
                self.inflight.load(Ordering::Relaxed),
            ),
            ("apiserver_longrunning_requests", "gauge", "Open watches.", self.watches.load(Ordering::Relaxed)),
            (
                "apiserver_watch_events_total",
                "counter",
                "Events sent to watchers.",
                self.watch_events.load(Ordering::Relaxed),
            ),
            (
                "stead_component_requests_refused_total",
                "counter",
                "Forbidden requests of stead's own components: each is a missing right.",
                self.refused.load(Ordering::Relaxed),
            ),
            ("stead_store_revision", "gauge", "Newest revision of the store.", revision),
        ] {
            text.push_str(&head(name, kind, help));
            let _ = writeln!(text, "{name} {value}");
        }
        text
    }
}
