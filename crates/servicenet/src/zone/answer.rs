//! A question -> what the index says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::index::{EndpointView, Form, PortView, ServiceView, SliceView, Zone};
use super::{Answer, Data, Outcome, QuestionType, Record, SPECIFICATION, reverse};

/// Aliases that lead to aliases are followed this far within the zone.
const ALIASES_MAX: usize = 8;

/// What a name below the zone means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'a> {
    Apex,
    /// A name that only has names below it.
    Inner,
    Version,
    Server,
    Service {
        namespace: &'a str,
        service: &'a str,
        part: Part<'a>,
    },
    Pod(IpAddr),
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'a> {
    Whole,
    Endpoint(&'a str),
    Port {
        name: &'a str,
        protocol: &'a str,
    },
    /// `_tcp` alone.
    Protocol,
}

impl Zone {
    /// Answers a question. `name` is lower-case and without the last dot.
    pub fn answer(&self, name: &str, kind: QuestionType) -> Outcome {
        if let Some(address) = reverse::address(name) {
            return self.reverse(address, kind);
        }
        match self.below(name) {
            Some(rest) => self.forward(rest, kind, 0),
            None => Outcome::NotOurs,
        }
    }

    /// The part of a name in front of the zone's; empty for the zone itself.
    fn below<'a>(&self, name: &'a str) -> Option<&'a str> {
        let rest = name.strip_suffix(self.domain.as_str())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_suffix('.') }
    }

    fn forward(&self, rest: &str, kind: QuestionType, depth: usize) -> Outcome {
        match self.meaning(rest) {
            Meaning::Nothing => Outcome::NoSuchName,
            Meaning::Inner => Outcome::Answer(Answer::default()),
            Meaning::Apex => self.apex(kind),
            Meaning::Version if matches!(kind, QuestionType::Txt | QuestionType::Any) => {
                only(vec![asked(Data::Txt(SPECIFICATION.into()))])
            }
            Meaning::Version => Outcome::Answer(Answer::default()),
            Meaning::Server => only(self.server.into_iter().filter(|a| fits(*a, kind)).map(at_asked).collect()),
            Meaning::Pod(address) => only(if fits(address, kind) { vec![at_asked(address)] } else { Vec::new() }),
            Meaning::Service { namespace, service, part } => match self.find(namespace, service) {
                None => Outcome::NoSuchName,
                Some((view, slices)) => self.service(&Found { namespace, service, view, slices }, part, kind, depth),
            },
        }
    }

    fn meaning<'a>(&self, rest: &'a str) -> Meaning<'a> {
        let mut labels = rest.rsplit('.').filter(|_| !rest.is_empty());
        let parts = [labels.next(), labels.next(), labels.next(), labels.next(), labels.next(), labels.next()];
        match parts {
            [None, ..] => Meaning::Apex,
            [Some("svc" | "pod"), None, ..] => Meaning::Inner,
            [Some("dns-version"), None, ..] => Meaning::Version,
            [Some("dns"), None, ..] if self.server.is_some() => Meaning::Inner,
            [Some("dns"), Some("ns"), None, ..] if self.server.is_some() => Meaning::Server,
            [Some("svc" | "pod"), Some(namespace), None, ..] if self.has_namespace(namespace) => Meaning::Inner,
            [Some("pod"), Some(namespace), Some(label), None, ..] if self.has_namespace(namespace) => {
                reverse::undashed(label).map_or(Meaning::Nothing, Meaning::Pod)
            }
            [Some("svc"), Some(namespace), Some(service), None, ..] => {
                Meaning::Service { namespace, service, part: Part::Whole }
            }
            [Some("svc"), Some(namespace), Some(service), Some(label), None, _] => {
                let part = if label.starts_with('_') { Part::Protocol } else { Part::Endpoint(label) };
                Meaning::Service { namespace, service, part }
            }
            [Some("svc"), Some(namespace), Some(service), Some(protocol), Some(name), None] => {
                match (name.strip_prefix('_'), protocol.strip_prefix('_')) {
                    (Some(name), Some(protocol)) => {
                        Meaning::Service { namespace, service, part: Part::Port { name, protocol } }
                    }
                    _ => Meaning::Nothing,
                }
            }
            _ => Meaning::Nothing,
        }
    }

    fn apex(&self, kind: QuestionType) -> Outcome {
        let server = format!("ns.dns.{}", self.domain);
        match kind {
            QuestionType::Soa => only(vec![asked(Data::Soa)]),
            QuestionType::Ns | QuestionType::Any if self.server.is_some() => {
                let additional = self.server.map(|a| Record { owner: Some(server.clone()), data: Data::address(a) });
                Outcome::Answer(Answer {
                    records: vec![asked(Data::Ns(server))],
                    additional: additional.into_iter().collect(),
                    follow: None,
                })
            }
            _ => Outcome::Answer(Answer::default()),
        }
    }

    fn service(&self, found: &Found<'_>, part: Part<'_>, kind: QuestionType, depth: usize) -> Outcome {
        if let Form::Alias(target) = &found.view.form {
            return match part {
                Part::Whole => self.alias(target, kind, depth),
                Part::Endpoint(_) | Part::Port { .. } | Part::Protocol => Outcome::NoSuchName,
            };
        }
        let base = format!("{}.{}.svc.{}", found.service, found.namespace, self.domain);
        match (part, &found.view.form) {
            (Part::Protocol, _) => Outcome::Answer(Answer::default()),
            (Part::Whole | Part::Port { .. }, Form::Virtual(addresses)) => {
                let ports: Vec<&PortView> = found.view.ports.iter().filter(|p| chosen(p, part)).collect();
                if ports.is_empty() && part != Part::Whole {
                    return Outcome::NoSuchName;
                }
                virtual_records(addresses, &ports, &base, kind)
            }
            (Part::Whole | Part::Port { .. } | Part::Endpoint(_), _) => {
                let members = members(found.slices, part);
                if members.is_empty() { Outcome::NoSuchName } else { endpoint_records(&members, &base, kind) }
            }
        }
    }

    fn alias(&self, target: &str, kind: QuestionType, depth: usize) -> Outcome {
        let mut answer = Answer { records: vec![asked(Data::Cname(target.to_owned()))], ..Answer::default() };
        if !matches!(kind, QuestionType::A | QuestionType::Aaaa) || depth >= ALIASES_MAX {
            return Outcome::Answer(answer);
        }
        match self.below(target).map(|rest| self.forward(rest, kind, depth + 1)) {
            None => answer.follow = Some(target.to_owned()),
            Some(Outcome::Answer(next)) => {
                let named = |mut record: Record| {
                    record.owner.get_or_insert_with(|| target.to_owned());
                    record
                };
                answer.records.extend(next.records.into_iter().map(named));
                answer.follow = next.follow;
            }
            Some(Outcome::NoSuchName | Outcome::NotOurs) => {}
        }
        Outcome::Answer(answer)
    }

    fn reverse(&self, address: IpAddr, kind: QuestionType) -> Outcome {
        let names = self.names_of(address);
        if names.is_empty() {
            let ours = self.ranges.iter().any(|range| reverse::within(*range, address));
            return if ours { Outcome::NoSuchName } else { Outcome::NotOurs };
        }
        match kind {
            QuestionType::Ptr | QuestionType::Any => only(names.into_iter().map(|n| asked(Data::Ptr(n))).collect()),
            _ => Outcome::Answer(Answer::default()),
        }
    }

    /// The service whose cluster address it is; else the host names of the endpoint.
    fn names_of(&self, address: IpAddr) -> Vec<String> {
        let places = self.places(address);
        if let Some(place) = places.iter().find(|p| p.slice.is_none()) {
            return vec![format!("{}.{}.svc.{}", place.service, place.namespace, self.domain)];
        }
        let mut names = Vec::new();
        for place in places {
            let Some((_, slices)) = self.find(&place.namespace, &place.service) else { continue };
            let Some(slice) = place.slice.as_ref().and_then(|name| slices.get(name)) else { continue };
            for endpoint in slice.endpoints.iter().filter(|e| e.named && e.address == address) {
                names.push(format!("{}.{}.{}.svc.{}", endpoint.label, place.service, place.namespace, self.domain));
            }
        }
        names.sort();
        names.dedup();
        names
    }
}

