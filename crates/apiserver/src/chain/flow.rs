//! How many requests run at once: separate room for reads and writes, a bounded queue before each, 429 beyond.
//!
//! Watches and streams are long and idle; they take no room. Components in the process are not limited: they limit
//! themselves, and a cluster whose controllers are refused cannot recover.

use serde_json::json;
use stead_machinery::ApiError;
use stead_machinery::status::Reason;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Peer, reads};
use crate::path::{ResourceRequest, Verb};

/// Concurrent reads (upstream's `--max-requests-inflight`).
const READS_MAX: usize = 400;
/// Concurrent writes (upstream's `--max-mutating-requests-inflight`).
const WRITES_MAX: usize = 200;
/// Requests that may wait for room, in each class.
const WAITING_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct Limits {
    reads: Lane,
    writes: Lane,
}

#[derive(Debug)]
struct Lane {
    room: Semaphore,
    queue: Semaphore,
}

impl Lane {
    fn new(room: usize) -> Self {
        Self { room: Semaphore::new(room), queue: Semaphore::new(WAITING_MAX) }
    }

    async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.room.try_acquire() {
            return Some(permit);
        }
        let _place = self.queue.try_acquire().ok()?;
        self.room.acquire().await.ok()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { reads: Lane::new(READS_MAX), writes: Lane::new(WRITES_MAX) }
    }
}

impl Limits {
    /// Waits for room. `None` means that the request needs none.
    pub(crate) async fn enter(
        &self,
        peer: &Peer,
        request: &ResourceRequest,
        upgrade: bool,
    ) -> Result<Option<SemaphorePermit<'_>>, ApiError> {
        let long = request.verb == Verb::Watch || upgrade || matches!(request.subresource.as_str(), "log" | "proxy");
        if long || matches!(peer, Peer::InProcess(_)) {
            return Ok(None);
        }
        let lane = if reads(request.verb) { &self.reads } else { &self.writes };
        lane.enter().await.map(Some).ok_or_else(too_many)
    }
}

fn too_many() -> ApiError {
    let mut error = ApiError::new(Reason::TooManyRequests, "Too many requests, please try again later.");
    error.details = json!({"retryAfterSeconds": 1});
    error
}
