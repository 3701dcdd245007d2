//! Runs Jobs to completion. The decision is [`stead_workloads::job`].

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use serde_json::json;
use stead_client::{Class, Client, classify, message};
use stead_informer::{Cache, Key, Next, Queue, Severity, index};
use stead_workloads::job::{Observed, Plan, TRACKING_FINALIZER, is_tracked, job_ref, new_pod, plan};
use stead_workloads::owner::{controller_of, selects};

use crate::family::{self, Head, gather, still_alive};
use crate::{Context, Controller, Error, OwnWrites, slow_start, sources};

/// The Job controller.
#[derive(Clone, Debug)]
pub struct Jobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cx: Context,
    jobs: Cache<Job>,
    pods: Cache<Pod>,
    writes: OwnWrites,
}

impl Controller for Jobs {
    const NAME: &'static str = "job-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (jobs, pods) = (cx.caches.of::<Job>(), cx.caches.of::<Pod>());
        family::prepare(&pods);
        sources::wake_self(&jobs, queue);
        sources::wake_controller(&pods, "Job", queue);
        let may_adopt = jobs.clone();
        sources::wake(&pods, queue, move |change| {
            let orphan = change.new.as_ref().filter(|pod| controller_of(&pod.metadata).is_none());
            let Some(labels) = orphan.and_then(|pod| pod.metadata.labels.as_ref()) else { return Vec::new() };
            let jobs = may_adopt.list_ns(&change.key.namespace);
            jobs.iter().filter(|job| is_selected(job, labels)).map(|job| Key::of(&job.metadata)).collect()
        });
        let of_pods = jobs.clone();
        sources::wake(&pods, queue, move |change| {
            let left = change.new.as_ref().filter(|pod| is_tracked(pod) && !is_accounted_for(&of_pods, pod));
            left.map(|pod| left_key(pod)).into_iter().collect()
        });
        let of_job = pods.clone();
        sources::wake(&jobs, queue, move |change| {
            let gone = change.old.as_ref().filter(|_| change.new.is_none());
            let uid = gone.and_then(|job| job.metadata.uid.as_deref());
            let left = uid.map(|uid| of_job.by_index(index::CONTROLLER_UID, uid)).unwrap_or_default();
            left.iter().filter(|pod| is_tracked(pod)).map(|pod| left_key(pod)).collect()
        });
        Self { inner: Arc::new(Inner { cx, jobs, pods, writes: OwnWrites::default() }) }
    }

    async fn synced(&self) {
        tokio::join!(self.inner.jobs.synced(), self.inner.pods.synced());
    }

    fn writes(&self) -> Option<&OwnWrites> {
        Some(&self.inner.writes)
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let inner = &*self.inner;
        if let Some(pod) = key.name.strip_prefix(LEFT) {
            return inner.release_left(&Key::new(&key.namespace, pod)).await;
        }
        let Some(job) = inner.jobs.by_key(key) else { return Ok(Next::Done) };
        let reference = job_ref(&job);
        let head = Head { key, meta: &job.metadata, reference: &reference };
        let alive = || still_alive::<Job>(&inner.cx.client, key, &job.metadata);
        let none = BTreeMap::new();
        let fits = |pod: &Pod| is_selected(&job, pod.metadata.labels.as_ref().unwrap_or(&none));
        let family = gather((&inner.cx.client, &inner.pods, &inner.writes), head, fits, alive).await?;
        if family.changed {
            return Ok(Next::Done);
        }
        let now = inner.cx.now();
        let plan = plan(&Observed { job: &job, pods: &family.members, now });
        let wake = plan.wake_at.map(|at| at.duration_since(now)).and_then(|wait| wait.try_into().ok());
        Work { inner: self.inner.clone(), key: key.clone(), job }.execute(plan).await?;
        Ok(wake.map_or(Next::Done, Next::After))
    }
}

/// Begins the key of a pod that waits to be counted by a Job that is gone. No name of a Job has a stroke.
const LEFT: &str = "pods/";

fn left_key(pod: &Pod) -> Key {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    Key::new(pod.metadata.namespace.as_deref().unwrap_or_default(), &format!("{LEFT}{name}"))
}

/// Whether there is a Job that counts the pod: its controller, or one that may adopt it.
fn is_accounted_for(jobs: &Cache<Job>, pod: &Pod) -> bool {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(owner) = controller_of(&pod.metadata) {
        let job = jobs.get(namespace, &owner.name);
        return owner.kind != "Job" || job.is_some_and(|job| job.metadata.uid.as_deref() == Some(&owner.uid));
    }
    let none = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    jobs.list_ns(namespace).iter().any(|job| is_selected(job, labels))
}

impl Inner {
    /// Nobody counts the pod any more, so nothing has to wait for that: a deleted pod of a deleted Job would stay for ever.
    async fn release_left(&self, key: &Key) -> Result<Next, Error> {
        let Some(pod) = self.pods.by_key(key).filter(|pod| is_tracked(pod)) else { return Ok(Next::Done) };
        if is_accounted_for(&self.jobs, &pod) {
            return Ok(Next::Done);
        }
        release(&self.cx.client, &key.namespace, &pod).await?;
        Ok(Next::Done)
    }
}

