//! The real network: namespaces, pairs of interfaces and routes in this machine's kernel.
//!
//! What belongs to an instance is told by marks: interfaces are named `v<instance>...` and carry the pod's id in their
//! alias, pins lie below the instance's run directory. So a later process finds everything again without files of its own.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use async_trait::async_trait;
use nix::errno::Errno;
use parking_lot::Mutex;

use crate::cidr::{Cidr, gateway};
use crate::netlink::{Refused, Socket};
use crate::network::{Network, Peer, PodLink, PodNet, ServiceTable, WireError};
use crate::nft::{Rules, Surroundings};
use crate::{netns, route};

pub mod overlay;
mod spare;
mod watch;

use spare::{Pool, Spare};

/// An instance's mark has to leave room for eight hexadecimal digits in an interface name of at most 15 characters.
const INSTANCE_CHARACTERS_MAX: usize = 6;
const POD_ID_CHARACTERS_MAX: usize = 64;
/// What VXLAN puts around a packet; pods' interfaces leave room for it from the start.
const OVERLAY_BYTES: u32 = 50;
const DEFAULT_MTU_BYTES: u32 = 1500;
/// What an interface that waits for its removal has in its alias in place of the pod's id.
const DOOMED: &str = "~";
/// How often the removal of all interfaces is begun before it is given up.
const REMOVAL_ATTEMPTS: usize = 5;
/// Room for an alias in the kernel is 255 bytes; ours is `stead:<instance>:<id>`.
const ALIAS_MARK: &str = "stead";

/// What the network of one data directory needs to know. Ranges are written as `10.42.0.0/16`.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Short mark of the data directory, one to six lower-case letters or digits, unique on this machine.
    pub instance: String,
    /// This node's part of the pods' range. Its address number 1 is the host's own (see [`gateway`]): no pod may get it.
    pub pod_cidr: String,
    /// The range of all nodes' pods.
    pub cluster_cidr: String,
    pub service_cidr: String,
    /// The address at which this machine's DNS server listens for pods; within `service_cidr`.
    pub cluster_dns: IpAddr,
    /// The address by which other nodes reach this one.
    pub node_ip: IpAddr,
    /// Where namespaces are pinned (`<run_dir>/netns/<id>`); it need not survive a reboot.
    pub run_dir: PathBuf,
}

/// The same, checked.
#[derive(Clone, Debug)]
struct Settings {
    instance: String,
    pod: Cidr,
    cluster: Cidr,
    service: Cidr,
    cluster_dns: IpAddr,
    /// The host's address in its pod range.
    gateway: IpAddr,
    node_ip: IpAddr,
    netns_dir: PathBuf,
    mtu: u32,
}

impl Settings {
    fn link_prefix(&self) -> String {
        format!("v{}", self.instance)
    }

    fn anchor(&self) -> String {
        format!("s{}", self.instance)
    }

    /// The group of interfaces that wait for their removal; only this instance's doomed ones are ever in it.
    fn doomed_group(&self) -> u32 {
        self.instance.bytes().fold(0x5374_0000, |number: u32, b| number.wrapping_mul(37).wrapping_add(u32::from(b)))
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            instance: self.instance.clone(),
            link_prefix: self.link_prefix(),
            overlay: self.overlay(),
            pod: self.pod,
            cluster: self.cluster,
            service: self.service,
            gateway: self.gateway,
            cluster_dns: self.cluster_dns,
        }
    }

    fn alias(&self, id: &str) -> String {
        format!("{ALIAS_MARK}:{}:{id}", self.instance)
    }

    fn id_of_alias<'a>(&self, alias: &'a str) -> Option<&'a str> {
        alias.strip_prefix(ALIAS_MARK)?.strip_prefix(':')?.strip_prefix(self.instance.as_str())?.strip_prefix(':')
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.netns_dir.join(name)
    }
}

/// Opens this machine's network for one instance and takes up what an earlier process left.
///
/// # Errors
/// When the configuration cannot be used, or this process may not administer the network.
pub fn open(config: KernelConfig) -> Result<Arc<dyn Network>, WireError> {
    Ok(Arc::new(KernelNetwork { core: Core::open(&config)?, watch: Mutex::default() }))
}

/// What one pod has in the kernel. `None` in its slot: nothing.
#[derive(Clone, Debug)]
struct Attached {
    link: u32,
    addresses: Vec<IpAddr>,
}

type Slot = Arc<Mutex<Option<Attached>>>;

