//! Container log files in the format that CRI fixes: `<RFC 3339 time> <stdout|stderr> <F|P> <line>`.
//!
//! A line longer than [`LINE_BYTES_MAX`] is cut into parts marked `P`; so is a last line without an end. Files are rotated by
//! size: `0.log` becomes `0.log.<UTC time>`, and the oldest ones beyond [`FILES_MAX`] are deleted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Longest line in one record, as containerd has it.
pub(crate) const LINE_BYTES_MAX: usize = 16 << 10;
/// Size at which a file is rotated (kubelet's `containerLogMaxSize`).
pub(crate) const FILE_BYTES_MAX: u64 = 10 << 20;
/// Files kept, the current one counted (kubelet's `containerLogMaxFiles`).
pub(crate) const FILES_MAX: usize = 5;

/// Which output a record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

impl Output {
    fn name(self) -> &'static str {
        match self {
            Output::Stdout => "stdout",
            Output::Stderr => "stderr",
        }
    }
}

/// Cuts a byte stream into records.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Appends the records that `chunk` completes to `out`; `now` is their time.
    pub(crate) fn push(&mut self, mut chunk: &[u8], output: Output, now: &str, out: &mut Vec<u8>) {
        while !chunk.is_empty() {
            let room = LINE_BYTES_MAX - self.rest.len();
            let end = chunk.iter().take(room + 1).position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    record(out, now, output, b'F', &[&self.rest, &chunk[..end]]);
                    self.rest.clear();
                    chunk = &chunk[end + 1..];
                }
                None if chunk.len() > room => {
                    record(out, now, output, b'P', &[&self.rest, &chunk[..room]]);
                    self.rest.clear();
                    chunk = &chunk[room..];
                }
                None => {
                    self.rest.extend_from_slice(chunk);
                    return;
                }
            }
        }
    }

    /// The stream has ended: what is left is a partial line.
    pub(crate) fn finish(&mut self, output: Output, now: &str, out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            record(out, now, output, b'P', &[&self.rest]);
            self.rest = Vec::new();
        }
    }
}

fn record(out: &mut Vec<u8>, now: &str, output: Output, tag: u8, parts: &[&[u8]]) {
    out.extend_from_slice(now.as_bytes());
    out.push(b' ');
    out.extend_from_slice(output.name().as_bytes());
    out.extend_from_slice(&[b' ', tag, b' ']);
    for part in parts {
        out.extend_from_slice(part);
    }
    out.push(b'\n');
}

/// A log file that rotates itself.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    size: u64,
}

impl LogFile {
    pub(crate) fn open(path: &Path) -> io::Result<LogFile> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let (file, size) = open_append(path)?;
        Ok(LogFile { path: path.to_owned(), file: Some(file), size })
    }

    /// Appends whole records. A full or failing disk loses records, never the container: the error is dropped.
    pub(crate) fn write(&mut self, records: &[u8], now: &str) {
        if records.is_empty() {
            return;
        }
        if self.size > 0 && self.size + records.len() as u64 > FILE_BYTES_MAX {
            self.rotate(now);
        }
        if let Some(file) = &mut self.file
            && file.write_all(records).is_ok()
        {
            self.size += records.len() as u64;
        }
    }

    fn rotate(&mut self, now: &str) {
        let stamp: String = now.chars().take(26).filter(char::is_ascii_digit).collect();
        let old = suffixed(&self.path, &format!("{}-{}", &stamp[..8], &stamp[8..]));
        if std::fs::rename(&self.path, old).is_err() {
            return;
        }
        if let Ok((file, size)) = open_append(&self.path) {
            self.file = Some(file);
            self.size = size;
        }
        remove_oldest(&self.path);
    }
}

fn open_append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn remove_oldest(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return };
    let prefix = format!("{name}.");
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    let mut rotated: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    rotated.sort();
    let surplus = rotated.len().saturating_sub(FILES_MAX - 1);
    for old in &rotated[..surplus] {
        let _ = std::fs::remove_file(old);
    }
}

/// `2026-11-20T15:00:00.000000000Z` for a Unix time in nanoseconds.
pub(crate) fn timestamp(unix_nanos: i64) -> String {
    let (seconds, nanos) = (unix_nanos.div_euclid(1_000_000_000), unix_nanos.rem_euclid(1_000_000_000));
    let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Gregorian date of a number of days since 1970-01-01: the year is taken to begin in March, so that the leap day is its last.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        for (nanos, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_795_186_800_000_000_000, "2026-11-20T15:00:00.000000000Z"),
            (4_107_542_399_999_999_999, "2100-02-28T23:59:59.999999999Z"),
        ] {
            assert_eq!(timestamp(nanos), expected);
        }
    }

    #[test]
    fn records() {
        let long = "x".repeat(LINE_BYTES_MAX);
        let stories: &[(&[&str], &str)] = &[
            (&["a\n"], "T stdout F a\n"),
            (&["a\nb\n\nc"], "T stdout F a\nT stdout F b\nT stdout F \nT stdout P c\n"),
            (&["he", "llo\n"], "T stdout F hello\n"),
            (&[&format!("{long}\n")], &format!("T stdout F {long}\n")),
            (&[&format!("{long}y\n")], &format!("T stdout P {long}\nT stdout F y\n")),
            (&[&long, "y\n"], &format!("T stdout P {long}\nT stdout F y\n")),
            (&[&long, "\n"], &format!("T stdout F {long}\n")),
        ];
        for (chunks, expected) in stories {
            let (mut lines, mut out) = (Lines::default(), Vec::new());
            for chunk in *chunks {
                lines.push(chunk.as_bytes(), Output::Stdout, "T", &mut out);
            }
            lines.finish(Output::Stdout, "T", &mut out);
            assert_eq!(String::from_utf8_lossy(&out), *expected);
        }
    }

    #[test]
    fn rotation_keeps_the_newest_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c/0.log");
        let mut log = LogFile::open(&path).unwrap();
        let chunk = vec![b'x'; FILE_BYTES_MAX as usize];
        for turn in 0..8 {
            log.write(&chunk, &timestamp(turn * 1_000_000_000));
        }
        let mut names: Vec<String> = std::fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), FILES_MAX, "{names:?}");
        assert_eq!(names[0], "0.log");
        assert!(names[4].starts_with("0.log.19700101-00000700"), "{names:?}");
    }
}