/// Removes the finalizer by which the pod waits to be counted. `None`: the pod is gone.
async fn release(client: &Client, namespace: &str, pod: &Pod) -> Result<Option<Pod>, Error> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let patch = json!({"metadata": {
        "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING_FINALIZER],
    }});
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    match pods.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(written) => Ok(Some(written)),
        Err(error) if classify(&error) == Class::NotFound => Ok(None),
        Err(error) => Err(Error::doing(format!("release pod {namespace}/{name}, which its Job has counted"))(error)),
    }
}

fn is_selected(job: &Job, labels: &BTreeMap<String, String>) -> bool {
    job.spec.as_ref().and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| selects(selector, labels))
}

/// Everything the steps of one plan need.
#[derive(Clone)]
struct Work {
    inner: Arc<Inner>,
    key: Key,
    job: Arc<Job>,
}

impl Work {
    /// Pods first, then the status, and only what it accounts for loses its finalizer.
    async fn execute(self, plan: Plan) -> Result<(), Error> {
        let create = |index| {
            let work = self.clone();
            async move { work.create(index).await }
        };
        let (made, created) = slow_start(&plan.create, create).await;
        let delete = |pod: Arc<Pod>| {
            let work = self.clone();
            async move { work.delete(&pod).await }
        };
        let (gone, deleted) = slow_start(&plan.delete, delete).await;
        let short = plan.create.len() - made.len();
        let more = plan.delete.len() - gone.len();
        self.publish(plan.status, short, more).await?;
        for happening in &plan.happenings {
            let severity = if happening.warning { Severity::Warning } else { Severity::Normal };
            self.event(severity, &happening.reason, happening.message.clone());
        }
        let count = |pod: Arc<Pod>| {
            let work = self.clone();
            async move { work.release(&pod).await }
        };
        slow_start(&plan.count, count).await.1?;
        created?;
        deleted?;
        if plan.expired { self.expire().await } else { Ok(()) }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.inner.cx.client.clone(), &self.key.namespace)
    }

    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.inner.cx.client.clone(), &self.key.namespace)
    }

    async fn create(&self, index: Option<(u32, u32)>) -> Result<(), Error> {
        match self.pods().create(&PostParams::default(), &new_pod(&self.job, index)).await {
            Ok(made) => {
                self.inner.writes.wrote(&self.key, &self.inner.pods, &made);
                let name = made.metadata.name.as_deref().unwrap_or_default();
                self.event(Severity::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(error) => {
                if classify(&error) != Class::NamespaceTerminating {
                    self.event(Severity::Warning, "FailedCreate", format!("Error creating: {}", message(&error)));
                }
                Err(Error::doing(format!("create a pod of Job {}", self.key))(error))
            }
        }
    }

    /// A pod that the Job itself ends does not count: its finalizer goes first.
    async fn delete(&self, pod: &Pod) -> Result<(), Error> {
        self.release(pod).await?;
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match self.inner.writes.delete(&self.key, &self.inner.pods, &self.pods(), pod, None).await {
            Ok(()) => {
                self.event(Severity::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) if matches!(classify(&error), Class::NotFound | Class::Conflict) => Ok(()),
            Err(error) => {
                self.event(Severity::Warning, "FailedDelete", format!("Error deleting: {}", message(&error)));
                Err(Error::doing(format!("delete pod {name:?} of Job {}", self.key))(error))
            }
        }
    }

    async fn release(&self, pod: &Pod) -> Result<(), Error> {
        if let Some(written) = release(&self.inner.cx.client, &self.key.namespace, pod).await? {
            self.inner.writes.wrote(&self.key, &self.inner.pods, &written);
        }
        Ok(())
    }

    /// `short`: pods that could not be created; `more`: pods that could not be deleted.
    async fn publish(&self, mut status: JobStatus, short: usize, more: usize) -> Result<(), Error> {
        let active = i64::from(status.active.unwrap_or(0));
        let active = active + i64::try_from(more).unwrap_or(0) - i64::try_from(short).unwrap_or(0);
        status.active = i32::try_from(active).ok().filter(|active| *active > 0);
        if self.job.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let job = Job { status: Some(status), ..(*self.job).clone() };
        let written = self.jobs().replace_status(&self.key.name, &PostParams::default(), &job).await;
        let written = written.map_err(Error::doing(format!("write the status of Job {}", self.key)))?;
        self.inner.writes.wrote(&self.key, &self.inner.jobs, &written);
        Ok(())
    }

    /// Deletes the Job and its pods.
    async fn expire(&self) -> Result<(), Error> {
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions { uid: self.job.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.jobs().delete(&self.key.name, &params).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(classify(&error), Class::NotFound | Class::Conflict) => Ok(()),
            Err(error) => Err(Error::doing(format!("delete Job {}, whose time is over", self.key))(error)),
        }
    }

    fn event(&self, severity: Severity, reason: &str, text: String) {
        self.inner.cx.recorder.event(&*self.job, severity, reason, text);
    }
}
