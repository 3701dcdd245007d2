//! Which controllers there are. Adding one is a line here.

use std::fmt;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::attachments::Attachments;
use crate::claims::{Claims, LocalStorage};
use crate::cronjob::CronJobs;
use crate::daemonset::DaemonSets;
use crate::deployment::Deployments;
use crate::disruption::{Budgets, Marks};
use crate::endpoints::{EndpointsObjects, MirroredSlices, Slices};
use crate::frame::run_one;
use crate::gc::Garbage;
use crate::hpa::Autoscalers;
use crate::job::Jobs;
use crate::namespace::Namespaces;
use crate::nodeipam::NodeRanges;
use crate::nodelife::NodeLife;
use crate::podgc::PodGarbage;
use crate::quota::Quotas;
use crate::replicaset::{ReplicaSets, ReplicationControllers};
use crate::rootca::RootCertificates;
use crate::serviceaccount::ServiceAccounts;
use crate::statefulset::StatefulSets;
use crate::taints::TaintEviction;
use crate::{Context, Controller};

/// One controller that can be run.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Upstream's name.
    pub name: &'static str,
    /// Its service account, see [`Controller::ACCOUNT`].
    pub account: &'static str,
    pub(crate) run: fn(Context, CancellationToken) -> BoxFuture<'static, ()>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Every controller, in no particular order: they meet only in the API.
#[must_use]
pub fn all() -> Vec<Entry> {
    vec![
        entry::<StatefulSets>(),
        entry::<DaemonSets>(),
        entry::<Deployments>(),
        entry::<ReplicaSets>(),
        entry::<ReplicationControllers>(),
        entry::<Jobs>(),
        entry::<CronJobs>(),
        entry::<EndpointsObjects>(),
        entry::<Slices>(),
        entry::<MirroredSlices>(),
        entry::<Claims>(),
        entry::<LocalStorage>(),
        entry::<Attachments>(),
        entry::<ServiceAccounts>(),
        entry::<RootCertificates>(),
        entry::<Garbage>(),
        entry::<Namespaces>(),
        entry::<PodGarbage>(),
        entry::<Quotas>(),
        entry::<NodeRanges>(),
        entry::<NodeLife>(),
        entry::<TaintEviction>(),
        entry::<Budgets>(),
        entry::<Marks>(),
        entry::<Autoscalers>(),
    ]
}

/// The entry of one controller.
#[must_use]
pub fn entry<C: Controller>() -> Entry {
    Entry { name: C::NAME, account: C::ACCOUNT, run: |cx, shutdown| run_one::<C>(cx, shutdown).boxed() }
}
