//! `cargo xtask mutants`: are the tests worth anything? Spoils one line of a decision at a time and runs the tests of
//! the crate, which have to notice.
//!
//! `crates/workloads/mutants.txt` is the table: `# name`, the file below `src`, then `- ` the text as it stands (once
//! in the file) and `+ ` what takes its place. A mutant that survives, or a table that no longer fits the code, fails
//! the task.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const CRATE: &str = "crates/workloads";
/// How many of the tests that noticed are named.
const NAMED_MAX: usize = 3;

struct Mutant {
    name: String,
    file: PathBuf,
    from: String,
    to: String,
}

/// A file that is put back as it was, whatever happens.
struct Spoiled<'a> {
    file: &'a Path,
    original: String,
}

impl Drop for Spoiled<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::write(self.file, &self.original) {
            eprintln!("cannot put {} back, use git: {error}", self.file.display());
        }
    }
}

/// `only`: a part of the name of the mutants to try.
pub(crate) fn run(root: &Path, only: Option<&str>) -> Result<()> {
    let table = root.join(CRATE).join("mutants.txt");
    let text = fs::read_to_string(&table).with_context(|| format!("read {}", table.display()))?;
    let mutants = parse(&text, &root.join(CRATE).join("src"))?;
    let chosen: Vec<_> = mutants.iter().filter(|mutant| only.is_none_or(|part| mutant.name.contains(part))).collect();
    let mut survivors = Vec::new();
    for mutant in &chosen {
        let killers = try_one(root, mutant).with_context(|| format!("mutant {:?}", mutant.name))?;
        let named = killers.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        println!("{:<58} {:>3} {named}", mutant.name, killers.len());
        if killers.is_empty() {
            survivors.push(mutant.name.as_str());
        }
    }
    println!("{} mutants, {} killed", chosen.len(), chosen.len() - survivors.len());
    if !survivors.is_empty() {
        bail!("no test notices: {}", survivors.join("; "));
    }
    Ok(())
}

fn parse(text: &str, sources: &Path) -> Result<Vec<Mutant>> {
    let block = |block: &str| -> Result<Mutant> {
        let mut lines = block.lines();
        let name = lines.next().context("a name")?.trim().to_owned();
        let wrong = || format!("mutant {name:?}: wanted are a file, a line with `- ` and a line with `+ `");
        let file = sources.join(lines.next().with_context(wrong)?);
        let part = |line: Option<&str>, mark: &str| line.and_then(|line| line.strip_prefix(mark)).map(str::to_owned);
        let from = part(lines.next(), "- ").with_context(wrong)?;
        let to = part(lines.next(), "+ ").with_context(wrong)?;
        Ok(Mutant { name, file, from, to })
    };
    let blocks = text.split("\n# ").skip(1);
    blocks.map(block).collect()
}

/// The tests that noticed.
fn try_one(root: &Path, mutant: &Mutant) -> Result<Vec<String>> {
    let original = fs::read_to_string(&mutant.file).with_context(|| format!("read {}", mutant.file.display()))?;
    let count = original.matches(&mutant.from).count();
    if count != 1 {
        bail!("the text occurs {count} times in {}: {:?}", mutant.file.display(), mutant.from);
    }
    let text = original.replacen(&mutant.from, &mutant.to, 1);
    let _spoiled = Spoiled { file: &mutant.file, original };
    fs::write(&mutant.file, text)?;
    // The stories are quick; the walk through all states is for what they miss.
    let told = test(root, &["--skip", "explore"])?;
    if told.is_empty() { test(root, &[]) } else { Ok(told) }
}

/// Runs tests of the crate; the names of those that fail.
fn test(root: &Path, which: &[&str]) -> Result<Vec<String>> {
    let test =
        ["test", "--quiet", "--package", "stead-workloads", "--lib", "--", "--format", "pretty", "statefulset", "pod"];
    let output = Command::new("cargo").args(test).args(which).env("RUST_BACKTRACE", "0").current_dir(root).output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    let failed = told.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    let failed: Vec<String> = failed.map(|test| test.rsplit("::").next().unwrap_or(test).to_owned()).collect();
    if failed.is_empty() && !output.status.success() {
        bail!("it does not compile, so it proves nothing:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(failed)
}
