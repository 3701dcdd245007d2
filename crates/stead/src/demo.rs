//! The program inside the demo image: counts its starts in a file on its volume and tells them to who asks over HTTP.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

use crate::arguments::DemoFlags;
use crate::{machine, shutdown};

/// Longest request line that is read, in bytes.
const REQUEST_LINE_BYTES_MAX: u64 = 8 * 1024;

pub(crate) fn run(flags: &DemoFlags) -> Result<ExitCode> {
    let starts = count_start(&flags.data)?;
    let name = machine::host_name()?;
    let listener = TcpListener::bind(("0.0.0.0", flags.port)).with_context(|| format!("port {}", flags.port))?;
    println!("{name}: start number {starts} on this volume");
    let answer = format!("{name} starts={starts}\n");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that goes away early is its own affair.
            let _ = stream.and_then(|stream| serve(stream, &answer));
        }
    });
    // The first process of a container is not ended by a signal that it does not ask for.
    let end = CancellationToken::new();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        shutdown::on_signal(end.clone())?;
        end.cancelled().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Adds one to the count in the file and returns it. The file is replaced at once, so that a crash loses nothing.
fn count_start(data: &Path) -> Result<u64> {
    let file = data.join("starts");
    let before: u64 = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let temporary = data.join("starts.new");
    let mut new = fs::File::create(&temporary).with_context(|| temporary.display().to_string())?;
    writeln!(new, "{}", before + 1)?;
    new.sync_all()?;
    fs::rename(&temporary, &file)?;
    Ok(before + 1)
}

fn serve(stream: TcpStream, answer: &str) -> std::io::Result<()> {
    let mut request = BufReader::new(std::io::Read::take(&stream, REQUEST_LINE_BYTES_MAX));
    let mut line = String::new();
    request.read_line(&mut line)?;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    (&stream).write_all(head.as_bytes())?;
    (&stream).write_all(answer.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_on_the_volume() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(count_start(directory.path()).unwrap(), 1);
        assert_eq!(count_start(directory.path()).unwrap(), 2);
    }
}
