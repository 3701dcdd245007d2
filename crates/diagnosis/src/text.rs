//! Reports as text for people.

use std::fmt::Write as _;

use crate::finding::{Finding, Report, Severity};
use crate::snapshot::Unread;

/// The whole of a report, causes moved in below what they cause.
#[must_use]
pub fn report(report: &Report) -> String {
    let mut out = format!("{}: {}\n", report.object, report.headline);
    for finding in &report.findings {
        tree(&mut out, finding, 1);
    }
    out
}

/// One finding with what is below it.
pub fn tree(out: &mut String, finding: &Finding, level: usize) {
    let pad = "  ".repeat(level);
    let mark = match finding.severity {
        Severity::Fault => "",
        Severity::Waiting => "wait: ",
        Severity::Note => "note: ",
    };
    let _ = writeln!(out, "{pad}{}: {mark}{}", finding.object, finding.what);
    for evidence in &finding.evidence {
        let mut lines = evidence.text.lines();
        let _ = writeln!(out, "{pad}    seen  {}: {}", evidence.source, lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(out, "{pad}          {line}");
        }
    }
    for mend in &finding.mend {
        let _ = writeln!(out, "{pad}    mend  {}", mend.text);
        if let Some(command) = &mend.command {
            let _ = writeln!(out, "{pad}          $ {command}");
        }
    }
    for cause in &finding.causes {
        tree(out, cause, level + 1);
    }
}

/// What could not be read, and what that means.
#[must_use]
pub fn unread(unread: &[Unread]) -> String {
    if unread.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = unread.iter().map(|one| one.resource.as_str()).collect();
    let mut out = format!("not read: {} (what depends on them is told from events alone)\n", names.join(", "));
    for one in unread {
        let _ = writeln!(out, "    seen  {}", one.why);
    }
    out
}

/// Seconds in the form of kubectl's ages: `4s`, `3m`, `5h`, `2d`.
#[must_use]
pub fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}
