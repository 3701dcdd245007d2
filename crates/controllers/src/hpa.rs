//! Scales what a HorizontalPodAutoscaler points at. The decision is [`stead_workloads::hpa`].
//!
//! Figures change without an event, so each autoscaler is looked at every sync period, as upstream does it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v1::Scale as ScaleObject;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use parking_lot::Mutex;
use stead_api::{KINDS, Kind};
use stead_client::message;
use stead_informer::{Cache, Key, Next, Queue, Severity};
use stead_machinery::selector::Selector;
use stead_workloads::hpa::{Figures, History, Observed, Plan, Rescale, Scale, plan, read_figures};

use crate::{Context, Controller, Error, OwnWrites};

/// The controller of autoscalers.
#[derive(Debug)]
pub struct Autoscalers {
    cx: Context,
    autoscalers: Cache<HorizontalPodAutoscaler>,
    pods: Cache<Pod>,
    /// By autoscaler. It is lost with the process, as upstream's is: then the stabilization windows begin anew.
    memory: Mutex<HashMap<Key, Memory>>,
    writes: OwnWrites,
}

/// What is remembered of an autoscaler.
#[derive(Debug, Default)]
struct Memory {
    history: History,
    /// Of its target, when it was last looked at.
    selector: Option<Selector>,
}

/// The target of an autoscaler: where its scale is, and what it says.
struct Target {
    api: Api<DynamicObject>,
    object: ScaleObject,
    scale: Scale,
}

impl Controller for Autoscalers {
    /// Upstream calls the controller `horizontal-pod-autoscaler-controller`, and itself in events and accounts so:
    const NAME: &'static str = "horizontal-pod-autoscaler";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (autoscalers, pods) = (cx.caches.of::<HorizontalPodAutoscaler>(), cx.caches.of::<Pod>());
        let (queue, period) = (queue.clone(), cx.config.autoscaler_sync);
        autoscalers.on_change(move |change| match (&change.old, &change.new) {
            (Some(old), Some(new)) if old.spec == new.spec => {}
            (_, None) => queue.add(change.key.clone()),
            // Not at once: what is applied with it should be there, and figures take a while.
            _ => queue.add_after(change.key.clone(), period),
        });
        Self { cx, autoscalers, pods, memory: Mutex::default(), writes: OwnWrites::default() }
    }

    async fn synced(&self) {
        tokio::join!(self.autoscalers.synced(), self.pods.synced());
    }

    fn writes(&self) -> Option<&OwnWrites> {
        Some(&self.writes)
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(autoscaler) = self.autoscalers.by_key(key) else {
            self.memory.lock().remove(key);
            return Ok(Next::Done);
        };
        let target = self.target(key, &autoscaler).await;
        let selector = target.as_ref().ok().and_then(|target| Selector::parse(&target.scale.selector).ok());
        self.memory.lock().entry(key.clone()).or_default().selector.clone_from(&selector);
        let pods = selector.as_ref().map(|selector| self.pods_of(&key.namespace, selector)).unwrap_or_default();
        let claimants = self.claimants(key, &pods);
        let figures = match &target {
            Ok(target) if asks_for_resources(&autoscaler) => self.figures(key, &target.scale).await,
            _ => Ok(Vec::new()),
        };
        let history = self.memory.lock().get(key).map(|memory| memory.history.clone()).unwrap_or_default();
        let observed = Observed {
            autoscaler: &autoscaler,
            scale: target.as_ref().map(|target| &target.scale).map_err(String::as_str),
            pods: &pods,
            figures: figures.as_deref().map_err(String::as_str),
            claimants: &claimants,
            history: &history,
            settings: &self.cx.config.autoscaling,
            now: self.cx.now(),
        };
        let plan = plan(&observed);
        self.execute(key, &autoscaler, target.ok(), plan).await?;
        Ok(Next::After(self.cx.config.autoscaler_sync))
    }
}

impl Autoscalers {
    async fn execute(
        &self,
        key: &Key,
        autoscaler: &HorizontalPodAutoscaler,
        target: Option<Target>,
        mut plan: Plan,
    ) -> Result<(), Error> {
        if let (Some(rescale), Some(target)) = (plan.rescale.clone(), target) {
            match put(&key.namespace, autoscaler, target, &rescale).await {
                Ok(()) => plan.rescaled(autoscaler, self.cx.now()),
                Err(error) => plan.failed(autoscaler, &message(&error), self.cx.now()),
            }
        }
        for happening in &plan.happenings {
            let severity = if happening.warning { Severity::Warning } else { Severity::Normal };
            self.cx.recorder.event(autoscaler, severity, happening.reason, happening.message.clone());
        }
        if let Some(error) = &plan.error {
            tracing::debug!(%key, error, "not scaled");
        }
        self.memory.lock().entry(key.clone()).or_default().history = plan.history;
        if autoscaler.status.clone().unwrap_or_default() == plan.status {
            return Ok(());
        }
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        let changed = HorizontalPodAutoscaler { status: Some(plan.status), ..autoscaler.clone() };
        let written = api.replace_status(&key.name, &PostParams::default(), &changed).await;
        let written = written.map_err(Error::doing(format!("write the status of HorizontalPodAutoscaler {key}")))?;
        self.writes.wrote(key, &self.autoscalers, &written);
        Ok(())
    }

