//! The role `controller`: only what stead adds to StatefulSets, in a cluster that is another one's.
//!
//! Of several processes the one that holds the lease acts. One that cannot renew it stops, at the latest half-way to the
//! moment at which others may begin; what it has begun until then is finished, and the rest dropped.

mod metrics;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stead_client::{Client, Place, message};
use stead_controllers::statefulset::Companion;
use stead_controllers::{Config, registry, run_only};
use stead_informer::{Caches, Election, Elector};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::metrics::Metrics;
use crate::arguments::ControllerFlags;
use crate::server::block_on;
use crate::{machine, shutdown, telemetry};

/// The lease that the leader holds.
const LEASE: &str = "stead-controller";
/// The line that says on standard output that it stands for election. Tests and scripts wait for it.
const READY: &str = "stead controller is ready";

pub(crate) fn run(flags: ControllerFlags) -> Result<ExitCode> {
    telemetry::start(if flags.debug { "debug,hyper=info,kube=info,h2=info" } else { "info,kube=warn" });
    let election = flags.leader_elect.then(|| election(&flags)).transpose()?;
    block_on(async {
        let stop = CancellationToken::new();
        shutdown::on_signal(stop.clone())?;
        let client = connect(&flags).await?;
        let metrics = Arc::new(Metrics::default());
        if let Some(address) = flags.metrics_bind_address {
            let serving = metrics::serve(address, metrics.clone(), stop.clone());
            tokio::spawn(serving.await.with_context(|| format!("--metrics-bind-address {address}"))?);
        }
        let work = Work { config: config(&client, &metrics).await?, client, namespaces: flags.namespace, metrics };
        println!("{READY}");
        match election {
            Some(election) => {
                let grace = (election.lease - election.renew_within) / 2;
                let elector = Elector::new(work.client.clone(), election, work.config.clock.clone());
                elector.run(stop, |term| work.clone().lead(term, grace)).await;
            }
            None => work.all(stop).await,
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Upstream's rules for the three times.
fn election(flags: &ControllerFlags) -> Result<Election> {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let (lease, renew_within) =
        (seconds(flags.leader_elect_lease_duration), seconds(flags.leader_elect_renew_deadline));
    let every = seconds(flags.leader_elect_retry_period);
    ensure!(
        lease > renew_within,
        "--leader-elect-lease-duration {} has to be greater than --leader-elect-renew-deadline {}",
        lease.as_secs(),
        renew_within.as_secs()
    );
    ensure!(
        renew_within > every,
        "--leader-elect-renew-deadline {} has to be greater than --leader-elect-retry-period {}",
        renew_within.as_secs(),
        every.as_secs()
    );
    let unique = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("a name for this process")?;
    let identity = format!("{}_{}", machine::host_name()?, unique.trim());
    Ok(Election { lease, renew_within, every, ..Election::new(&flags.leader_elect_namespace, LEASE, &identity) })
}

/// A pod's own cluster, unless the flags say another one.
async fn connect(flags: &ControllerFlags) -> Result<Client> {
    let own =
        if flags.kubeconfig.is_none() && flags.context.is_none() { stead_client::service_account() } else { None };
    let config = match own {
        Some(config) => config,
        None => {
            let place = Place { path: flags.kubeconfig.clone(), context: flags.context.clone(), ..Place::default() };
            stead_client::load(&place).await?
        }
    };
    Ok(stead_client::from_config(config)?)
}

/// Asks the server what it is, which also shows that it can be reached.
async fn config(client: &Client, metrics: &Metrics) -> Result<Config> {
    let asked = client.apiserver_version().await;
    let version =
        asked.map_err(|error| anyhow::anyhow!("cannot ask the cluster for its version: {}", message(&error)))?;
    let beside_stead = version.git_version.contains("+stead");
    tracing::info!(version = version.git_version, "beside the StatefulSet controller of this cluster");
    Ok(Config { beside_stead, companion_counts: metrics.counts.clone(), ..Config::default() })
}

/// What the leader does.
#[derive(Clone)]
struct Work {
    client: Client,
    config: Config,
    /// Only these; without any, all.
    namespaces: Vec<String>,
    metrics: Arc<Metrics>,
}

impl Work {
    /// Leads until `term` ends, and not longer than `grace` after that.
    async fn lead(self, term: CancellationToken, grace: Duration) {
        self.metrics.leads(true);
        let over = async {
            term.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            () = self.clone().all(term.clone()) => {}
            () = over => tracing::warn!("the term is over: what was still under way is dropped"),
        }
        self.metrics.leads(false);
    }

    /// One companion for each namespace, or one for all.
    async fn all(self, stop: CancellationToken) {
        let caches = match self.namespaces.as_slice() {
            [] => vec![Caches::new(self.client.clone())],
            some => some.iter().map(|namespace| Caches::within(self.client.clone(), namespace)).collect(),
        };
        let mut running = JoinSet::new();
        for caches in caches {
            let companion = vec![registry::entry::<Companion>()];
            running.spawn(run_only(companion, self.config.clone(), self.client.clone(), caches, stop.clone()));
        }
        while running.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Command, Stead};

    fn flags(words: &str) -> ControllerFlags {
        let words = ["stead", "controller"].into_iter().chain(words.split_whitespace());
        match Stead::try_parse_from(words).unwrap().command {
            Command::Controller(flags) => flags,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_times_of_the_election_are_upstreams_and_have_to_fit() {
        let election = election(&flags("")).unwrap();
        let seconds = [election.lease, election.renew_within, election.every].map(|time| time.as_secs());
        assert_eq!((seconds, election.namespace.as_str(), election.name.as_str()), ([15, 10, 2], "kube-system", LEASE));
        for (words, named) in [
            ("--leader-elect-lease-duration 10", "--leader-elect-renew-deadline 10"),
            ("--leader-elect-retry-period 10", "--leader-elect-retry-period 10"),
        ] {
            let error = super::election(&flags(words)).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn the_election_can_be_left_out_and_namespaces_chosen() {
        let flags = flags("--leader-elect=false -n a,b --namespace c");
        assert!(!flags.leader_elect);
        assert_eq!(flags.namespace, ["a", "b", "c"]);
    }
}
