//! One seed from beginning to end.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use stead_apiserver::{ApiServer, Config, NoNodes, Source, simulate};
use stead_store::{Durability, Entry, Expect, Store, Write};
use tokio::time::{Instant, sleep};

use crate::chaos;
use crate::disk::Disk;
use crate::model::Model;
use crate::nodes::Node;
use crate::parts::{self, PROCESSES};
use crate::people::People;
use crate::plant::Plant;
use crate::profile::Profile;
use crate::rng::Rng;
use crate::settle::settled;
use crate::views::up_to_date;
use crate::world::{EPOCH_SECONDS, Part, World};

/// How long a cluster without faults may take until it is as wanted.
const SETTLE_MAX: Duration = Duration::from_secs(2400);
/// How long it must stay so, and untouched.
const STAY: Duration = Duration::from_secs(60);
/// So long after the last fault the marks of evictions are over.
const REST: Duration = Duration::from_secs(180);
/// More events than this mean that something goes round in circles.
const EVENTS_MAX: u64 = 200_000;
/// Kept history: small, so that old watches do run into its end.
const HISTORY_CHANGES_MAX: usize = 2000;

/// Turns that every task gets at the end, to let go of what it holds.
const LAST_TURNS: usize = 20;

/// How one seed went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    pub violation: Option<String>,
    /// Of everything that happened, in order: two runs of a seed have the same.
    pub trace: u64,
    pub events: u64,
    pub writes: u64,
    /// Simulated time.
    pub seconds: u64,
}

/// Runs one seed.
///
/// # Errors
/// When the simulation cannot be set up; what it finds is in the outcome.
pub fn run(seed: u64) -> Result<Outcome> {
    run_with(seed, None, false)
}

/// The same with a bug planted; `tell` prints what happens.
///
/// # Errors
/// As [`run`].
pub fn run_with(seed: u64, plant: Option<Plant>, tell: bool) -> Result<Outcome> {
    let base = &base()?.entries;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let outcome = runtime.block_on(simulation(seed, plant, tell, base));
    drop(runtime);
    simulate(None);
    outcome
}

async fn simulation(seed: u64, plant: Option<Plant>, tell: bool, base: &[Entry]) -> Result<Outcome> {
    let profile = Profile::draw(seed);
    let world = World::new(seed, profile, plant, tell);
    if tell {
        println!("{:#?}", world.profile);
    }
    if world.profile.clock_jump == 0 {
        world.model.lock().epoch = Some((world.now(Part::Server), Instant::now()));
    }
    let (of_clock, ids) = (world.clone(), world.rng("ids"));
    simulate(Some(Source { now: Box::new(move || of_clock.now(Part::Server)), random: Box::new(move || ids.bytes()) }));
    let options = stead_store::Options { history_changes_max: HISTORY_CHANGES_MAX, ..Default::default() };
    let store: Arc<dyn Store> = Arc::new(Disk::new(copy(base, options).await?, world.clone()));
    world.serve(Some(open(&store).await?));
    let work = live(&world, &store);
    tokio::select! {
        biased;
        () = world.failed.notified() => {}
        () = work => {}
    }
    let (trace, events) = world.trace();
    let writes = world.model.lock().writes;
    let seconds = world.elapsed().as_secs();
    world.over.cancel();
    for _ in 0..LAST_TURNS {
        tokio::task::yield_now().await;
    }
    world.serve(None);
    world.views.lock().clear();
    *world.model.lock() = Model::default();
    Ok(Outcome { seed, violation: world.violation(), trace, events, writes, seconds })
}

/// Faults and deeds, then calm; the wanted state must be reached and stay.
async fn live(world: &Arc<World>, store: &Arc<dyn Store>) {
    let mut people = People::new(parts::line(world, Part::User, 0));
    people.prepare().await;
    for (part, _) in PROCESSES {
        tokio::spawn(parts::keep(world.clone(), *part, 0));
    }
    for number in 0..world.profile.nodes {
        tokio::spawn(Node::new(number, parts::line(world, Part::Node(number), 0)).run());
    }
    chaos::start(world, store);
    people.act().await;
    world.say("no more faults");
    world.calm_down();
    people.mend().await;
    if let Err(missing) = reach(world).await {
        return world.violated(format!("{} s after the last fault {missing}", SETTLE_MAX.as_secs()));
    }
    world.say("as wanted");
    let before = world.model.lock().touched.clone();
    sleep(STAY).await;
    let (now, after) = {
        let model = world.model.lock();
        (settled(&model), model.touched.clone())
    };
    if let Err(missing) = now {
        world.violated(format!("as wanted, and then {missing}"));
    } else if let Err(stale) = up_to_date(world) {
        world.violated(format!("as wanted, and {stale}"));
    } else if before != after {
        world.violated(format!("as wanted, and then still something to write: {before:?} {after:?}"));
    }
}

async fn reach(world: &Arc<World>) -> Result<(), String> {
    let mut waited = Duration::ZERO;
    loop {
        let missing = settled(&world.model.lock());
        if missing.is_ok() || waited >= SETTLE_MAX {
            // Once more after everybody has had the time to see it.
            sleep(REST).await;
            let again = settled(&world.model.lock());
            if again.is_ok() || waited >= SETTLE_MAX {
                return again;
            }
        }
        if world.trace().1 > EVENTS_MAX {
            return Err(format!("and {EVENTS_MAX} events: {missing:?}"));
        }
        let pause = Duration::from_secs(2);
        sleep(pause).await;
        waited += pause;
    }
}

/// Starts the API server over what is stored.
///
/// # Errors
/// When it does not start.
pub(crate) async fn open(store: &Arc<dyn Store>) -> Result<ApiServer> {
    base()?.server.open_again(store.clone()).await.context("open the server")
}

fn config(pki_dir: PathBuf) -> Config {
    Config {
        bind: "127.0.0.1:0".parse().expect("an address"),
        advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
        pki_dir,
        tls_sans: vec![],
        service_cidr: "10.43.0.0/16".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        cluster_dns: IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10)),
    }
}

/// What all simulations begin with.
struct Base {
    /// What every cluster has from the start.
    entries: Vec<Entry>,
    /// A server whose configuration and certificates those of the simulations share.
    server: ApiServer,
}

/// Made once and the same for all seeds. Other threads wait for the first.
fn base() -> Result<&'static Base> {
    static BASE: OnceLock<Result<Base, String>> = OnceLock::new();
    let made = BASE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|e| e.to_string())?;
        runtime.block_on(make_base()).map_err(|error| format!("{error:#}"))
    });
    made.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

async fn make_base() -> Result<Base> {
    let ids = Rng::new(0, "base");
    let epoch = Timestamp::from_second(EPOCH_SECONDS).expect("in range");
    simulate(Some(Source { now: Box::new(move || epoch), random: Box::new(move || ids.bytes()) }));
    let store = stead_store::memory();
    let certificates = tempfile::tempdir().context("make a directory for certificates")?;
    let server = ApiServer::open(config(certificates.path().to_owned()), store.clone(), Arc::new(NoNodes)).await?;
    let mut entries = store.range(b"/", b"", 0, None).await?.entries;
    entries.sort_by_key(|entry| entry.modified);
    Ok(Base { entries, server })
}

async fn copy(base: &[Entry], options: stead_store::Options) -> Result<Arc<dyn Store>> {
    let store = stead_store::memory_with(options);
    for entry in base {
        let (key, value) = (entry.key.clone(), Some(entry.value.clone()));
        store.write(Write { key, value, expect: Expect::Absent, durability: Durability::Lazy }).await?;
    }
    Ok(store)
}
