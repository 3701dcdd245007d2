//! Watches: what they begin with, what they show, how they end.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic where a test would")]

mod support;

use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use stead_apiserver::ApiBody;
use support::{CM, World};

/// The lines of a watch, as they come.
struct Lines {
    body: ApiBody,
    waiting: Vec<u8>,
}

impl Lines {
    async fn open(w: &World, url: &str) -> Self {
        let answer = w.send(&format!("GET {url}"), &[], "").await;
        assert_eq!(answer.status(), 200, "{url}");
        Self { body: answer.into_body(), waiting: Vec::new() }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.waiting.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.waiting.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame =
                tokio::time::timeout(Duration::from_secs(90), self.body.frame()).await.expect("an event in time");
            self.waiting.extend_from_slice(&frame?.unwrap().into_data().unwrap());
        }
    }

    /// `ADDED a`, `BOOKMARK`, ...
    async fn line(&mut self) -> String {
        let Some(event) = self.next().await else { return "end".to_owned() };
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("");
        format!("{} {name}", event["type"].as_str().unwrap()).trim_end().to_owned()
    }
}

async fn make(w: &World, name: &str, label: &str) -> String {
    let made =
        w.ok(&format!("POST {CM}"), &format!(r#"{{"metadata":{{"name":"{name}","labels":{{"l":"{label}"}}}}}}"#)).await;
    made["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

async fn label(w: &World, name: &str, label: &str) {
    w.merge(&format!("{CM}/{name}"), &format!(r#"{{"metadata":{{"labels":{{"l":"{label}"}}}}}}"#)).await;
}

#[tokio::test]
async fn begins_where_it_is_asked_to() {
    let w = World::new().await;
    let first = make(&w, "a", "x").await;
    make(&w, "b", "x").await;
    for (query, want) in [
        ("", vec!["ADDED a", "ADDED b", "ADDED c"]),
        ("&resourceVersion=0", vec!["ADDED a", "ADDED b", "ADDED c"]),
        ("&resourceVersion={RV}", vec!["ADDED b", "ADDED c"]),
        ("&sendInitialEvents=false&resourceVersionMatch=NotOlderThan", vec!["ADDED c"]),
        (
            "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion={RV}",
            vec!["ADDED a", "ADDED b", "BOOKMARK", "ADDED c"],
        ),
    ] {
        let mut lines = Lines::open(&w, &format!("{CM}?watch=1{}", query.replace("{RV}", &first))).await;
        let before: Vec<&str> = want[..want.len() - 1].to_vec();
        for want in before {
            assert_eq!(lines.line().await, want, "{query}");
        }
        make(&w, "c", "x").await;
        assert_eq!(lines.line().await, want[want.len() - 1], "{query}");
        w.ok(&format!("DELETE {CM}/c"), "").await;
        assert_eq!(lines.line().await, "DELETED c", "{query}");
    }
}

#[tokio::test]
async fn the_end_of_the_beginning_is_marked() {
    let w = World::new().await;
    let version = make(&w, "a", "x").await;
    let url = format!("{CM}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let mut lines = Lines::open(&w, &url).await;
    lines.next().await;
    let bookmark = lines.next().await.unwrap();
    assert_eq!(
        bookmark["object"],
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {
            "resourceVersion": version, "creationTimestamp": null, "annotations": {"k8s.io/initial-events-end": "true"},
        }})
    );
}

#[tokio::test]
async fn what_leaves_a_selector_is_deleted() {
    let w = World::new().await;
    make(&w, "a", "x").await;
    let mut lines = Lines::open(&w, &format!("{CM}?watch=1&labelSelector=l%3Dx")).await;
    let mut named = Lines::open(&w, &format!("{CM}?watch=1&fieldSelector=metadata.name%3Db")).await;
    assert_eq!(lines.line().await, "ADDED a");
    label(&w, "a", "y").await;
    let left = lines.next().await.unwrap();
    let now = w.get(&format!("{CM}/a")).await;
    assert_eq!((&left["type"], &left["object"]["metadata"]["labels"]["l"]), (&json!("DELETED"), &json!("x")));
    assert_eq!(left["object"]["metadata"]["resourceVersion"], now["metadata"]["resourceVersion"]);
    make(&w, "b", "y").await;
    label(&w, "a", "x").await;
    assert_eq!(lines.line().await, "ADDED a");
    w.merge(&format!("{CM}/a"), r#"{"data":{"k":"v"}}"#).await;
    assert_eq!(lines.line().await, "MODIFIED a");
    w.ok(&format!("DELETE {CM}/a"), "").await;
    assert_eq!(lines.line().await, "DELETED a");
    assert_eq!(named.line().await, "ADDED b");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_each_minute_and_before_the_end() {
    let w = World::new().await;
    make(&w, "a", "x").await;
    let mut lines = Lines::open(&w, &format!("{CM}?watch=1&allowWatchBookmarks=true&timeoutSeconds=130")).await;
    let began = tokio::time::Instant::now();
    let mut seen = Vec::new();
    loop {
        let line = lines.line().await;
        let over = line == "end";
        seen.push(format!("{line} at {}", began.elapsed().as_secs()));
        if over {
            break;
        }
    }
    assert_eq!(seen, ["ADDED a at 0", "BOOKMARK at 60", "BOOKMARK at 120", "BOOKMARK at 128", "end at 130"]);
}

#[tokio::test]
async fn too_old_a_version_is_an_event() {
    let w = World::new().await;
    make(&w, "a", "x").await;
    make(&w, "b", "x").await;
    w.store.compact(w.store.revision()).await.unwrap();
    let mut lines = Lines::open(&w, &format!("{CM}?watch=1&resourceVersion=1")).await;
    let event = lines.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"], &event["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(event["object"]["message"].as_str().unwrap().starts_with("too old resource version: 1 ("));
    assert_eq!(lines.line().await, "end");
}

#[tokio::test]
async fn a_table_tells_its_columns_once() {
    let w = World::new().await;
    make(&w, "a", "x").await;
    make(&w, "b", "x").await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let answer = w.send(&format!("GET {CM}?watch=1"), &accept, "").await;
    let mut lines = Lines { body: answer.into_body(), waiting: Vec::new() };
    let (first, second) = (lines.next().await.unwrap(), lines.next().await.unwrap());
    assert!(first["object"]["columnDefinitions"].is_array());
    assert_eq!(second["object"]["columnDefinitions"], Value::Null);
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
}

/// Writers change objects at random while watchers with and without a selector follow; what a watcher has put together
/// from its events is what a list says at the same version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_see_the_world_as_it_is() {
    let w = std::sync::Arc::new(World::new().await);
    let selectors = ["", "&labelSelector=l%3D0", "&labelSelector=l%21%3D0"];
    let mut watchers = Vec::new();
    for selector in selectors {
        watchers.push((selector, Lines::open(&w, &format!("{CM}?watch=1{selector}")).await));
    }
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let w = w.clone();
            tokio::spawn(async move {
                for step in 0..100 {
                    let name = format!("w{writer}-{}", step % 5);
                    let body = format!(r#"{{"metadata":{{"name":"{name}","labels":{{"l":"{}"}}}}}}"#, (step / 3) % 2);
                    if w.ask(&format!("POST {CM}"), &body).await.code == 409 {
                        if step % 7 == 0 {
                            w.ok(&format!("DELETE {CM}/{name}"), "").await;
                        } else {
                            w.ok(&format!("PUT {CM}/{name}"), &body).await;
                        }
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    make(&w, "last", "0").await;
    make(&w, "last2", "1").await;
    for (selector, mut lines) in watchers {
        let end = if selector.contains("%21") { "last2" } else { "last" };
        let mut world = std::collections::BTreeMap::new();
        loop {
            let event = lines.next().await.unwrap();
            let name = event["object"]["metadata"]["name"].as_str().unwrap().to_owned();
            match event["type"].as_str().unwrap() {
                "ADDED" => assert!(world.insert(name.clone(), event["object"].clone()).is_none(), "{name} twice"),
                "MODIFIED" => assert!(world.insert(name.clone(), event["object"].clone()).is_some(), "{name} unknown"),
                _ => assert!(world.remove(&name).is_some(), "{name} unknown"),
            }
            if name == end {
                break;
            }
        }
        let version = world[end]["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let list = w.get(&format!("{CM}?resourceVersion={version}&resourceVersionMatch=Exact{selector}")).await;
        let mut listed: Vec<Value> = list["items"].as_array().unwrap().clone();
        for object in &mut listed {
            object["kind"] = "ConfigMap".into();
            object["apiVersion"] = "v1".into();
        }
        assert_eq!(world.into_values().collect::<Vec<_>>(), listed, "{selector}");
    }
}