/// A service that was asked for.
struct Found<'a> {
    namespace: &'a str,
    service: &'a str,
    view: &'a ServiceView,
    slices: &'a BTreeMap<String, SliceView>,
}

/// One endpoint with the ports that were asked for.
struct Member<'a> {
    endpoint: &'a EndpointView,
    ports: Vec<&'a PortView>,
}

fn members<'a>(slices: &'a BTreeMap<String, SliceView>, part: Part<'_>) -> Vec<Member<'a>> {
    let mut members = Vec::new();
    for slice in slices.values() {
        let ports: Vec<&PortView> = slice.ports.iter().filter(|p| chosen(p, part)).collect();
        if ports.is_empty() && matches!(part, Part::Port { .. }) {
            continue;
        }
        let of = |endpoint| Member { endpoint, ports: ports.clone() };
        match part {
            Part::Endpoint(label) => {
                let places = slice.by_label.get(label).into_iter().flatten();
                members.extend(places.filter_map(|at| slice.endpoints.get(*at)).map(of));
            }
            Part::Whole | Part::Port { .. } | Part::Protocol => members.extend(slice.endpoints.iter().map(of)),
        }
    }
    members
}

fn chosen(port: &PortView, part: Part<'_>) -> bool {
    match part {
        Part::Port { name, protocol } => port.name == name && port.protocol == protocol,
        Part::Whole | Part::Endpoint(_) | Part::Protocol => true,
    }
}

