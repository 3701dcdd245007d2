//! Watch: what is there, then every change, in the caller's form; bookmarks; an end that the caller can go on from.
//!
//! A watch never waits for its reader: the store closes it when it lags too far behind, and the caller starts anew from
//! the last resource version it saw.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use stead_api::Kind;
use stead_machinery::status::Reason;
use stead_machinery::table::IncludeObject;
use stead_machinery::{ApiError, FieldErrors, Path};
use stead_store::{Change, Changes, Entry, Revision, StoreError};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Target;
use super::list::parse_version;
use super::render;
use super::write::store_failed;
use crate::body::ApiBody;
use crate::chain::Call;
use crate::negotiate::{self, Form};
use crate::objects;
use crate::options::{judged, parse_int};
use crate::path::Query;
use crate::response::{self, Answer};
use crate::select::Selection;
use crate::server::ApiServer;

/// Between two bookmarks.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// The last bookmark comes this long before the end of the watch.
const LAST_BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// A watch without `timeoutSeconds` ends after this, plus up to as much again (upstream's `--min-request-timeout`).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Events that are waiting are sent together up to this many bytes.
const FRAME_BYTES: usize = 64 * 1024;

pub(crate) async fn watch(server: &ApiServer, target: Target, call: Call) -> Result<Answer, ApiError> {
    let form = negotiate::watch(call.headers(), &call.query)?;
    render::check_include(form, &call.query)?;
    let options = WatchOptions::read(&call.query)?;
    let selection = Selection::read(&server.0.recent, target.kind, &target.name, &call.query)?;
    let prefix = objects::prefix_of(target.kind, &target.namespace);
    let stream = Stream::open(server.clone(), target.kind, form, options, selection, &prefix, &call.query).await;
    let body = match stream {
        Ok(stream) => ApiBody::frames(futures::stream::unfold(stream, Stream::next)),
        // Like upstream: too old a version is an event of the stream, not an answer.
        Err(error) if error.reason == Reason::Expired => ApiBody::full(error_event(&error)),
        Err(error) => return Err(error),
    };
    Ok(response::with_type(StatusCode::OK, form.media.content_type(), body))
}

/// How a watch begins and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchOptions {
    /// 0: from what is there now.
    version: Revision,
    /// First what is there, whatever the version says, and then a bookmark that says so.
    initial_events: bool,
    /// Nothing of what is there, although the version is 0.
    skip_initial: bool,
    bookmarks: bool,
    timeout: Option<Duration>,
}

impl WatchOptions {
    fn read(query: &Query) -> Result<Self, ApiError> {
        judge_watch(query)?;
        let timeout = match query.get("timeoutSeconds") {
            "" => None,
            text => u64::try_from(parse_int(text)?).ok().filter(|s| *s > 0).map(Duration::from_secs),
        };
        let initial = query.find("sendInitialEvents").filter(|v| !v.is_empty());
        Ok(Self {
            version: parse_version(query.get("resourceVersion"))?,
            initial_events: initial.is_some() && query.flag("sendInitialEvents"),
            skip_initial: initial.is_some() && !query.flag("sendInitialEvents"),
            bookmarks: query.flag("allowWatchBookmarks"),
            timeout,
        })
    }
}

