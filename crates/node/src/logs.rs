//! Container logs as they lie on disk (CRI's format) and as a reader wants them.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Read from the file at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Longest line that is put together from its parts; more of it is passed on as another line.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// What a reader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub follow: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    /// Only `stdout` or only `stderr`.
    pub stream: Option<String>,
}

/// One record of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record<'a> {
    time: &'a str,
    stream: &'a str,
    /// The line goes on in the next record.
    partial: bool,
    text: &'a [u8],
}

/// `2026-11-20T12:00:00.123456789Z stdout F text`, without the line end.
fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let partial = parts.next()?.split(|byte| *byte == b':').next()? == b"P";
    Some(Record { time, stream, partial, text: parts.next().unwrap_or_default() })
}

/// Turns records into what the reader gets.
#[derive(Debug)]
pub(crate) struct Formatter {
    wanted: Wanted,
    sent: u64,
    /// The record before was partial: no new time stamp.
    within_line: bool,
}

impl Formatter {
    #[must_use]
    pub(crate) fn new(wanted: Wanted) -> Self {
        Formatter { wanted, sent: 0, within_line: false }
    }

    /// Whether the byte limit is reached.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.wanted.limit_bytes.is_some_and(|limit| self.sent >= limit)
    }

    /// Appends what a raw line of the file gives.
    pub(crate) fn push(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(record) = parse(line) else { return };
        let other_stream = self.wanted.stream.as_deref().is_some_and(|stream| stream != record.stream);
        let too_old =
            self.wanted.since.is_some_and(|since| record.time.parse::<Timestamp>().is_ok_and(|time| time < since));
        if other_stream || too_old {
            return;
        }
        let start = out.len();
        if self.wanted.timestamps && !self.within_line {
            out.extend_from_slice(record.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(record.text);
        if !record.partial {
            out.push(b'\n');
        }
        self.within_line = record.partial;
        if let Some(limit) = self.wanted.limit_bytes {
            let room = usize::try_from(limit.saturating_sub(self.sent)).unwrap_or(usize::MAX);
            out.truncate(start.saturating_add(room));
        }
        self.sent += u64::try_from(out.len() - start).unwrap_or(0);
    }
}

/// Reads one log file from some place on, and waits for more.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    file: Option<File>,
    pending: Vec<u8>,
}

impl Reader {
    /// Opens the log at its beginning, or `tail` lines before its end. A file that is not there yet is empty.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn open(path: &Path, tail: Option<u64>) -> std::io::Result<Self> {
        let file = match File::open(path) {
            Ok(mut file) => {
                if let Some(lines) = tail {
                    let at = tail_offset(&mut file, lines)?;
                    file.seek(SeekFrom::Start(at))?;
                }
                Some(file)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Reader { path: path.to_owned(), file, pending: Vec::new() })
    }

    /// The raw lines that are there now, up to a chunk; empty at the end of the file.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn lines(&mut self) -> std::io::Result<Vec<Vec<u8>>> {
        if self.file.is_none() {
            *self = Reader::open(&self.path, None)?;
        }
        let Some(file) = &mut self.file else { return Ok(Vec::new()) };
        let mut lines = Vec::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        while lines.is_empty() {
            let size = file.read(&mut buffer)?;
            if size == 0 {
                break;
            }
            self.pending.extend_from_slice(&buffer[..size]);
            while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.pending.drain(..=end).collect();
                line.pop();
                lines.push(line);
            }
            if self.pending.len() > LINE_BYTES_MAX {
                lines.push(std::mem::take(&mut self.pending));
            }
        }
        Ok(lines)
    }

    /// The file was rotated: go on with the new one once the old one is read.
    pub(crate) fn reopen(&mut self) {
        self.file = None;
    }

    #[must_use]
    pub(crate) fn was_rotated(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let Some(file) = &self.file else { return false };
        match (file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(open), Ok(there)) => open.ino() != there.ino(),
            _ => false,
        }
    }
}

/// All that a log file holds of one stream. Output that was rotated away is not in it.
///
/// # Errors
/// The file system's.
pub(crate) fn whole(path: &Path, stream: &str) -> std::io::Result<Vec<u8>> {
    let mut reader = Reader::open(path, None)?;
    let mut formatter = Formatter::new(Wanted { stream: Some(stream.to_owned()), ..Wanted::default() });
    let mut out = Vec::new();
    loop {
        let lines = reader.lines()?;
        if lines.is_empty() {
            return Ok(out);
        }
        lines.iter().for_each(|line| formatter.push(line, &mut out));
    }
}

