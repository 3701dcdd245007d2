//! Many seeds, with what has been run kept in a file: a run that was stopped goes on where it was.
//!
//! The file is text, one line a chunk or a failure, and only ever grows:
//!
//! ```text
//! chunk 200..300 by 744115b: 100 seeds, 24810 events, 3.1 s, 31.0 ms each, 0 failed
//! failed 217 by 744115b: two pods web-0 run at once: ...
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;

use crate::{Outcome, Plant, run_with};

/// Seeds that are done or not done together.
const CHUNK_SEEDS: u64 = 100;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Campaign<'a> {
    pub first: u64,
    /// The last one excluded.
    pub end: u64,
    pub jobs: usize,
    /// It stops after so many failing seeds.
    pub failures_max: u64,
    /// Where it is written down what has been run.
    pub log: Option<&'a Path>,
    /// What the simulator is called in there.
    pub label: &'a str,
    pub plant: Option<Plant>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub seeds: u64,
    pub events: u64,
    pub failed: Vec<Outcome>,
}

impl Campaign<'_> {
    /// Runs all seeds that the log does not have yet.
    ///
    /// # Errors
    /// When a simulation cannot be set up, or the log cannot be read or written.
    pub fn run(&self) -> Result<Report> {
        let done = self.log.map_or_else(|| Ok(Vec::new()), done)?;
        let log = self.log.map(append).transpose()?.map(Mutex::new);
        let is_done = |first: &u64| done.iter().any(|chunk| *chunk == (*first, (first + CHUNK_SEEDS).min(self.end)));
        let chunks: Vec<u64> = (self.first..self.end).step_by(CHUNK_SEEDS as usize).filter(|f| !is_done(f)).collect();
        let (next, report) = (AtomicU64::new(0), Mutex::new(Report::default()));
        let work = || -> Result<()> {
            while (report.lock().failed.len() as u64) < self.failures_max {
                let Some(first) = chunks.get(next.fetch_add(1, Ordering::Relaxed) as usize) else { break };
                self.chunk(*first, log.as_ref(), &report)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = (0..self.jobs.max(1)).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a simulation panicked")))
        })?;
        Ok(report.into_inner())
    }

    fn chunk(&self, first: u64, log: Option<&Mutex<File>>, report: &Mutex<Report>) -> Result<()> {
        let end = (first + CHUNK_SEEDS).min(self.end);
        let (began, mut events, mut failed) = (Instant::now(), 0, 0);
        for seed in first..end {
            let outcome = run_with(seed, self.plant, false)?;
            events += outcome.events;
            if let Some(why) = &outcome.violation {
                failed += 1;
                println!("seed {seed}: {why}\n    again: stead-simulator --seed {seed} --trace");
                note(log, &format!("failed {seed} by {}: {why}", self.label))?;
                report.lock().failed.push(outcome.clone());
            }
            let mut report = report.lock();
            report.seeds += 1;
            report.events += outcome.events;
            if report.failed.len() as u64 >= self.failures_max {
                return Ok(());
            }
        }
        let (seeds, seconds) = (end - first, began.elapsed().as_secs_f64());
        let each = seconds * 1e3 / seeds as f64;
        let label = self.label;
        note(
            log,
            &format!(
                "chunk {first}..{end} by {label}: {seeds} seeds, {events} events, {seconds:.1} s, {each:.1} ms each, {failed} failed"
            ),
        )
    }
}

fn note(log: Option<&Mutex<File>>, line: &str) -> Result<()> {
    let Some(log) = log else { return Ok(()) };
    log.lock().write_all(format!("{line}\n").as_bytes()).context("write the log of seeds")
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("open {}", path.display()))
}

/// The chunks that a log has.
fn done(path: &Path) -> Result<Vec<(u64, u64)>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(anyhow!(error).context(format!("read {}", path.display()))),
    };
    Ok(text.lines().filter_map(chunk_of).collect())
}

fn chunk_of(line: &str) -> Option<(u64, u64)> {
    range(line.strip_prefix("chunk ")?.split(' ').next()?).ok()
}

/// Reads `0..1000`.
///
/// # Errors
/// When it is something else.
pub fn range(text: &str) -> Result<(u64, u64)> {
    let (first, end) = text.split_once("..").with_context(|| format!("{text:?} is not like 0..1000"))?;
    Ok((first.parse()?, end.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_says_which_seeds_are_done() {
        let line = "chunk 200..300 by 744115b: 100 seeds, 24810 events, 3.1 s, 31.0 ms each, 0 failed";
        assert_eq!(chunk_of(line), Some((200, 300)));
        assert_eq!(chunk_of("failed 217 by 744115b: two pods"), None);
        assert!(range("7").is_err());
    }
}