#[derive(Debug)]
struct KernelNetwork {
    core: Arc<Core>,
    /// Ends the watch over the rules together with this.
    watch: Mutex<Option<AbortOnDrop>>,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct Core {
    settings: Settings,
    host: Socket,
    rules: Rules,
    pool: Pool,
    /// One slot for each pod; its lock is held while the pod's network is changed.
    slots: Mutex<HashMap<String, Slot>>,
    peers: Mutex<BTreeSet<overlay::Entry>>,
    /// Wakes the thread that removes interfaces: that takes the kernel 10 to 40 ms for one as for many, and nobody needs
    /// to wait for it.
    doomed: SyncSender<()>,
}

impl Core {
    fn open(config: &KernelConfig) -> Result<Arc<Self>, WireError> {
        let host = Socket::open(netns::ROUTE).map_err(|e| io_error("open a netlink socket", e))?;
        let settings = check(config, mtu_of_node(&host, config.node_ip)?)?;
        fs::create_dir_all(&settings.netns_dir)
            .map_err(|e| io_error(&format!("make {}", settings.netns_dir.display()), e))?;
        let (pool, requests) = Pool::new();
        let (doomed, removals) = sync_channel(1);
        let rules = Rules::open(settings.surroundings())?;
        let core =
            Arc::new(Self { settings, host, rules, pool, slots: Mutex::default(), peers: Mutex::default(), doomed });
        core.take_up()?;
        spare::start_refill(&core, requests)
            .map_err(|e| io_error("start the thread that keeps spare namespaces", e))?;
        start_removal(&core, removals).map_err(|e| io_error("start the thread that removes interfaces", e))?;
        Ok(core)
    }

    /// Finds the pods' interfaces of an earlier process; keeps its spare ones, removes what is half made.
    fn take_up(&self) -> Result<(), WireError> {
        let routes = route::routes(&self.host).map_err(|e| refused("routes", &e))?;
        let mut slots = self.slots.lock();
        for link in self.links()? {
            let id = link.alias.as_deref().and_then(|alias| self.settings.id_of_alias(alias));
            let kept = match id {
                Some("") => self.pool.take_up(&self.settings, &link),
                Some(id) if netns::is_pinned(&self.settings.pin(id)) => {
                    let addresses = routes.iter().filter(|r| r.link == link.index).map(|r| r.to).collect();
                    let attached = Attached { link: link.index, addresses };
                    slots.insert(id.to_owned(), Arc::new(Mutex::new(Some(attached))));
                    true
                }
                Some(_) | None => false,
            };
            if !kept {
                self.delete_link(link.index)?;
            }
        }
        Ok(())
    }

    /// This instance's interfaces.
    fn links(&self) -> Result<Vec<route::Link>, WireError> {
        let prefix = self.settings.link_prefix();
        let mut links = route::links(&self.host).map_err(|e| refused("interfaces", &e))?;
        links.retain(|link| link.name.len() == prefix.len() + 8 && link.name.starts_with(&prefix));
        Ok(links)
    }

    fn slot(&self, id: &str) -> Slot {
        self.slots.lock().entry(id.to_owned()).or_default().clone()
    }

    fn attach(&self, pod: &PodNet) -> Result<PodLink, WireError> {
        check_pod(pod, self.settings.gateway)?;
        let slot = self.slot(&pod.id);
        let mut slot = slot.lock();
        let link = PodLink { id: pod.id.clone(), netns: self.settings.pin(&pod.id), addresses: pod.addresses.clone() };
        if let Some(attached) = slot.as_ref() {
            if attached.addresses == pod.addresses && netns::is_pinned(&link.netns) {
                self.set_host_ports(pod)?;
                return Ok(link);
            }
            self.delete_link(attached.link)?;
            *slot = None;
        }
        let spare = match self.pool.take() {
            Some(spare) => spare,
            None => Spare::make(&self.settings, &self.host)?,
        };
        let index = spare.link;
        match self.assign(spare, pod, &link.netns) {
            Ok(()) => *slot = Some(Attached { link: index, addresses: pod.addresses.clone() }),
            Err(error) => {
                // Best effort: the error that counts is the first one; what stays is removed at the next start.
                let _ = self.delete_link(index);
                let _ = netns::unpin(&link.netns);
                return Err(error);
            }
        }
        Ok(link)
    }

