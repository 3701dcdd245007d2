//! A name -> the answer, from an index that follows services, slices and namespaces one by one.
//!
//! Upstream: the "Kubernetes DNS-Based Service Discovery" specification, version 1.1.0, and what CoreDNS does where that is
//! silent. Nothing is cached: what the index says at the moment of the question is the answer.

mod answer;
mod index;
mod reverse;
#[cfg(test)]
mod stories;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use index::Zone;

/// How long an answer may be kept, in seconds: upstream's default.
pub const TTL_SECONDS: u32 = 5;
/// How long "there is no such name" may be kept: not at all, since a pod's name comes into being at any moment.
pub const NEGATIVE_TTL_SECONDS: u32 = 0;
/// The version of the specification that `dns-version` gives.
pub const SPECIFICATION: &str = "1.1.0";

/// What the zone is.
#[derive(Clone, Debug)]
pub struct ZoneConfig {
    /// For instance `cluster.local`.
    pub domain: String,
    /// The DNS server's own address, for the name `ns.dns.<domain>`.
    pub server: Option<IpAddr>,
    /// Ranges whose reverse names are ours even when nothing has the address: network address and prefix length.
    pub ranges: Vec<(IpAddr, u8)>,
}

/// The type of a question, as far as this zone has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuestionType {
    A,
    Aaaa,
    Srv,
    Ptr,
    Txt,
    Cname,
    Soa,
    Ns,
    Any,
    /// Everything else: the name may exist, but never with such records.
    Other,
}

/// What to do with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This zone knows: records, or an empty list for "the name exists, but has none of this type".
    Answer(Answer),
    /// This zone knows that the name does not exist.
    NoSuchName,
    /// The name is of another zone.
    NotOurs,
}

/// Records for an answer. With an empty `records` the server adds the zone's SOA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub records: Vec<Record>,
    pub additional: Vec<Record>,
    /// The question goes on with this name, which the last record points to and which is not of this zone.
    pub follow: Option<String>,
}

/// A record. Names are full and lower-case, without the last dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `None`: the name of the question, as it was asked.
    pub owner: Option<String>,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Srv { priority: u16, weight: u16, port: u16, target: String },
    Ptr(String),
    Txt(String),
    Cname(String),
    Ns(String),
    Soa,
}

impl Data {
    /// The address record for `ip`.
    pub fn address(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::A(ip),
            IpAddr::V6(ip) => Self::Aaaa(ip),
        }
    }
}