fn judge_watch(query: &Query) -> Result<(), ApiError> {
    let matching = query.get("resourceVersionMatch");
    let initial = query.find("sendInitialEvents").is_some_and(|v| !v.is_empty());
    let mut errors = FieldErrors::default();
    let path = Path::new("resourceVersionMatch");
    if initial && matching != "NotOlderThan" {
        errors.forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if !matching.is_empty() {
        if !initial {
            errors.forbidden(&path, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
        }
        if matching != "NotOlderThan" {
            errors.not_supported(&path, &matching, &["NotOlderThan"]);
        }
        if !query.get("continue").is_empty() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
    }
    judged("ListOptions", &errors)
}

/// An open watch.
struct Stream {
    server: ApiServer,
    kind: &'static Kind,
    form: Form,
    include: IncludeObject,
    bookmarks: bool,
    selection: Selection,
    /// What was there at the beginning and is not sent yet.
    initial: VecDeque<Entry>,
    /// Say where the beginning ends.
    announce_end: bool,
    changes: Changes,
    /// Everything up to here is sent.
    seen: Revision,
    /// The next table tells its columns.
    columns: bool,
    timer: std::pin::Pin<Box<Sleep>>,
    next_bookmark: Instant,
    end: Instant,
}

impl Stream {
    async fn open(
        server: ApiServer,
        kind: &'static Kind,
        form: Form,
        options: WatchOptions,
        selection: Selection,
        prefix: &str,
        query: &Query,
    ) -> Result<Self, ApiError> {
        let store = server.0.store.clone();
        let mut initial = VecDeque::new();
        let mut after = options.version;
        if (options.version == 0 || options.initial_events) && !options.skip_initial {
            let range = store.range(prefix.as_bytes(), b"", 0, None).await.map_err(store_failed)?;
            after = range.revision;
            initial = range.entries.into_iter().filter(|entry| selection.matches(entry)).collect();
        } else if options.version == 0 {
            after = store.revision();
        }
        let changes = store.watch(prefix.as_bytes(), after).await.map_err(|error| match error {
            StoreError::Compacted { asked, oldest } => {
                ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
            }
            other => store_failed(other),
        })?;
        let now = Instant::now();
        let timeout = options.timeout.unwrap_or_else(spread_timeout).min(TIMEOUT_MAX);
        server.0.metrics.watches.fetch_add(1, Ordering::Relaxed);
        let mut stream = Self {
            server,
            kind,
            form,
            include: render::include(query),
            bookmarks: options.bookmarks,
            selection,
            initial,
            announce_end: options.initial_events && options.bookmarks,
            changes,
            seen: after,
            columns: true,
            timer: Box::pin(sleep_until(now)),
            next_bookmark: now + BOOKMARK_INTERVAL,
            end: now + timeout,
        };
        stream.plan_bookmark(now);
        Ok(stream)
    }

    /// The next frame, for `unfold`.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        let mut out = BytesMut::new();
        if !self.initial.is_empty() || self.announce_end {
            self.put_initial(&mut out);
            if !out.is_empty() {
                return Some((out.freeze(), self));
            }
        }
        let closing = self.server.0.closing.clone();
        loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => return None,
                change = self.changes.recv() => {
                    // The store closes a watch that lags too far behind: the caller begins anew.
                    let change = change?;
                    self.put_change(&mut out, &change);
                    self.put_waiting(&mut out);
                }
                () = self.timer.as_mut() => {
                    let now = Instant::now();
                    if now >= self.end {
                        return None;
                    }
                    self.put_bookmark(&mut out);
                    self.plan_bookmark(now);
                }
            }
            if !out.is_empty() {
                return Some((out.freeze(), self));
            }
        }
    }

    fn put_initial(&mut self, out: &mut BytesMut) {
        while let Some(entry) = self.initial.pop_front() {
            self.put_event(out, "ADDED", &entry, entry.modified);
            if out.len() >= FRAME_BYTES {
                return;
            }
        }
        if std::mem::take(&mut self.announce_end) {
            put_bookmark(out, self.kind, self.seen, true);
        }
    }

    /// Changes that are there already go into the same frame.
    fn put_waiting(&mut self, out: &mut BytesMut) {
        while out.len() < FRAME_BYTES {
            let Ok(change) = self.changes.try_recv() else { return };
            self.put_change(out, &change);
        }
    }

    fn put_change(&mut self, out: &mut BytesMut, change: &Change) {
        if change.revision <= self.seen {
            return;
        }
        self.seen = change.revision;
        let matches = |entry: &Option<Entry>| entry.as_ref().filter(|entry| self.selection.matches(entry)).cloned();
        match (matches(&change.before), matches(&change.now)) {
            (None, None) => {}
            (None, Some(now)) => self.put_event(out, "ADDED", &now, change.revision),
            (Some(_), Some(now)) => self.put_event(out, "MODIFIED", &now, change.revision),
            // Gone, or out of the selection: the caller sees it as it last was, with the version of the change.
            (Some(before), None) => self.put_event(out, "DELETED", &before, change.revision),
        }
    }

    fn put_event(&mut self, out: &mut BytesMut, event: &str, entry: &Entry, revision: Revision) {
        self.server.0.metrics.watch_events.fetch_add(1, Ordering::Relaxed);
        out.reserve(entry.value.len() + 128);
        out.put_slice(b"{\"type\":\"");
        out.put_slice(event.as_bytes());
        out.put_slice(b"\",\"object\":");
        let columns = std::mem::take(&mut self.columns);
        render::put_one(out, self.form.shape, self.kind, entry, revision, self.include, columns);
        out.put_slice(b"}\n");
    }

    fn put_bookmark(&mut self, out: &mut BytesMut) {
        if !self.bookmarks {
            return;
        }
        // Whatever was delivered before this question must be sent before the bookmark.
        let delivered = self.server.0.store.delivered();
        while let Ok(change) = self.changes.try_recv() {
            self.put_change(out, &change);
        }
        self.seen = self.seen.max(delivered);
        put_bookmark(out, self.kind, self.seen, false);
    }

    fn plan_bookmark(&mut self, now: Instant) {
        let last = self.end - LAST_BOOKMARK_BEFORE_END.min(self.end - now);
        while self.next_bookmark <= now {
            self.next_bookmark += BOOKMARK_INTERVAL;
        }
        let next = if last > now { self.next_bookmark.min(last) } else { self.end };
        self.timer.as_mut().reset(if self.bookmarks { next } else { self.end });
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.server.0.metrics.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

/// So that watches that began together do not end together.
fn spread_timeout() -> Duration {
    let random = crate::source::uuid().as_u128() as u64;
    DEFAULT_TIMEOUT + Duration::from_millis(random % DEFAULT_TIMEOUT.as_millis() as u64)
}

fn put_bookmark(out: &mut BytesMut, kind: &Kind, revision: Revision, initial_end: bool) {
    let annotations = if initial_end { ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}" } else { "" };
    let text = format!(
        "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{{\"resourceVersion\":\"{revision}\",\"creationTimestamp\":null{annotations}}}}}}}\n",
        kind.kind,
        kind.api_version()
    );
    out.put_slice(text.as_bytes());
}

fn error_event(error: &ApiError) -> Bytes {
    format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", error.to_status()).into()
}
