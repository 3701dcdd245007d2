//! A deletion whose answer was lost may have been done or not: nothing more is decided before the caches know.

mod common;

use std::pin::pin;

use common::{Cluster, NS};
use futures::FutureExt;
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use stead_apiserver::Identity;
use stead_client::{Class, Client, in_process, is};
use stead_controllers::OwnWrites;
use stead_informer::Key;
use tower::ServiceExt;

/// A client of whose deletions no answer arrives, whether they are done or not.
fn without_answers(cluster: &Cluster, done: bool) -> Client {
    let server = cluster.server.in_process(Identity::admin());
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (server, lost) = (server.clone(), *request.method() == Method::DELETE);
        async move {
            if lost && !done {
                return Err(tower::BoxError::from("the connection was reset"));
            }
            let answer = server.oneshot(request).await.map_err(tower::BoxError::from)?;
            if lost { Err("the connection was reset".into()) } else { Ok(answer) }
        }
    });
    in_process(service, NS)
}

async fn is_there_after_a_lost_answer(done: bool) -> bool {
    let cluster = Cluster::start().await;
    cluster.hold_nodes();
    let pods: Api<Pod> = Api::namespaced(without_answers(&cluster, done), NS);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    let pod = pods.create(&PostParams::default(), &pod).await.expect("created");
    let there = |cache: &stead_informer::Cache<Pod>| cache.get(NS, "p").is_some();
    cluster.pods.until(there).await;

    let (writes, key) = (OwnWrites::default(), Key::of(&pod.metadata));
    let result = writes.delete(&key, &cluster.pods, &pods, &pod, None).await;
    assert!(is(&result, Class::Retryable), "{result:?}");
    let mut seen = pin!(writes.seen(&key));
    assert!(seen.as_mut().now_or_never().is_none(), "nobody was asked what became of it");
    seen.await;
    there(&cluster.pods)
}

#[tokio::test]
async fn a_deletion_that_was_done_although_its_answer_was_lost_is_known_before_the_next_look() {
    assert!(!is_there_after_a_lost_answer(true).await);
}

#[tokio::test]
async fn a_deletion_that_was_not_done_is_not_waited_for() {
    assert!(is_there_after_a_lost_answer(false).await);
}