    /// Turns a spare namespace into the pod's.
    fn assign(&self, spare: Spare, pod: &PodNet, pin: &Path) -> Result<(), WireError> {
        let inside =
            pod.addresses.iter().map(|a| route::add_address(spare.inner, *a, route::Scope::Universe)).collect();
        spare.namespace.socket.requests(inside).map_err(|e| refused(&format!("addresses of pod {}", pod.id), &e))?;
        netns::rename(&spare.pin, pin).map_err(|e| io_error(&format!("pin {}", pin.display()), e))?;
        let mut outside = vec![route::link_alias(spare.link, &self.settings.alias(&pod.id))];
        for address in &pod.addresses {
            outside.push(route::neighbour(spare.link, *address, spare.mac));
            outside.push(route::Route::host(*address, spare.link, Some(self.settings.gateway)).add());
        }
        self.host.requests(outside).map_err(|e| refused(&format!("routes to pod {}", pod.id), &e))?;
        self.set_host_ports(pod)
    }

    /// Leads the host's ports to the pod's first address.
    fn set_host_ports(&self, pod: &PodNet) -> Result<(), WireError> {
        match pod.addresses.first() {
            Some(address) if !pod.host_ports.is_empty() => self.rules.set_host_ports(*address, &pod.host_ports),
            _ => Ok(()),
        }
    }

    fn detach(&self, id: &str) -> Result<(), WireError> {
        let slot = self.slot(id);
        let mut held = slot.lock();
        if let Some(attached) = held.as_ref() {
            for address in &attached.addresses {
                self.rules.set_host_ports(*address, &[])?;
            }
            self.doom(id, attached)?;
        }
        *held = None;
        let pin = self.settings.pin(id);
        netns::unpin(&pin).map_err(|e| io_error(&format!("remove {}", pin.display()), e))?;
        self.slots.lock().remove(id);
        Ok(())
    }

    /// Takes the pod's addresses back at once and has its interface removed soon.
    fn doom(&self, id: &str, attached: &Attached) -> Result<(), WireError> {
        let mut messages: Vec<_> =
            attached.addresses.iter().map(|a| route::Route::host(*a, attached.link, None).delete()).collect();
        messages.push(route::link_alias(attached.link, &self.settings.alias(DOOMED)));
        messages.push(route::link_group(attached.link, self.settings.doomed_group()));
        match self.host.requests(messages) {
            Err(e) if !(e.is(Errno::ENODEV) || e.is(Errno::ESRCH)) => {
                return Err(refused(&format!("routes to pod {id}"), &e));
            }
            _ => {}
        }
        // Full: a request waits already, and it covers this interface too.
        let _ = self.doomed.try_send(());
        Ok(())
    }

    /// Removes a pair of interfaces, and with it its routes. One that is gone already is fine.
    fn delete_link(&self, index: u32) -> Result<(), WireError> {
        match self.host.request(route::delete_link(index)) {
            Err(e) if !e.is(Errno::ENODEV) => Err(refused(&format!("interface {index}"), &e)),
            _ => Ok(()),
        }
    }

    fn attached(&self) -> Vec<PodLink> {
        let slots: Vec<(String, Slot)> = self.slots.lock().iter().map(|(id, s)| (id.clone(), s.clone())).collect();
        let mut links: Vec<PodLink> = slots
            .into_iter()
            .filter_map(|(id, slot)| {
                let addresses = slot.lock().as_ref()?.addresses.clone();
                Some(PodLink { netns: self.settings.pin(&id), id, addresses })
            })
            .collect();
        links.sort_by(|a, b| a.id.cmp(&b.id));
        links
    }

    fn prepare(&self) -> Result<(), WireError> {
        let s = &self.settings;
        netns::write_setting("net/ipv4/ip_forward", "1").map_err(|e| io_error("switch on forwarding", e))?;
        let anchor = self.anchor()?;
        let messages = vec![
            route::link_up(route::LOOPBACK),
            route::add_address(anchor, s.gateway, route::Scope::Host),
            route::add_address(anchor, s.cluster_dns, route::Scope::Host),
            self.service_route(anchor).add(),
        ];
        self.host.requests(messages).map_err(|e| refused("addresses and routes of the node", &e))?;
        self.rules.prepare()?;
        self.pool.request_refill();
        Ok(())
    }

