//! Reads what a diagnosis looks at: one list per kind, all at once. What may not be read is noted, and the rest goes on.

use std::collections::BTreeMap;
use std::fmt::Debug;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use stead_diagnosis::{Listed, Snapshot, Unread, event_time};
use stead_workloads::statefulset::companion;

/// How many containers' logs are asked for.
const LOGS_MAX: usize = 4;
/// How many lines of each.
const LOG_LINES: i64 = 5;

/// A kind's objects, or why they could not be read.
async fn list<K>(api: Api<K>, unread: &mut Vec<Unread>) -> Result<Vec<K>, Option<kube::Error>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
            let group = K::group(&());
            let plural = K::plural(&());
            let resource = if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") };
            unread.push(Unread { resource, why: status.message.clone() });
            Err(None)
        }
        Err(other) => Err(Some(other)),
    }
}

/// The same by name.
async fn listed<K>(api: Api<K>) -> Result<(Listed<K>, Vec<Unread>), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut unread = Vec::new();
    match list(api, &mut unread).await {
        Ok(items) => {
            let named = items.into_iter().filter_map(|object| Some((object.meta().name.clone()?, object)));
            Ok((Listed(Some(named.collect())), unread))
        }
        Err(None) => Ok((Listed(None), unread)),
        Err(Some(error)) => Err(error),
    }
}

/// A namespace as it is now, and of the cluster what its pods and claims depend on.
///
/// # Errors
/// When the server cannot be reached; that it refuses something is no error.
pub(crate) async fn look(client: &Client, namespace: &str) -> Result<Snapshot, kube::Error> {
    let (sets, pods, claims, services, revisions, quotas, budgets, classes, volumes, nodes, events, heals) = futures::try_join!(
        listed(Api::namespaced(client.clone(), namespace)),
        listed(Api::namespaced(client.clone(), namespace)),
        listed(Api::namespaced(client.clone(), namespace)),
        listed(Api::namespaced(client.clone(), namespace)),
        listed(Api::namespaced(client.clone(), namespace)),
        listed(Api::namespaced(client.clone(), namespace)),
        listed(Api::namespaced(client.clone(), namespace)),
        listed(Api::all(client.clone())),
        listed(Api::all(client.clone())),
        listed(Api::all(client.clone())),
        listed::<Event>(Api::namespaced(client.clone(), namespace)),
        heals(client),
    )?;
    let mut unread = Vec::new();
    for one in [
        &sets.1,
        &pods.1,
        &claims.1,
        &services.1,
        &revisions.1,
        &quotas.1,
        &budgets.1,
        &classes.1,
        &volumes.1,
        &nodes.1,
        &events.1,
    ] {
        unread.extend_from_slice(one);
    }
    let mut events: Vec<Event> = events.0.0.into_iter().flatten().map(|(_, event)| event).collect();
    // Within one second the server's own order: versions only grow.
    let version = |event: &Event| event.metadata.resource_version.as_ref().and_then(|v| v.parse::<u64>().ok());
    events.sort_by_key(|event| (event_time(event).map(Timestamp::as_second), version(event)));
    let mut snapshot = Snapshot {
        namespace: namespace.to_owned(),
        now: Timestamp::now(),
        heals,
        companion: None,
        sets: sets.0,
        pods: pods.0,
        claims: claims.0,
        services: services.0,
        autoscalers: Listed::default(),
        revisions: revisions.0,
        quotas: quotas.0,
        budgets: budgets.0,
        classes: classes.0,
        volumes: volumes.0,
        nodes: nodes.0,
        placed: None,
        events,
        logs: BTreeMap::new(),
        unread,
    };
    if snapshot.sets.values().any(companion::is_managed) {
        snapshot.companion = accompanied(client, snapshot.now).await?;
    }
    snapshot.placed = placed(client, &mut snapshot).await?;
    snapshot.logs = logs(client, &snapshot).await;
    Ok(snapshot)
}

/// Whether the cluster replaces broken pods of a roll-out by itself.
async fn heals(client: &Client) -> Result<bool, kube::Error> {
    match client.apiserver_version().await {
        Ok(version) => Ok(version.git_version.contains("+stead")),
        Err(kube::Error::Api(_)) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Whether a companion holds its lease; `None` when that may not be seen.
async fn accompanied(client: &Client, now: Timestamp) -> Result<Option<bool>, kube::Error> {
    /// Clocks of different machines differ.
    const SKEW_MAX: SignedDuration = SignedDuration::from_secs(60);
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    match leases.get_opt("stead-controller").await {
        Ok(None) => Ok(Some(false)),
        Ok(Some(Lease { spec, .. })) => Ok(Some(spec.is_some_and(|spec| {
            let lasts = SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or(0).into());
            let renewed = spec.renew_time.map_or(Timestamp::MIN, |time| time.0);
            let held = spec.holder_identity.is_some_and(|holder| !holder.is_empty());
            held && now.duration_since(renewed) <= lasts + SKEW_MAX
        }))),
        Err(kube::Error::Api(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

/// The pods that have a node, everywhere, when some pod here finds no node with enough left.
async fn placed(client: &Client, snapshot: &mut Snapshot) -> Result<Option<Vec<Pod>>, kube::Error> {
    let lacks = |pod: &Pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions
            .into_iter()
            .any(|c| c.type_ == "PodScheduled" && c.message.as_deref().is_some_and(|m| m.contains("Insufficient")))
    };
    if !snapshot.pods.values().any(lacks) {
        return Ok(None);
    }
    let mut unread = Vec::new();
    let all = list(Api::<Pod>::all(client.clone()), &mut unread).await;
    snapshot
        .unread
        .extend(unread.into_iter().map(|one| Unread { resource: "pods of all namespaces".to_owned(), ..one }));
    match all {
        Ok(pods) => Ok(Some(
            pods.into_iter().filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())).collect(),
        )),
        Err(None) => Ok(None),
        Err(Some(error)) => Err(error),
    }
}

/// The last words of containers that crash. What cannot be read is left out: the log is only one of the evidences.
async fn logs(client: &Client, snapshot: &Snapshot) -> BTreeMap<(String, String), Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &snapshot.namespace);
    let crashed = |container: &&ContainerStatus| !container.ready && container.restart_count > 0 || ended(container);
    let mut wanted = Vec::new();
    for pod in snapshot.pods.values() {
        let status = pod.status.clone().unwrap_or_default();
        let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        for container in containers.filter(crashed).take(LOGS_MAX) {
            wanted.push((pod.metadata.name.clone().unwrap_or_default(), container.name.clone()));
        }
    }
    let read = |(pod, container): (String, String)| {
        let pods = pods.clone();
        async move {
            let of = |previous| LogParams {
                container: Some(container.clone()),
                previous,
                tail_lines: Some(LOG_LINES),
                ..LogParams::default()
            };
            let text = match pods.logs(&pod, &of(true)).await {
                Ok(text) => text,
                Err(_) => pods.logs(&pod, &of(false)).await.ok()?,
            };
            Some(((pod, container), text.lines().map(str::to_owned).collect()))
        }
    };
    let all = futures::future::join_all(wanted.into_iter().take(LOGS_MAX).map(read)).await;
    all.into_iter().flatten().collect()
}

fn ended(container: &ContainerStatus) -> bool {
    container.state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|end| end.exit_code != 0)
}
