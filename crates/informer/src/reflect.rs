//! List, then watch, then watch again from where the last one ended: keeps one cache up to date for ever.

use std::collections::HashSet;
use std::time::Duration;

use futures::AsyncBufReadExt;
use kube::api::{ListParams, WatchParams};
use kube::core::{Request, Status};
use stead_client::{Class, Client, classify, message};
use tokio::time::{Instant, sleep, timeout};

use crate::Key;
use crate::event::{self, Event};

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

/// What is kept up to date, whatever it holds. The texts are those of objects as the server wrote them.
pub(crate) trait Mirror: Send + Sync {
    /// What is mirrored, for logs.
    fn what(&self) -> &str;
    /// Takes over an object that is new or has changed; its key and revision.
    fn apply(&self, object: &str) -> Result<(Key, String), serde_json::Error>;
    fn remove(&self, key: Key);
    /// Removes everything that a new list did not have.
    fn retain(&self, keep: &HashSet<Key>);
    fn advance(&self, revision: u64);
    /// The same after a complete list, when anything may have changed.
    fn listed(&self, revision: u64);
}

/// One kind to be mirrored into one cache. It knows no types: there is one for all of them.
pub(crate) struct Reflector {
    pub(crate) client: Client,
    pub(crate) request: Request,
    /// Only the metadata is asked for.
    pub(crate) metadata: bool,
    pub(crate) mirror: Box<dyn Mirror>,
}

impl Reflector {
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
            let request = if self.metadata { self.request.list_metadata(&params) } else { self.request.list(&params) };
            let text = self.client.request_text(request.map_err(kube::Error::BuildRequest)?).await?;
            let page = event::page(&text).map_err(kube::Error::SerdeError)?;
            for object in page.items {
                let (key, _) = self.apply(object).map_err(kube::Error::SerdeError)?;
                seen.insert(key);
            }
            if page.next.is_empty() {
                self.mirror.retain(&seen);
                self.mirror.listed(number(&page.revision));
                return Ok(page.revision);
            }
            params = params.continue_token(&page.next);
        }
    }

    async fn watch(&self, revision: &mut String) -> Result<Ended, kube::Error> {
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        let request = if self.metadata {
            self.request.watch_metadata(&params, revision)
        } else {
            self.request.watch(&params, revision)
        };
        let stream = self.client.request_stream(request.map_err(kube::Error::BuildRequest)?).await?;
        futures::pin_mut!(stream);
        let mut line = Vec::new();
        while let Ok(read) = timeout(DEAD_AFTER, stream.read_until(b'\n', &mut line)).await {
            if read.map_err(kube::Error::ReadEvents)? == 0 {
                break;
            }
            match std::str::from_utf8(&line) {
                // Cut off in the middle of an event: it comes again.
                Ok(text) if !text.ends_with('\n') => break,
                Ok(text) => match self.take(text)? {
                    Some(at) => *revision = at,
                    None => return Ok(Ended::Expired),
                },
                Err(error) => return Err(kube::Error::ReadEvents(std::io::Error::other(error))),
            }
            line.clear();
        }
        Ok(Ended::Again)
    }

    /// Applies one line of a watch; its revision, or `None` when the watch has to start over.
    fn take(&self, line: &str) -> Result<Option<String>, kube::Error> {
        let at = match Event::read(line) {
            Some(Event::Applied(object)) => self.apply(object).map(|(_, at)| at),
            Some(Event::Deleted(object)) => event::names(object).map(|names| {
                self.mirror.remove(Key::new(&names.namespace, &names.name));
                names.resource_version
            }),
            Some(Event::Bookmark(object)) => event::names(object).map(|names| names.resource_version),
            Some(Event::Failed(status)) => {
                tracing::debug!(what = self.mirror.what(), status, "watch ended by the server");
                return Ok(None);
            }
            None => return Err(no_event(line)),
        };
        let at = at.map_err(kube::Error::SerdeError)?;
        if at.is_empty() {
            return Ok(None);
        }
        self.mirror.advance(number(&at));
        Ok(Some(at))
    }

    /// Takes over an object. One that cannot be read as its kind must not hold up all others, so what is mirrored of it stays as
    /// it was.
    fn apply(&self, object: &str) -> Result<(Key, String), serde_json::Error> {
        self.mirror.apply(object).or_else(|error| {
            let names = event::names(object).ok().filter(|names| !names.name.is_empty());
            let Some(names) = names else { return Err(error) };
            let key = Key::new(&names.namespace, &names.name);
            tracing::warn!(what = self.mirror.what(), %key, %error, "an object cannot be read and is left as it was");
            Ok((key, names.resource_version))
        })
    }

    async fn rest(&self, doing: &str, error: &kube::Error, pause: &mut Duration) {
        tracing::warn!(what = self.mirror.what(), error = message(error), "cannot {doing}, next try in {pause:?}");
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

/// What a line is that is no event: an error of the server on its own, or nothing that can be read.
fn no_event(line: &str) -> kube::Error {
    match serde_json::from_str::<Status>(line) {
        Ok(status) => kube::Error::Api(Box::new(status)),
        Err(error) => kube::Error::SerdeError(error),
    }
}