    /// The interface that holds the node's own addresses: one end of a pair whose other end is down. (A dummy interface
    /// would do, but not every kernel has them; on the loopback interface the kernel cannot refuse a connection.)
    fn anchor(&self) -> Result<u32, WireError> {
        let s = &self.settings;
        let name = s.anchor();
        let other = format!("{name}x");
        let pair = route::new_pair(
            &route::End { name: &name, mac: spare::HOST_MAC },
            &route::End { name: &other, mac: spare::HOST_MAC },
            None,
            s.mtu,
        );
        match self.host.request(pair) {
            Err(e) if !e.is(Errno::EEXIST) => return Err(refused(&format!("interface {name}"), &e)),
            _ => {}
        }
        route::link(&self.host, &name).map(|link| link.index).map_err(|e| refused(&format!("interface {name}"), &e))
    }

    /// Gives the host's own connections to services a way out, on which the rules catch them; nothing ever leaves there.
    fn service_route(&self, anchor: u32) -> route::Route {
        let s = &self.settings;
        route::Route {
            to: s.service.network(),
            prefix: s.service.prefix(),
            via: None,
            link: anchor,
            source: Some(s.gateway),
            mtu: Some(s.mtu),
        }
    }

    fn remove_all(&self) -> Result<(), WireError> {
        self.pool.close();
        let ids: Vec<String> = self.slots.lock().keys().cloned().collect();
        for id in ids {
            self.detach(&id)?;
        }
        self.remove_links()?;
        self.remove_overlay()?;
        self.remove_pins()?;
        self.rules.remove()?;
        match route::link(&self.host, &self.settings.anchor()) {
            Ok(anchor) => self.delete_link(anchor.index),
            Err(e) if e.is(Errno::ENODEV) => Ok(()),
            Err(e) => Err(refused("the node's own interface", &e)),
        }
    }

    /// Removes all pods' interfaces. Some may be on their way out already, which the kernel reports in many ways: what
    /// counts is that none is left.
    fn remove_links(&self) -> Result<(), WireError> {
        let group = self.settings.doomed_group();
        let mut outcome = Ok(());
        for _ in 0..REMOVAL_ATTEMPTS {
            let links = match self.links() {
                Ok(links) if links.is_empty() => return Ok(()),
                Ok(links) => links,
                Err(error) => {
                    outcome = Err(error);
                    continue;
                }
            };
            let doomed = links.into_iter().map(|link| route::link_group(link.index, group)).collect();
            let grouped = self.host.requests(doomed).map_err(|e| refused("interfaces", &e));
            outcome = delete_doomed(&self.settings, &self.host).and(grouped);
        }
        outcome
    }

    fn remove_pins(&self) -> Result<(), WireError> {
        let dir = &self.settings.netns_dir;
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(io_error(&format!("list {}", dir.display()), e)),
        };
        for entry in entries.flatten() {
            netns::unpin(&entry.path()).map_err(|e| io_error(&format!("remove {}", entry.path().display()), e))?;
        }
        fs::remove_dir(dir).map_err(|e| io_error(&format!("remove {}", dir.display()), e))
    }
}

/// Starts the thread that removes interfaces. It ends with the instance; what it leaves, the next start removes.
fn start_removal(core: &Arc<Core>, requests: Receiver<()>) -> io::Result<()> {
    let core = Arc::downgrade(core);
    // A socket of its own: on the shared one everybody would wait behind the removal.
    let socket = Socket::open(netns::ROUTE)?;
    let work = move || {
        while let (Ok(()), Some(core)) = (requests.recv(), core.upgrade()) {
            if let Err(error) = delete_doomed(&core.settings, &socket) {
                tracing::warn!(%error, "cannot remove the interfaces of pods that are gone");
            }
        }
    };
    thread::Builder::new().name("link-removal".into()).spawn(work).map(drop)
}

fn delete_doomed(settings: &Settings, socket: &Socket) -> Result<(), WireError> {
    match socket.request(route::delete_group(settings.doomed_group())) {
        Err(error) if !error.is(Errno::ENODEV) => Err(refused("interfaces of pods that are gone", &error)),
        _ => Ok(()),
    }
}