fn virtual_records(addresses: &[IpAddr], ports: &[&PortView], base: &str, kind: QuestionType) -> Outcome {
    if kind != QuestionType::Srv {
        return only(addresses.iter().copied().filter(|a| fits(*a, kind)).map(at_asked).collect());
    }
    let weight = weight(ports.len());
    let records = ports.iter().map(|port| asked(srv(port, weight, base.to_owned()))).collect();
    let additional =
        addresses.iter().map(|a| Record { owner: Some(base.to_owned()), data: Data::address(*a) }).collect();
    Outcome::Answer(Answer { records, additional, follow: None })
}

fn endpoint_records(members: &[Member<'_>], base: &str, kind: QuestionType) -> Outcome {
    if kind != QuestionType::Srv {
        let mut addresses: Vec<IpAddr> =
            members.iter().map(|m| m.endpoint.address).filter(|a| fits(*a, kind)).collect();
        // The same pod may be in several slices, one for each set of ports.
        addresses.sort_unstable();
        addresses.dedup();
        return only(addresses.into_iter().map(at_asked).collect());
    }
    let weight = weight(members.iter().map(|m| m.ports.len()).sum());
    let mut answer = Answer::default();
    for member in members {
        let target = format!("{}.{base}", member.endpoint.label);
        answer.records.extend(member.ports.iter().map(|port| asked(srv(port, weight, target.clone()))));
        if !member.ports.is_empty() {
            answer.additional.push(Record { owner: Some(target), data: Data::address(member.endpoint.address) });
        }
    }
    Outcome::Answer(answer)
}

/// All targets are equal; the weights add up to about 100.
fn weight(count: usize) -> u16 {
    u16::try_from(100 / count.max(1)).unwrap_or(1).max(1)
}

fn srv(port: &PortView, weight: u16, target: String) -> Data {
    Data::Srv { priority: 0, weight, port: port.number, target }
}

fn fits(address: IpAddr, kind: QuestionType) -> bool {
    match kind {
        QuestionType::A => address.is_ipv4(),
        QuestionType::Aaaa => address.is_ipv6(),
        QuestionType::Any => true,
        QuestionType::Srv
        | QuestionType::Ptr
        | QuestionType::Txt
        | QuestionType::Cname
        | QuestionType::Soa
        | QuestionType::Ns
        | QuestionType::Other => false,
    }
}

fn asked(data: Data) -> Record {
    Record { owner: None, data }
}

fn at_asked(address: IpAddr) -> Record {
    asked(Data::address(address))
}

fn only(records: Vec<Record>) -> Outcome {
    Outcome::Answer(Answer { records, ..Answer::default() })
}