/// Where the last `lines` whole lines (as a reader counts them) begin.
fn tail_offset(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut ends_seen = 0;
    let mut end = size;
    // Bytes after the position looked at, up to the line end behind it: needed to tell whole from partial records.
    let mut tail: Vec<u8> = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(CHUNK_BYTES as u64);
        file.seek(SeekFrom::Start(start))?;
        let mut chunk = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.read_exact(&mut chunk)?;
        let length = chunk.len();
        chunk.extend_from_slice(&tail);
        for at in (0..length).rev() {
            if chunk[at] != b'\n' {
                continue;
            }
            let before = chunk[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |found| found + 1);
            let whole_line_known = before > 0 || start == 0;
            let partial = whole_line_known && parse(&chunk[before..at]).is_some_and(|record| record.partial);
            if partial {
                continue;
            }
            if ends_seen == lines {
                return Ok(start + at as u64 + 1);
            }
            ends_seen += 1;
        }
        let keep = chunk.iter().position(|byte| *byte == b'\n').map_or(chunk.len(), |found| found + 1);
        tail = chunk[..keep.min(LINE_BYTES_MAX)].to_vec();
        end = start;
    }
    Ok(0)
}

/// Tells when a log file has grown or was replaced.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: AsyncFd<Raw>,
}

#[derive(Debug)]
struct Raw(Inotify);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    /// Watches the directory of `path`, so that a file that is not there yet, or is rotated, is seen too.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new(path: &Path) -> std::io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let dir = path.parent().unwrap_or(path);
        std::fs::create_dir_all(dir)?;
        inotify.add_watch(dir, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
        // SAFETY: the descriptor belongs to the `Inotify` that moves in, which neither closes nor replaces it before its drop.
        let inotify = unsafe { AsyncFd::register(Raw(inotify)) };
        Ok(Watch { inotify: inotify? })
    }

    /// Waits for the next change.
    pub(crate) async fn changed(&self) {
        let Ok(mut ready) = self.inotify.readable().await else { return std::future::pending().await };
        // What exactly has happened does not matter: the reader looks.
        while self.inotify.get_ref().0.read_events().is_ok_and(|events| !events.is_empty()) {}
        ready.clear_ready();
    }
}

/// The end of a log as plain text: at most so many lines and bytes.
#[must_use]
pub(crate) fn last_lines(path: &Path, lines: usize, bytes: usize) -> Option<String> {
    let mut reader = Reader::open(path, Some(lines as u64)).ok()?;
    let mut formatter = Formatter::new(Wanted::default());
    let mut out = Vec::new();
    loop {
        let lines = reader.lines().ok()?;
        if lines.is_empty() {
            break;
        }
        lines.iter().for_each(|line| formatter.push(line, &mut out));
    }
    let kept = &out[out.len().saturating_sub(bytes)..];
    (!kept.is_empty()).then(|| String::from_utf8_lossy(kept).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-20T12:00:00.1Z stdout F one\n2026-11-20T12:00:01Z stderr F two\n\
                       2026-11-20T12:00:02Z stdout P thr\n2026-11-20T12:00:02Z stdout F ee\n2026-11-20T12:00:03Z stdout F \n";

    fn read(wanted: &Wanted) -> String {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), LOG).expect("written");
        let mut reader = Reader::open(file.path(), wanted.tail_lines).expect("opened");
        let mut formatter = Formatter::new(wanted.clone());
        let mut out = Vec::new();
        for line in reader.lines().expect("read") {
            formatter.push(&line, &mut out);
        }
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn records_become_lines() {
        let all = Wanted::default();
        assert_eq!(read(&all), "one\ntwo\nthree\n\n");
        assert_eq!(read(&Wanted { tail_lines: Some(2), ..all.clone() }), "three\n\n");
        assert_eq!(read(&Wanted { tail_lines: Some(0), ..all.clone() }), "");
        assert_eq!(read(&Wanted { tail_lines: Some(99), ..all.clone() }), "one\ntwo\nthree\n\n");
        assert_eq!(read(&Wanted { limit_bytes: Some(6), ..all.clone() }), "one\ntw");
        assert_eq!(read(&Wanted { stream: Some("stderr".to_owned()), ..all.clone() }), "two\n");
        assert_eq!(read(&Wanted { since: "2026-11-20T12:00:02Z".parse().ok(), ..all.clone() }), "three\n\n");
        let stamped = read(&Wanted { timestamps: true, tail_lines: Some(2), ..all });
        assert_eq!(stamped, "2026-11-20T12:00:02Z three\n2026-11-20T12:00:03Z \n");
    }

    #[test]
    fn the_end_of_a_long_log_is_found() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let lines: String = (0..20_000).map(|n| format!("2026-11-20T12:00:00Z stdout F line {n}\n")).collect();
        std::fs::write(file.path(), lines).expect("written");
        assert_eq!(last_lines(file.path(), 2, 2048).as_deref(), Some("line 19998\nline 19999\n"));
        let many = last_lines(file.path(), 5000, usize::MAX).expect("text");
        assert_eq!((many.lines().count(), many.lines().next()), (5000, Some("line 15000")));
    }
}
