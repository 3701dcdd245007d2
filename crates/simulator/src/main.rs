//! `stead-simulator --seeds 0..1000`, or `--seed 17 --trace` to see what happens in one of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use stead_simulator::{Outcome, run};

/// Runs simulated clusters with faults and looks for what must not happen.
#[derive(Debug, Parser)]
struct Args {
    /// Seeds to run, the last one excluded: 0..1000
    #[arg(long, default_value = "0..200")]
    seeds: String,
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
    let (first, end) = match args.seed {
        Some(seed) => (seed, seed + 1),
        None => range(&args.seeds)?,
    };
    let (next, failed, events) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let work = || -> Result<()> {
        while failed.load(Ordering::Relaxed) < args.failures {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            let outcome = run(seed, args.trace)?;
            events.fetch_add(outcome.events, Ordering::Relaxed);
            if args.seed.is_some() {
                println!("{outcome:#?}");
            }
            if outcome.violation.is_some() {
                failed.fetch_add(1, Ordering::Relaxed);
                tell(&outcome);
            }
            if (seed + 1).is_multiple_of(1000) {
                let rate = (seed + 1 - first) as f64 / began.elapsed().as_secs_f64();
                println!("{} seeds, {rate:.1}/s, {} failed", seed + 1 - first, failed.load(Ordering::Relaxed));
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..args.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a simulation panicked")))
    })?;
    let (seeds, seconds) = (next.into_inner().min(end) - first, began.elapsed().as_secs_f64());
    let failed = failed.into_inner();
    println!(
        "{seeds} seeds in {seconds:.1} s ({:.1}/s), {} events, {failed} failed",
        seeds as f64 / seconds,
        events.into_inner()
    );
    if failed > 0 {
        bail!("{failed} seeds failed");
    }
    Ok(())
}

fn tell(outcome: &Outcome) {
    let why = outcome.violation.as_deref().unwrap_or_default();
    println!("seed {}: {why}\n    again: stead-simulator --seed {} --trace", outcome.seed, outcome.seed);
}

fn range(text: &str) -> Result<(u64, u64)> {
    let (first, end) = text.split_once("..").with_context(|| format!("{text:?} is not like 0..1000"))?;
    Ok((first.parse()?, end.parse()?))
}
