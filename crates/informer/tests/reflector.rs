//! Caches against a scripted server: what they do when lists fail, watches end and revisions expire.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use stead_client::in_process;
use stead_informer::{Cache, Caches, index};
use tokio::sync::mpsc;

type Answer = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// What the server answers to the next requests, in order, and what it was asked.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<(u16, Reply)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

enum Reply {
    Whole(Value),
    /// A watch that sends what comes through the channel and ends with it.
    Watch(mpsc::UnboundedReceiver<Value>),
}

impl Script {
    fn list(&self, revision: u32, objects: &[(&str, u32)]) {
        let items: Vec<_> = objects.iter().map(|(name, at)| object(name, *at)).collect();
        let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": revision.to_string()}, "items": items});
        self.answers.lock().push_back((200, Reply::Whole(list)));
    }

    fn watch(&self) -> mpsc::UnboundedSender<Value> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.answers.lock().push_back((200, Reply::Watch(receiver)));
        sender
    }

    fn refuse(&self, code: u16, reason: &str) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason});
        self.answers.lock().push_back((code, Reply::Whole(status)));
    }

    fn caches(&self) -> Caches {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let script = script.clone();
            async move { Ok::<_, std::convert::Infallible>(script.answer(request.uri().clone()).await) }
        });
        Caches::new(in_process(service, "default"))
    }

    async fn answer(&self, uri: http::Uri) -> Response<Answer> {
        let query = uri.query().unwrap_or_default();
        let watching = query.contains("watch=true");
        let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap_or("-");
        self.asked.lock().push(if watching { format!("watch {from}") } else { "list".to_owned() });
        let next = self.answers.lock().pop_front();
        let Some((code, reply)) = next else {
            // The script is over: the connection stays silent.
            return std::future::pending().await;
        };
        let body = match reply {
            Reply::Whole(value) => Full::new(Bytes::from(value.to_string())).boxed_unsync(),
            Reply::Watch(receiver) => {
                let events = futures::stream::unfold(receiver, |mut receiver| async move {
                    let event = receiver.recv().await?;
                    let frame = http_body::Frame::data(Bytes::from(format!("{event}\n")));
                    Some((Ok(frame), receiver))
                });
                StreamBody::new(events.boxed()).boxed_unsync()
            }
        };
        Response::builder().status(code).body(body).expect("a response")
    }

    fn asked(&self) -> String {
        self.asked.lock().join(", ")
    }
}

fn object(name: &str, revision: u32) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {
        "name": name, "namespace": "ns", "uid": name, "resourceVersion": revision.to_string(),
        "managedFields": [{"manager": "someone"}],
    }})
}

fn event(kind: &str, name: &str, revision: u32) -> Value {
    json!({"type": kind, "object": object(name, revision)})
}

/// `a@1 b@2`.
fn draw(cache: &Cache<ConfigMap>) -> String {
    let cell = |object: &ConfigMap| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}@{}", text(&object.metadata.name), text(&object.metadata.resource_version))
    };
    cache.list().iter().map(|object| cell(object)).collect::<Vec<_>>().join(" ")
}

#[tokio::test(start_paused = true)]
async fn follows_the_watch_and_keeps_no_managed_fields() {
    let script = Script::default();
    script.list(5, &[("a", 1), ("b", 2)]);
    let watch = script.watch();
    let cache: Cache<ConfigMap> = script.caches().of();
    cache.synced().await;
    assert_eq!(draw(&cache), "a@1 b@2");
    assert!(cache.get("ns", "a").expect("listed").metadata.managed_fields.is_none());
    let _ = watch.send(event("MODIFIED", "a", 6));
    let _ = watch.send(event("DELETED", "b", 7));
    let _ = watch.send(event("ADDED", "c", 8));
    cache.reached(8).await;
    assert_eq!(draw(&cache), "a@6 c@8");
    let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "40"}}});
    let _ = watch.send(bookmark);
    cache.reached(40).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_goes_on_where_it_ended() {
    let script = Script::default();
    script.list(5, &[("a", 1)]);
    let (first, second) = (script.watch(), script.watch());
    let cache: Cache<ConfigMap> = script.caches().of();
    let _ = first.send(event("MODIFIED", "a", 6));
    cache.reached(6).await;
    drop(first);
    let _ = second.send(event("MODIFIED", "a", 7));
    cache.reached(7).await;
    assert_eq!(script.asked(), "list, watch 5, watch 6");
}