    /// The scale of what the autoscaler points at; or why it cannot be read, in upstream's words.
    async fn target(&self, key: &Key, autoscaler: &HorizontalPodAutoscaler) -> Result<Target, String> {
        let reference = &autoscaler.spec.scale_target_ref;
        let version = reference.api_version.as_deref().unwrap_or_default();
        if version.matches('/').count() > 1 {
            return Err(format!("unexpected GroupVersion string: {version}"));
        }
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let fits = |kind: &&Kind| kind.group == group && kind.kind == reference.kind && kind.stored();
        let Some(kind) = KINDS.iter().find(fits) else {
            return Err(format!("no matches for kind {:?} in group {group:?}", reference.kind));
        };
        let resource = ApiResource {
            group: kind.group.to_owned(),
            version: kind.version.to_owned(),
            api_version: kind.api_version(),
            kind: kind.kind.to_owned(),
            plural: kind.plural.to_owned(),
        };
        let api: Api<DynamicObject> = if kind.namespaced() {
            Api::namespaced_with(self.cx.client.clone(), &key.namespace, &resource)
        } else {
            Api::all_with(self.cx.client.clone(), &resource)
        };
        let object = api.get_scale(&reference.name).await.map_err(|error| message(&error))?;
        let status = object.status.clone().unwrap_or_default();
        let scale = Scale {
            spec_replicas: object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0),
            status_replicas: status.replicas,
            selector: status.selector.unwrap_or_default(),
        };
        Ok(Target { api, object, scale })
    }

    /// What the pods of the target use.
    async fn figures(&self, key: &Key, scale: &Scale) -> Result<Vec<Figures>, String> {
        let resource = ApiResource {
            group: "metrics.k8s.io".to_owned(),
            version: "v1beta1".to_owned(),
            api_version: "metrics.k8s.io/v1beta1".to_owned(),
            kind: "PodMetrics".to_owned(),
            plural: "pods".to_owned(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.cx.client.clone(), &key.namespace, &resource);
        let list = api.list(&ListParams::default().labels(&scale.selector)).await.map_err(|error| message(&error))?;
        let items: Vec<_> = list.items.iter().filter_map(|item| serde_json::to_value(item).ok()).collect();
        Ok(read_figures(&items))
    }

    fn pods_of(&self, namespace: &str, selector: &Selector) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.list_ns(namespace);
        pods.retain(|pod| selects(selector, pod));
        pods
    }

    /// The autoscalers whose targets have one of these pods, by name.
    fn claimants(&self, key: &Key, pods: &[Arc<Pod>]) -> Vec<String> {
        let memory = self.memory.lock();
        let of_namespace = memory.iter().filter(|(other, _)| other.namespace == key.namespace);
        let claims = |selector: &Selector| pods.iter().any(|pod| selects(selector, pod));
        let mut names: Vec<String> = of_namespace
            .filter(|(_, memory)| memory.selector.as_ref().is_some_and(claims))
            .map(|(other, _)| other.name.to_string())
            .collect();
        names.sort_unstable();
        names
    }
}

fn selects(selector: &Selector, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.matches(|key| labels.and_then(|labels| labels.get(key)).map(String::as_str))
}

/// Whether any of its metrics comes from the Metrics API.
fn asks_for_resources(autoscaler: &HorizontalPodAutoscaler) -> bool {
    let of_resource = |metric: &MetricSpec| metric.resource.is_some() || metric.container_resource.is_some();
    autoscaler.spec.metrics.iter().flatten().any(of_resource)
}

/// Writes the number of replicas. The scale's resource version keeps a change of somebody else from being lost.
async fn put(
    namespace: &str,
    autoscaler: &HorizontalPodAutoscaler,
    target: Target,
    rescale: &Rescale,
) -> Result<(), kube::Error> {
    let Target { api, mut object, .. } = target;
    object.spec.get_or_insert_default().replicas = Some(rescale.to);
    let reference = &autoscaler.spec.scale_target_ref;
    let written = api.replace_scale(&reference.name, &PostParams::default(), &object).await;
    tracing::info!(
        namespace,
        target = format!("{}/{}", reference.kind, reference.name),
        from = rescale.from,
        to = rescale.to,
        why = rescale.why,
        done = written.is_ok(),
        "rescaled"
    );
    written.map(|_| ())
}

/// The period as a length of time that can be waited for.
pub(crate) fn sync_period() -> Duration {
    stead_workloads::hpa::SYNC_PERIOD.unsigned_abs()
}