fn check(config: &KernelConfig, mtu: u32) -> Result<Settings, WireError> {
    let mark = &config.instance;
    let plain = mark.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if mark.is_empty() || mark.len() > INSTANCE_CHARACTERS_MAX || !plain {
        return Err(WireError::Invalid(format!(
            "instance mark \"{mark}\" must be one to {INSTANCE_CHARACTERS_MAX} lower-case letters or digits"
        )));
    }
    let (pod, cluster, service): (Cidr, Cidr, Cidr) =
        (config.pod_cidr.parse()?, config.cluster_cidr.parse()?, config.service_cidr.parse()?);
    if !(pod.is_v4() && cluster.is_v4() && service.is_v4()) {
        return Err(WireError::Invalid("pods and services need IPv4 ranges; IPv6 is not supported yet".into()));
    }
    if !cluster.contains(pod.network()) {
        return Err(WireError::Invalid(format!(
            "the node's pod range {pod} is not within the cluster's range {cluster}"
        )));
    }
    if !service.contains(config.cluster_dns) {
        let dns = config.cluster_dns;
        return Err(WireError::Invalid(format!("the DNS address {dns} is not within the service range {service}")));
    }
    Ok(Settings {
        instance: mark.clone(),
        pod,
        cluster,
        service,
        cluster_dns: config.cluster_dns,
        gateway: gateway(&pod),
        node_ip: config.node_ip,
        netns_dir: config.run_dir.join("netns"),
        mtu,
    })
}

fn check_pod(pod: &PodNet, gateway: IpAddr) -> Result<(), WireError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if pod.id.is_empty() || pod.id.len() > POD_ID_CHARACTERS_MAX || !pod.id.bytes().all(plain) {
        return Err(WireError::Invalid(format!(
            "pod id \"{}\" must be one to {POD_ID_CHARACTERS_MAX} letters, digits, '-' or '_'",
            pod.id
        )));
    }
    if pod.addresses.is_empty() {
        return Err(WireError::Invalid(format!("pod {} has no address", pod.id)));
    }
    for address in &pod.addresses {
        if *address == gateway {
            return Err(WireError::Invalid(format!("pod {}: {address} is the node's own address", pod.id)));
        }
        if address.is_ipv4() != gateway.is_ipv4() {
            return Err(WireError::Invalid(format!("pod {}: {address} is not of the pod range's family", pod.id)));
        }
    }
    Ok(())
}

/// The packet size that fits through the node's own interface with the overlay's header.
fn mtu_of_node(host: &Socket, node_ip: IpAddr) -> Result<u32, WireError> {
    let addresses = route::addresses(host).map_err(|e| refused("addresses", &e))?;
    let links = route::links(host).map_err(|e| refused("interfaces", &e))?;
    let own = addresses.iter().find(|(_, address)| *address == node_ip).map(|(index, _)| *index);
    let mtu =
        links.iter().find(|l| Some(l.index) == own && l.index != route::LOOPBACK).map_or(DEFAULT_MTU_BYTES, |l| l.mtu);
    Ok(mtu.saturating_sub(OVERLAY_BYTES).max(1280))
}

fn refused(object: &str, error: &Refused) -> WireError {
    WireError::Kernel { object: object.to_owned(), cause: error.to_string() }
}

fn io_error(context: &str, source: io::Error) -> WireError {
    WireError::Io { context: context.to_owned(), source }
}

impl KernelNetwork {
    /// Runs kernel work beside the async threads.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Core) -> Result<T, WireError> + Send + 'static,
    ) -> Result<T, WireError> {
        let core = self.core.clone();
        match tokio::task::spawn_blocking(move || work(&core)).await {
            Ok(result) => result,
            Err(error) => Err(io_error("change the network", io::Error::other(error))),
        }
    }
}

#[async_trait]
impl Network for KernelNetwork {
    async fn prepare(&self) -> Result<(), WireError> {
        let events = watch::events().map_err(|e| io_error("listen to changes of the packet filter", e))?;
        self.run(Core::prepare).await?;
        let task = tokio::spawn(watch::keep(Arc::downgrade(&self.core), events));
        *self.watch.lock() = Some(AbortOnDrop(task));
        Ok(())
    }

    async fn attach(&self, pod: &PodNet) -> Result<PodLink, WireError> {
        let pod = pod.clone();
        self.run(move |core| core.attach(&pod)).await
    }

    async fn detach(&self, id: &str) -> Result<(), WireError> {
        let id = id.to_owned();
        self.run(move |core| core.detach(&id)).await
    }

    async fn attached(&self) -> Result<Vec<PodLink>, WireError> {
        self.run(|core| Ok(core.attached())).await
    }

    async fn set_services(&self, table: &ServiceTable) -> Result<(), WireError> {
        let table = table.clone();
        self.run(move |core| core.rules.set_services(&table)).await
    }

    async fn set_peers(&self, peers: &[Peer]) -> Result<(), WireError> {
        let peers = peers.to_vec();
        self.run(move |core| core.set_peers(&peers)).await
    }

    async fn remove_all(&self) -> Result<(), WireError> {
        *self.watch.lock() = None;
        self.run(Core::remove_all).await
    }
}
