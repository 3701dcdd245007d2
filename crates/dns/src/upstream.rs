//! Asks other DNS servers about names that are not ours.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use crate::answer::{Transport, UDP_BYTES_MAX};

/// How long one server is waited for, and all of them together: less than the 5 s after which clients ask again.
const TRY_MAX: Duration = Duration::from_millis(1500);
const EXCHANGE_MAX: Duration = Duration::from_millis(4500);
/// Servers that are used of a list, as with the C library.
const SERVERS_MAX: usize = 3;
const DNS_PORT: u16 = 53;

/// Where the list of servers comes from.
#[derive(Clone, Debug)]
pub enum UpstreamSource {
    Servers(Vec<SocketAddr>),
    /// A file like `/etc/resolv.conf`, read again when it changes.
    File(PathBuf),
}

/// The servers for other zones.
#[derive(Debug)]
pub struct Upstreams {
    source: UpstreamSource,
    /// Our own addresses: a question must never come back to us.
    own: Vec<IpAddr>,
    read: Mutex<Option<(SystemTime, Vec<SocketAddr>)>>,
}

/// Why nobody answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("no DNS server for other zones is configured on this machine")]
    None,
    #[error("no DNS server for other zones answered in time, {server} was tried last: {cause}")]
    Silent { server: SocketAddr, cause: String },
}

impl Upstreams {
    pub fn new(source: UpstreamSource, own: Vec<IpAddr>) -> Self {
        Self { source, own, read: Mutex::default() }
    }

    /// Passes `query` on by the transport that it came by, and returns the answer with the query's id.
    pub(crate) async fn exchange(&self, query: &[u8], transport: Transport) -> Result<Vec<u8>, UpstreamError> {
        let servers = self.servers();
        let deadline = Instant::now() + EXCHANGE_MAX;
        let mut last = None;
        for server in servers.iter().cycle().take(servers.len() * 2) {
            let attempt = timeout(TRY_MAX, ask(*server, query, transport));
            match timeout_at(deadline, attempt).await {
                Ok(Ok(Ok(answer))) => return Ok(answer),
                Ok(Ok(Err(error))) => last = Some((*server, error.to_string())),
                Ok(Err(_)) => last = Some((*server, "timed out".to_owned())),
                Err(_) => {
                    last = Some((*server, "timed out".to_owned()));
                    break;
                }
            }
        }
        Err(last.map_or(UpstreamError::None, |(server, cause)| UpstreamError::Silent { server, cause }))
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let path = match &self.source {
            UpstreamSource::Servers(list) => return self.usable(list.clone()),
            UpstreamSource::File(path) => path,
        };
        let changed = std::fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut read = self.read.lock();
        match read.as_ref() {
            Some((at, list)) if *at == changed => list.clone(),
            _ => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let list = self.usable(nameservers(&text));
                *read = Some((changed, list.clone()));
                list
            }
        }
    }

    fn usable(&self, mut list: Vec<SocketAddr>) -> Vec<SocketAddr> {
        list.retain(|server| !self.own.contains(&server.ip()));
        list.truncate(SERVERS_MAX);
        list
    }
}

/// The servers that a resolv.conf names.
pub fn nameservers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines
        .filter(|rest| rest.starts_with(char::is_whitespace))
        .filter_map(|rest| rest.split_whitespace().next())
        // An address with a zone (fe80::1%eth0) is passed over.
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, DNS_PORT))
        .collect()
}

async fn ask(server: SocketAddr, query: &[u8], transport: Transport) -> io::Result<Vec<u8>> {
    let mut packet = query.to_vec();
    let id: [u8; 2] = match packet.get(..2) {
        Some(id) => [id[0], id[1]],
        None => return Err(io::ErrorKind::InvalidInput.into()),
    };
    // An id of our own, hard to guess, as the port is: the answer must come from the server.
    let own = (RandomState::new().hash_one(server) as u16).to_be_bytes();
    packet[..2].copy_from_slice(&own);
    let mut answer = match transport {
        Transport::Udp => ask_udp(server, &packet).await?,
        Transport::Tcp => ask_tcp(server, &packet).await?,
    };
    if answer.len() < 12 || answer[..2] != own {
        return Err(io::Error::other("it answered with garbage"));
    }
    answer[..2].copy_from_slice(&id);
    Ok(answer)
}

async fn ask_udp(server: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; usize::from(UDP_BYTES_MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Another id: not the answer to this question; the real one may still come.
        if length >= 12 && buffer[..2] == packet[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(packet.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(packet);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_servers_and_leaves_ourselves_out() {
        let text = "# x\nnameserver 10.43.0.10\n nameserver 1.1.1.1 # one\nnameserver\t::1\nnameservers 9.9.9.9\nnameserver fe80::1%eth0\nsearch a b\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        let own = vec!["10.43.0.10".parse().unwrap()];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        std::fs::write(&path, text).unwrap();
        let upstreams = Upstreams::new(UpstreamSource::File(path), own);
        let shown: Vec<String> = upstreams.servers().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["1.1.1.1:53", "[::1]:53", "8.8.8.8:53"]);
    }
}
