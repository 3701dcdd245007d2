//! The pods of a Job.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::Indexes;
use crate::owner::controller_ref;
use crate::pod::condition;
use crate::replicaset;

/// On a pod whose result is not counted yet.
pub const TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label of a pod of an indexed Job.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often pods of this index failed before.
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// The reference that pods have to their Job.
#[must_use]
pub fn job_ref(job: &Job) -> OwnerReference {
    controller_ref("batch/v1", "Job", &job.metadata)
}

/// A pod of the Job; of an indexed one for that index, with the number of earlier failures. The server completes its name.
#[must_use]
pub fn new_pod(job: &Job, index: Option<(u32, u32)>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = replicaset::new_pod(&job.metadata, &job_ref(job), &template);
    pod.metadata.finalizers.get_or_insert_default().push(TRACKING_FINALIZER.to_owned());
    let Some((index, failures)) = index else { return pod };
    let name = job.metadata.name.as_deref().unwrap_or_default();
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    pod.metadata.labels.get_or_insert_default().insert(COMPLETION_INDEX.to_owned(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(COMPLETION_INDEX.to_owned(), index.to_string());
    if job.spec.as_ref().is_some_and(|spec| spec.backoff_limit_per_index.is_some()) {
        annotations.insert(INDEX_FAILURES.to_owned(), failures.to_string());
    }
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    spec.init_containers.iter_mut().flatten().chain(&mut spec.containers).for_each(tell_index);
    pod
}

/// Gives a container its index in the environment, unless the template does.
fn tell_index(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let path = format!("metadata.labels['{COMPLETION_INDEX}']");
    env.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: None, field_path: path }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
}

/// The completion index of a pod, if it has one below `limit`.
pub(super) fn index_of(pod: &Pod, limit: u32) -> Option<u32> {
    let index = pod.metadata.annotations.as_ref()?.get(COMPLETION_INDEX)?.parse().ok()?;
    Some(index).filter(|index| *index < limit)
}

/// How often pods of the same index failed before this one.
pub(super) fn failures_before(pod: &Pod) -> u32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(INDEX_FAILURES)).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Whether the pod waits to be counted.
#[must_use]
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING_FINALIZER)
}

/// When the last container ended; failing that, when the pod stopped being ready or was created.
pub(super) fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ends = statuses.filter_map(|status| Some(status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0));
    let stopped = || condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0);
    let made = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    ends.max().or_else(stopped).or_else(made)
}

/// The indexes that text names, for a Job of that many completions.
pub(super) fn indexes(text: Option<&String>, completions: u32) -> Indexes {
    Indexes::parse(text.map_or("", String::as_str), completions)
}
