//! List, then watch, then watch again from where the last one ended: keeps one cache up to date for ever.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ListParams, WatchParams};
use kube::core::{ObjectList, Request, WatchEvent};
use stead_client::{Class, Client, classify, message};
use tokio::time::{Instant, sleep, timeout};

use crate::{Cache, Key, Object};

/// Objects per page of a list.
const PAGE_OBJECTS: u32 = 500;
/// How long the server is asked to keep one watch open.
const WATCH_SECONDS: u32 = 290;
/// Silence after which a connection counts as dead: the server should have ended the watch by then.
const DEAD_AFTER: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// First pause after a failure; doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A watch that lived at least this long counts as a success.
const WATCH_GOOD: Duration = Duration::from_secs(1);

/// Why one watch ended.
enum Ended {
    /// In the course of things: go on from where it ended.
    Again,
    /// The server no longer has the revision: list again.
    Expired,
}

/// One kind to be mirrored into one cache.
pub(crate) struct Reflector<K> {
    pub(crate) client: Client,
    pub(crate) request: Request,
    pub(crate) cache: Cache<K>,
}

impl<K: Object> Reflector<K> {
    /// Never returns; the caller drops it to stop.
    pub(crate) async fn run(self) {
        let mut pause = PAUSE_FIRST;
        loop {
            match self.list().await {
                Ok(revision) => self.follow(revision, &mut pause).await,
                Err(error) => self.rest("list", &error, &mut pause).await,
            }
        }
    }

    /// Watches from `revision` on until a new list is needed.
    async fn follow(&self, mut revision: String, pause: &mut Duration) {
        loop {
            let since = Instant::now();
            let outcome = self.watch(&mut revision).await;
            if since.elapsed() >= WATCH_GOOD {
                *pause = PAUSE_FIRST;
            }
            match outcome {
                Ok(Ended::Expired) => return,
                Err(error) if classify(&error) == Class::Expired => return,
                Ok(Ended::Again) if since.elapsed() >= WATCH_GOOD => {}
                Ok(Ended::Again) => self.wait(pause).await,
                Err(error) => self.rest("watch", &error, pause).await,
            }
        }
    }

    async fn list(&self) -> Result<String, kube::Error> {
        let mut seen = HashSet::new();
        let mut params = ListParams::default().limit(PAGE_OBJECTS);
        loop {
            let request =
                if K::metadata_api() { self.request.list_metadata(&params) } else { self.request.list(&params) };
            let page: ObjectList<K> = self.client.request(request.map_err(kube::Error::BuildRequest)?).await?;
            for object in page.items {
                seen.insert(Key::of(object.meta()));
                self.cache.apply(object);
            }
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => params = params.continue_token(&token),
                _ => {
                    self.cache.retain(&seen);
                    let revision = page.metadata.resource_version.unwrap_or_default();
                    self.cache.listed(number(&revision));
                    return Ok(revision);
                }
            }
        }
    }

    async fn watch(&self, revision: &mut String) -> Result<Ended, kube::Error> {
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        let request = if K::metadata_api() {
            self.request.watch_metadata(&params, revision)
        } else {
            self.request.watch(&params, revision)
        };
        let request = request.map_err(kube::Error::BuildRequest)?;
        let stream = self.client.request_events::<K>(request).await?;
        futures::pin_mut!(stream);
        while let Ok(Some(event)) = timeout(DEAD_AFTER, stream.next()).await {
            match self.take(event?) {
                Some(at) => *revision = at,
                None => return Ok(Ended::Expired),
            }
        }
        Ok(Ended::Again)
    }

    /// Applies one event; its revision, or `None` when the watch has to start over.
    fn take(&self, event: WatchEvent<K>) -> Option<String> {
        let at = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let at = object.meta().resource_version.clone()?;
                self.cache.apply(object);
                at
            }
            WatchEvent::Deleted(object) => {
                let at = object.meta().resource_version.clone()?;
                self.cache.remove(Key::of(object.meta()));
                at
            }
            WatchEvent::Bookmark(bookmark) => bookmark.metadata.resource_version,
            WatchEvent::Error(status) => {
                tracing::debug!(what = self.cache.what(), status = status.message, "watch ended by the server");
                return None;
            }
        };
        self.cache.advance(number(&at));
        Some(at)
    }

    async fn rest(&self, doing: &str, error: &kube::Error, pause: &mut Duration) {
        tracing::warn!(what = self.cache.what(), error = message(error), "cannot {doing}, next try in {pause:?}");
        self.wait(pause).await;
    }

    async fn wait(&self, pause: &mut Duration) {
        sleep(*pause).await;
        *pause = (*pause * 2).min(PAUSE_MAX);
    }
}

/// A revision as a number, which the API promises to be comparable; 0 for anything else.
fn number(revision: &str) -> u64 {
    revision.parse().unwrap_or(0)
}
