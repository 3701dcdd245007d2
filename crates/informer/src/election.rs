//! Leader election by a Lease: of several processes at most one acts.
//!
//! The rules of `k8s.io/client-go/tools/leaderelection`: a lease is free when nobody renewed it for its duration as
//! measured by *our* clock since we saw it change, so clocks of different machines need not agree.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::PostParams;
use stead_client::{Class, Client, classify, message};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::Clock;

/// Which lease, who we are, and how long things may take. Upstream's defaults in [`Election::new`].
#[derive(Clone, Debug)]
pub struct Election {
    pub namespace: String,
    pub name: String,
    /// Unique per process, for example host name and a uuid.
    pub identity: String,
    /// Others take over after this long without a renewal.
    pub lease: Duration,
    /// The leader gives up when it could not renew for this long; shorter than `lease`.
    pub renew_within: Duration,
    /// Pause between two tries, and between two renewals.
    pub every: Duration,
}

impl Election {
    #[must_use]
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease: Duration::from_secs(15),
            renew_within: Duration::from_secs(10),
            every: Duration::from_secs(2),
        }
    }
}

/// Takes part in one election.
pub struct Elector {
    election: Election,
    api: Api<Lease>,
    clock: Clock,
    /// The last record seen of another holder, and since when it has not changed.
    seen: Option<(LeaseSpec, Instant)>,
}

impl std::fmt::Debug for Elector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elector").field("election", &self.election).finish_non_exhaustive()
    }
}

impl Elector {
    #[must_use]
    pub fn new(client: Client, election: Election, clock: Clock) -> Self {
        let api = Api::namespaced(client, &election.namespace);
        Self { election, api, clock, seen: None }
    }

    /// Waits to be elected, then runs `lead` with a token that is cancelled when leadership is lost or `shutdown` is.
    /// When leadership was lost it stands for election again. The lease is given back at the end.
    ///
    /// Others may begin `lease - renew_within` after that token is cancelled: `lead` has to return before.
    pub async fn run<F, Fut>(mut self, shutdown: CancellationToken, lead: F)
    where
        F: Fn(CancellationToken) -> Fut,
        Fut: Future<Output = ()>,
    {
        while let Some(held_at) = shutdown.run_until_cancelled(self.acquire()).await {
            tracing::info!(lease = self.election.name, identity = self.election.identity, "elected");
            let term = shutdown.child_token();
            let work = lead(term.clone());
            futures::pin_mut!(work);
            tokio::select! {
                biased;
                () = self.keep(held_at, &term) => {
                    // Lost, or shutting down: let the work end before anyone else may begin.
                    term.cancel();
                    work.await;
                }
                () = &mut work => {}
            }
            if shutdown.is_cancelled() {
                break;
            }
            tracing::warn!(lease = self.election.name, "no longer leader");
        }
        self.release().await;
    }

    /// When it asked for the lease and got it.
    async fn acquire(&mut self) -> Instant {
        loop {
            let asked = Instant::now();
            if let Ok(true) = timeout(self.election.renew_within, self.try_hold()).await {
                return asked;
            }
            sleep(self.election.every).await;
        }
    }

    /// Renews until that fails for too long or `term` ends. `held_at`: when the lease was asked for with success; time
    /// counts from there, since others count from when the server has it, which may be long before the answer is here.
    async fn keep(&mut self, held_at: Instant, term: &CancellationToken) {
        let mut give_up = held_at + self.election.renew_within;
        loop {
            let asked = Instant::now();
            let next = asked + self.election.every;
            if let Ok(true) = timeout_at(give_up, self.try_hold()).await {
                give_up = asked + self.election.renew_within;
            } else if Instant::now() >= give_up {
                return;
            }
            tokio::select! {
                biased;
                () = term.cancelled() => return,
                () = sleep_until(next) => {}
            }
        }
    }

    /// One try to take or renew the lease; whether it is ours now.
    async fn try_hold(&mut self) -> bool {
        match self.hold().await {
            Ok(held) => held,
            Err(error) => {
                if classify(&error) != Class::Conflict {
                    tracing::warn!(lease = self.election.name, error = message(&error), "cannot take the lease");
                }
                false
            }
        }
    }

    async fn hold(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.election.name).await? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(self.election.name.clone());
            lease.spec = Some(self.record(None));
            self.api.create(&PostParams::default(), &lease).await?;
            return Ok(true);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if !self.is_free(&spec) {
            return Ok(false);
        }
        let renewed = Lease { spec: Some(self.record(Some(&spec))), ..lease };
        self.api.replace(&self.election.name, &PostParams::default(), &renewed).await?;
        Ok(true)
    }

    /// Ours already, given back, or not renewed for its duration since we first saw this record.
    fn is_free(&mut self, spec: &LeaseSpec) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.election.identity {
            return true;
        }
        let unchanged = self.seen.as_ref().filter(|(seen, _)| seen == spec).map(|(_, since)| *since);
        let since = unchanged.unwrap_or_else(Instant::now);
        self.seen = Some((spec.clone(), since));
        let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        since.elapsed() >= Duration::from_secs(seconds)
    }

    fn record(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime((self.clock)());
        let ours = before.is_some_and(|b| b.holder_identity.as_deref() == Some(self.election.identity.as_str()));
        let transitions = before.map_or(0, |b| b.lease_transitions.unwrap_or(0) + i32::from(!ours));
        let acquired = before.filter(|_| ours).and_then(|b| b.acquire_time.clone());
        LeaseSpec {
            holder_identity: Some(self.election.identity.clone()),
            lease_duration_seconds: i32::try_from(self.election.lease.as_secs()).ok(),
            acquire_time: acquired.or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..before.cloned().unwrap_or_default()
        }
    }

    /// Gives the lease back so that the next one need not wait for it to run out; if that takes too long, it has.
    async fn release(&self) {
        let _ = timeout(self.election.renew_within, self.give_back()).await;
    }

    async fn give_back(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.election.name).await else { return };
        let Some(spec) = lease.spec.as_mut() else { return };
        if spec.holder_identity.as_deref() != Some(self.election.identity.as_str()) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        if let Err(error) = self.api.replace(&self.election.name, &PostParams::default(), &lease).await {
            tracing::warn!(lease = self.election.name, error = message(&error), "cannot give the lease back");
        }
    }
}
