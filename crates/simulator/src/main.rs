//! `stead-simulator --seeds 0..1000`, or `--seed 17 --trace` to see what happens in one of them.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use stead_simulator::{Campaign, Plant, range, run_with};

/// Runs simulated clusters with faults and looks for what must not happen.
#[derive(Debug, Parser)]
struct Args {
    /// Seeds to run, the last one excluded: 0..1000
    #[arg(long, default_value = "0..200", value_parser = range)]
    seeds: (u64, u64),
    /// One seed only
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens
    #[arg(long)]
    trace: bool,
    /// Threads that run seeds
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Stop after so many failing seeds
    #[arg(long, default_value_t = 20)]
    failures: u64,
    /// Write down what has been run, and leave out what has been
    #[arg(long)]
    progress: Option<PathBuf>,
    /// What this build is called there
    #[arg(long, default_value = "?")]
    label: String,
    /// Plant a bug, which the rules have to find
    #[arg(long)]
    plant: Option<Plant>,
    /// Plant each bug (or the one of --plant) and look how many of the seeds it takes until it is found so many times
    #[arg(long)]
    hunt: Option<usize>,
    /// Print the log of the components
    #[arg(long)]
    log: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.log {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    }
    if let Some(seed) = args.seed {
        let outcome = run_with(seed, args.plant, args.trace)?;
        println!("{outcome:#?}");
        if outcome.violation.is_some() {
            bail!("seed {seed} failed");
        }
        return Ok(());
    }
    let (first, end) = args.seeds;
    if let Some(times) = args.hunt {
        let plants = args.plant.map_or_else(|| Plant::value_variants().to_vec(), |plant| vec![plant]);
        return plants.into_iter().try_for_each(|plant| hunt(plant, first, end, times));
    }
    let began = Instant::now();
    let report = Campaign {
        first,
        end,
        jobs: args.jobs,
        failures_max: args.failures,
        log: args.progress.as_deref(),
        label: &args.label,
        plant: args.plant,
    }
    .run()?;
    let (seconds, seeds) = (began.elapsed().as_secs_f64(), report.seeds);
    let (rate, failed) = (seeds as f64 / seconds, report.failed.len());
    println!("{seeds} seeds in {seconds:.1} s ({rate:.1}/s), {} events, {failed} failed", report.events);
    if failed > 0 {
        bail!("{failed} seeds failed");
    }
    Ok(())
}

/// How many seeds a planted bug takes.
fn hunt(plant: Plant, first: u64, end: u64, times: usize) -> Result<()> {
    let (mut found, mut tried) = (Vec::new(), 0);
    for seed in first..end {
        tried += 1;
        found.extend(run_with(seed, Some(plant), false)?.violation.map(|why| (seed, why)));
        if found.len() >= times {
            break;
        }
    }
    let seeds: Vec<u64> = found.iter().map(|(seed, _)| *seed).collect();
    let each = tried as f64 / found.len().max(1) as f64;
    println!("{plant:?}: {} in {tried} seeds, one in {each:.1}: {seeds:?}", found.len());
    for (seed, why) in found {
        println!("    {seed}: {why}");
    }
    Ok(())
}
