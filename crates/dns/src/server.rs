//! The sockets: a plain receive loop for UDP, a task for each TCP connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::answer::{Step, Transport, UDP_BYTES_MAX, encode, failure, merge, step};
use crate::{DnsError, SharedZone, Upstreams};

/// Pause after the system had no descriptor or memory for a new connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Questions that wait for other servers at the same time; more are told to try again.
const FORWARDS_MAX: usize = 2048;
/// Open TCP connections; more wait to be accepted.
const CONNECTIONS_MAX: usize = 512;
/// A connection without a question for so long is closed.
const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(10);
/// Receive loops for each UDP socket.
const LOOPS_MAX: usize = 4;

/// Sockets that are listened on.
#[derive(Debug)]
pub struct Bound {
    pub(crate) udp: Vec<Arc<UdpSocket>>,
    pub(crate) tcp: Vec<TcpListener>,
}

impl Bound {
    /// The addresses of the UDP sockets; TCP has the same ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }
}

/// Opens the sockets. Port 0 takes any port that is free for UDP and TCP.
///
/// # Errors
/// The first address that cannot be had.
pub async fn bind(listen: &[SocketAddr]) -> Result<Bound, DnsError> {
    let mut bound = Bound { udp: Vec::new(), tcp: Vec::new() };
    for address in listen {
        let failed = |source| DnsError::Listen { address: *address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let udp = UdpSocket::bind(tcp.local_addr().map_err(failed)?).await.map_err(failed)?;
        bound.tcp.push(tcp);
        bound.udp.push(Arc::new(udp));
    }
    Ok(bound)
}

/// What every loop works with.
#[derive(Clone, Debug)]
struct Shared {
    zone: SharedZone,
    upstreams: Arc<Upstreams>,
    forwards: Arc<Semaphore>,
}

/// Answers until `shutdown`.
pub async fn serve(bound: Bound, zone: SharedZone, upstreams: Arc<Upstreams>, shutdown: CancellationToken) {
    let shared = Shared { zone, upstreams, forwards: Arc::new(Semaphore::new(FORWARDS_MAX)) };
    let loops = std::thread::available_parallelism().map_or(1, usize::from).min(LOOPS_MAX);
    let mut tasks = JoinSet::new();
    for socket in bound.udp {
        for _ in 0..loops {
            tasks.spawn(udp(socket.clone(), shared.clone()));
        }
    }
    for listener in bound.tcp {
        tasks.spawn(tcp(listener, shared.clone()));
    }
    shutdown.cancelled().await;
    tasks.shutdown().await;
}

async fn udp(socket: Arc<UdpSocket>, shared: Shared) {
    let mut buffer = vec![0; usize::from(UDP_BYTES_MAX)];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An earlier answer that nobody took (ICMP) shows up here.
                tracing::debug!(%error, "cannot receive by UDP");
                continue;
            }
        };
        match step(&buffer[..length], &shared.zone, Transport::Udp) {
            Step::Ignore => {}
            Step::Send(bytes) => send(&socket, &bytes, from).await,
            elsewhere => {
                let (socket, shared, packet) = (socket.clone(), shared.clone(), buffer[..length].to_vec());
                tokio::spawn(async move {
                    let bytes = finish(elsewhere, &packet, &shared, Transport::Udp).await;
                    send(&socket, &bytes, from).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, to).await {
        tracing::debug!(%error, %to, "cannot send a DNS answer");
    }
}

async fn tcp(listener: TcpListener, shared: Shared) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    connection(stream, &shared).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a DNS connection");
                // Out of file descriptors: accepting at once again would only burn the processor.
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Answers the questions of one connection, one after the other.
async fn connection(mut stream: TcpStream, shared: &Shared) {
    while let Ok(Ok(packet)) = timeout(CONNECTION_IDLE_MAX, read(&mut stream)).await {
        let bytes = match step(&packet, &shared.zone, Transport::Tcp) {
            Step::Ignore => return,
            Step::Send(bytes) => bytes,
            elsewhere => finish(elsewhere, &packet, shared, Transport::Tcp).await,
        };
        let Ok(length) = u16::try_from(bytes.len()) else { return };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&bytes);
        if !matches!(timeout(CONNECTION_IDLE_MAX, stream.write_all(&framed)).await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

/// Asks elsewhere and makes the answer of it.
async fn finish(elsewhere: Step, packet: &[u8], shared: &Shared, transport: Transport) -> Vec<u8> {
    let Ok(_permit) = shared.forwards.try_acquire() else {
        return match Message::from_vec(packet) {
            Ok(request) => encode(&failure(&request, "too many questions wait"), &request, transport),
            Err(_) => Vec::new(),
        };
    };
    match elsewhere {
        Step::Ignore => Vec::new(),
        Step::Send(bytes) => bytes,
        Step::Forward(request) => match shared.upstreams.exchange(packet, transport).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(question = %request.queries[0], %error, "cannot forward a question");
                encode(&failure(&request, &error.to_string()), &request, transport)
            }
        },
        Step::Follow(question, base) => {
            let rest = follow(&question, shared, transport).await;
            let request = Message::from_vec(packet).unwrap_or_else(|_| (*base).clone());
            encode(&merge(*base, rest), &request, transport)
        }
    }
}

async fn follow(question: &Message, shared: &Shared, transport: Transport) -> Option<Message> {
    let packet = question.to_vec().ok()?;
    match shared.upstreams.exchange(&packet, transport).await {
        Ok(answer) => Message::from_vec(&answer).ok(),
        Err(error) => {
            tracing::debug!(question = %question.queries[0], %error, "cannot follow an alias");
            None
        }
    }
}