#[tokio::test(start_paused = true)]
async fn an_expired_revision_means_a_new_list_and_what_it_lacks_is_gone() {
    let script = Script::default();
    script.list(5, &[("a", 1), ("b", 2)]);
    let watch = script.watch();
    script.list(9, &[("b", 2), ("c", 8)]);
    let caches = script.caches();
    let cache: Cache<ConfigMap> = caches.of();
    cache.synced().await;
    let mut changes = cache.subscribe();
    for _ in 0..2 {
        assert!(changes.next().await.expect("open").old.is_none(), "begins with what is there");
    }
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}});
    let _ = watch.send(gone);
    cache.reached(9).await;
    assert_eq!(draw(&cache), "b@2 c@8");
    let mut told = vec![];
    while let Some(change) = changes.try_next() {
        told.push(format!("{}{}", if change.new.is_some() { '+' } else { '-' }, change.key.name));
    }
    told.sort();
    assert_eq!(told, ["+c", "-a"], "b did not change and is not told");
    caches.shut_down();
    assert!(changes.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_ever_more_slowly() {
    let script = Script::default();
    for _ in 0..3 {
        script.refuse(503, "ServiceUnavailable");
    }
    script.list(5, &[("a", 1)]);
    script.refuse(410, "Expired");
    script.list(6, &[("a", 1)]);
    let start = tokio::time::Instant::now();
    let cache: Cache<ConfigMap> = script.caches().of();
    cache.reached(6).await;
    assert!(script.asked().starts_with("list, list, list, list, watch 5, list"), "{}", script.asked());
    assert_eq!(start.elapsed().as_millis(), 5 + 10 + 20);
}

/// Seen with a condition of a Service that lacked its time: no controller heard of any Service again.
#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_holds_up_no_other() {
    let strange = |name: &str, revision: u32| {
        let mut object = object(name, revision);
        object["data"] = json!("no map");
        object
    };
    let script = Script::default();
    let items = json!([object("a", 1), strange("x", 2), object("b", 3)]);
    let list =
        json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": items});
    script.answers.lock().push_back((200, Reply::Whole(list)));
    let watch = script.watch();
    let cache: Cache<ConfigMap> = script.caches().of();
    cache.synced().await;
    assert_eq!(draw(&cache), "a@1 b@3");
    let _ = watch.send(json!({"type": "MODIFIED", "object": strange("a", 7)}));
    let _ = watch.send(event("MODIFIED", "b", 8));
    cache.reached(8).await;
    assert_eq!(draw(&cache), "a@1 b@8", "what could be read last stays");
    let _ = watch.send(json!({"type": "DELETED", "object": strange("a", 9)}));
    cache.reached(9).await;
    assert_eq!(draw(&cache), "b@8");
    assert_eq!(script.asked(), "list, watch 5");
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_given_up() {
    let script = Script::default();
    script.list(5, &[("a", 1)]);
    let _silent = script.watch();
    let second = script.watch();
    let cache: Cache<ConfigMap> = script.caches().of();
    let _ = second.send(event("MODIFIED", "a", 6));
    cache.reached(6).await;
    assert_eq!(script.asked(), "list, watch 5, watch 5");
}

#[tokio::test(start_paused = true)]
async fn a_kind_is_watched_once_whoever_asks() {
    let script = Script::default();
    script.list(5, &[("a", 1)]);
    let _watch = script.watch();
    let caches = script.caches();
    let (one, two): (Cache<ConfigMap>, Cache<ConfigMap>) = (caches.of(), caches.clone().of());
    one.synced().await;
    two.synced().await;
    one.add_index(index::CONTROLLER_UID, index::by_controller);
    assert_eq!(two.by_index(index::CONTROLLER_UID, &index::orphans_of("ns")).len(), 1);
    assert!(script.asked().starts_with("list") && script.asked().matches("list").count() == 1);
}
