//! Events and leader election against the real API server.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use kube::Api;
use parking_lot::Mutex;
use stead_apiserver::{ApiServer, Config, Identity, NoNodes};
use stead_client::{Client, in_process};
use stead_informer::{Cache, Caches, Election, Elector, Recorder, Severity, system_clock};
use tokio_util::sync::CancellationToken;

async fn server() -> (Client, tempfile::TempDir) {
    let pki = tempfile::tempdir().expect("a directory");
    let config = Config {
        bind: "127.0.0.1:0".parse().expect("an address"),
        advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
        pki_dir: pki.path().to_owned(),
        tls_sans: vec![],
        service_cidr: "10.43.0.0/16".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        cluster_dns: IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10)),
    };
    let server = ApiServer::open(config, stead_store::memory(), Arc::new(NoNodes)).await.expect("opens");
    (in_process(server.in_process(Identity::admin()), "default"), pki)
}

#[tokio::test]
async fn events_are_written_and_counted() {
    let (client, _pki) = server().await;
    let events: Cache<Event> = Caches::new(client.clone()).of();
    let recorder = Recorder::new(client, "test-controller", "", system_clock());
    let about = |name: &str| ObjectReference {
        kind: Some("Pod".into()),
        namespace: Some("default".into()),
        name: Some(name.into()),
        uid: Some(name.into()),
        ..ObjectReference::default()
    };
    for _ in 0..3 {
        recorder.event_ref(about("a"), Severity::Warning, "Failed", "it failed");
    }
    recorder.event_ref(about("b"), Severity::Normal, "Started", "it started");
    events
        .until(|events| {
            let of = |name: &str| events.list().into_iter().find(|e| e.involved_object.name.as_deref() == Some(name));
            of("b").is_some() && of("a").is_some_and(|event| event.count == Some(3))
        })
        .await;
    assert_eq!(events.len(), 2);
    let failed = events.list().into_iter().find(|event| event.count == Some(3)).expect("just seen");
    assert_eq!(failed.source.as_ref().and_then(|source| source.component.as_deref()), Some("test-controller"));
    assert!(failed.first_timestamp.is_some() && failed.last_timestamp.is_some());
}

#[tokio::test]
async fn of_two_candidates_one_leads_and_the_other_takes_over() {
    let (client, _pki) = server().await;
    let leader = Arc::new(Mutex::new(Vec::new()));
    let stand = |identity: &'static str| {
        let election = Election {
            lease: Duration::from_secs(2),
            renew_within: Duration::from_secs(1),
            every: Duration::from_millis(20),
            ..Election::new("default", "test", identity)
        };
        let (stop, leader) = (CancellationToken::new(), leader.clone());
        let elector = Elector::new(client.clone(), election, system_clock());
        let running = tokio::spawn({
            let stop = stop.clone();
            async move {
                elector
                    .run(stop, |term| {
                        let leader = leader.clone();
                        async move {
                            leader.lock().push(format!("+{identity}"));
                            term.cancelled().await;
                            leader.lock().push(format!("-{identity}"));
                        }
                    })
                    .await;
            }
        });
        (stop, running)
    };
    let leases: Cache<Lease> = Caches::new(client.clone()).of();
    let held_by = |who: &'static str| {
        let leases = leases.clone();
        async move {
            let holds = |leases: &Cache<Lease>| {
                let spec = leases.get("default", "test").and_then(|lease| lease.spec.clone());
                spec.is_some_and(|spec| spec.holder_identity.as_deref() == Some(who))
            };
            tokio::time::timeout(Duration::from_secs(10), leases.until(holds)).await.expect("elected in time");
        }
    };
    let (stop_a, a) = stand("a");
    held_by("a").await;
    let (stop_b, b) = stand("b");
    // The one that leads goes and gives the lease back: no need to wait until it runs out.
    stop_a.cancel();
    a.await.expect("no panic");
    held_by("b").await;
    stop_b.cancel();
    b.await.expect("no panic");
    assert_eq!(*leader.lock(), ["+a", "-a", "+b", "-b"]);
    let lease = Api::<Lease>::namespaced(client, "default").get("test").await.expect("exists");
    let spec = lease.spec.expect("a spec");
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some(""), Some(1)));
}
