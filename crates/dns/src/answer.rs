//! A packet -> the answer's packet, or what has to be asked elsewhere first. No IO.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use stead_servicenet::zone::{
    Answer, Data, NEGATIVE_TTL_SECONDS, Outcome, QuestionType, Record as ZoneRecord, TTL_SECONDS,
};

use crate::SharedZone;

/// The largest packet that we send by UDP, and that we offer to take in.
pub(crate) const UDP_BYTES_MAX: u16 = 4096;
/// What a client without EDNS takes.
const UDP_BYTES_PLAIN: u16 = 512;
/// Extended error code "no reachable authority" of RFC 8914.
const NO_REACHABLE_AUTHORITY: u16 = 22;
const EXTENDED_ERROR: u16 = 15;

/// By which transport a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// What is to be done about a packet.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing: it is no question.
    Ignore,
    Send(Vec<u8>),
    /// The name is of another zone: pass the packet on.
    Forward(Box<Message>),
    /// Our part of the answer is ready; the rest begins with this name of another zone.
    Follow(Box<Message>, Box<Message>),
}

/// Decides about one packet.
pub(crate) fn step(packet: &[u8], zone: &SharedZone, transport: Transport) -> Step {
    let Ok(request) = Message::from_vec(packet) else { return malformed(packet, transport) };
    if request.metadata.message_type != MessageType::Query {
        return Step::Ignore;
    }
    if let Some(code) = refusal(&request) {
        return Step::Send(encode(&plain(&request, code), &request, transport));
    }
    let query = &request.queries[0];
    let name = lower(query.name());
    match zone.answer(&name, question_type(query.query_type())) {
        Outcome::NotOurs => Step::Forward(Box::new(request)),
        Outcome::NoSuchName => {
            let code = if zone.is_complete() { ResponseCode::NXDomain } else { ResponseCode::ServFail };
            Step::Send(encode(&negative(&request, code, zone), &request, transport))
        }
        Outcome::Answer(answer) => known(request, answer, zone, transport),
    }
}

fn known(request: Message, mut answer: Answer, zone: &SharedZone, transport: Transport) -> Step {
    if answer.records.is_empty() {
        let code = if zone.is_complete() { ResponseCode::NoError } else { ResponseCode::ServFail };
        return Step::Send(encode(&negative(&request, code, zone), &request, transport));
    }
    rotate(&mut answer.records, request.metadata.id);
    let follow = answer.follow.take();
    let response = positive(&request, answer, zone);
    let target = follow.as_deref().map(name_of);
    match (response, target) {
        (Some(response), None) => Step::Send(encode(&response, &request, transport)),
        (Some(response), Some(Some(target))) => {
            let mut question = Message::query();
            question.metadata.recursion_desired = true;
            question.add_query(Query::query(target, request.queries[0].query_type()));
            question.set_edns(edns());
            Step::Follow(Box::new(question), Box::new(response))
        }
        // A name that is too long for DNS, by an external name or a long domain.
        (None, _) | (_, Some(None)) => {
            Step::Send(encode(&plain(&request, ResponseCode::ServFail), &request, transport))
        }
    }
}

/// Clients that take the first address only are spread over all of them.
fn rotate(records: &mut [ZoneRecord], by: u16) {
    let addresses = records.iter().all(|r| r.owner.is_none() && matches!(r.data, Data::A(_) | Data::Aaaa(_)));
    if addresses {
        records.rotate_left(usize::from(by) % records.len());
    }
}

/// Why a well-formed request is not answered.
fn refusal(request: &Message) -> Option<ResponseCode> {
    if request.metadata.op_code != OpCode::Query {
        return Some(ResponseCode::NotImp);
    }
    if request.queries.len() != 1 {
        return Some(ResponseCode::FormErr);
    }
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Some(ResponseCode::BADVERS);
    }
    (request.queries[0].query_class() != DNSClass::IN).then_some(ResponseCode::Refused)
}

fn malformed(packet: &[u8], transport: Transport) -> Step {
    match packet {
        [high, low, flags, ..] if flags & 0x80 == 0 && packet.len() >= 12 => {
            let id = u16::from_be_bytes([*high, *low]);
            let message = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
            Step::Send(encode(&message, &message, transport))
        }
        _ => Step::Ignore,
    }
}

fn question_type(kind: RecordType) -> QuestionType {
    match kind {
        RecordType::A => QuestionType::A,
        RecordType::AAAA => QuestionType::Aaaa,
        RecordType::SRV => QuestionType::Srv,
        RecordType::PTR => QuestionType::Ptr,
        RecordType::TXT => QuestionType::Txt,
        RecordType::CNAME => QuestionType::Cname,
        RecordType::SOA => QuestionType::Soa,
        RecordType::NS => QuestionType::Ns,
        RecordType::ANY => QuestionType::Any,
        _ => QuestionType::Other,
    }
}

/// The name as the zone wants it. A dot within a label cannot be one of our names.
fn lower(name: &Name) -> String {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(
            label.iter().map(|b| if *b == b'.' || !b.is_ascii() { '?' } else { char::from(b.to_ascii_lowercase()) }),
        );
    }
    text
}

fn name_of(text: &str) -> Option<Name> {
    Name::from_labels(text.split('.').map(str::as_bytes)).ok()
}

/// A response with the request's question and flags, and no records.
pub(crate) fn plain(request: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        response.set_edns(edns());
    }
    response
}

/// "Try again", with the reason in words for those who can show it.
pub(crate) fn failure(request: &Message, reason: &str) -> Message {
    let mut response = plain(request, ResponseCode::ServFail);
    if let Some(edns) = response.edns.as_mut() {
        let mut value = NO_REACHABLE_AUTHORITY.to_be_bytes().to_vec();
        value.extend_from_slice(reason.as_bytes());
        edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, value));
    }
    response
}

fn edns() -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX);
    edns
}

fn negative(request: &Message, code: ResponseCode, zone: &SharedZone) -> Message {
    let mut response = plain(request, code);
    response.metadata.authoritative = code != ResponseCode::ServFail;
    if let (true, Some((owner, soa))) = (response.metadata.authoritative, authority(zone)) {
        response.add_authority(Record::from_rdata(owner, NEGATIVE_TTL_SECONDS, soa));
    }
    response
}

/// The zone's SOA; its serial number never matters, since nobody transfers the zone.
fn authority(zone: &SharedZone) -> Option<(Name, RData)> {
    let domain = zone.domain();
    let soa = SOA::new(
        name_of(&format!("ns.dns.{domain}"))?,
        name_of(&format!("hostmaster.{domain}"))?,
        1,
        7200,
        1800,
        86400,
        NEGATIVE_TTL_SECONDS,
    );
    Some((name_of(&domain)?, RData::SOA(soa)))
}

fn positive(request: &Message, answer: Answer, zone: &SharedZone) -> Option<Message> {
    let asked = request.queries[0].name();
    let mut response = plain(request, ResponseCode::NoError);
    response.metadata.authoritative = true;
    for record in answer.records {
        response.add_answer(record_of(record, asked, zone)?);
    }
    for record in answer.additional {
        response.add_additional(record_of(record, asked, zone)?);
    }
    Some(response)
}

fn record_of(record: ZoneRecord, asked: &Name, zone: &SharedZone) -> Option<Record> {
    let owner = match &record.owner {
        None => asked.clone(),
        Some(name) => name_of(name)?,
    };
    let data = match record.data {
        Data::A(ip) => RData::A(A(ip)),
        Data::Aaaa(ip) => RData::AAAA(AAAA(ip)),
        Data::Srv { priority, weight, port, target } => RData::SRV(SRV::new(priority, weight, port, name_of(&target)?)),
        Data::Ptr(name) => RData::PTR(PTR(name_of(&name)?)),
        Data::Txt(text) => RData::TXT(TXT::new(vec![text])),
        Data::Cname(name) => RData::CNAME(CNAME(name_of(&name)?)),
        Data::Ns(name) => RData::NS(NS(name_of(&name)?)),
        Data::Soa => authority(zone)?.1,
    };
    Some(Record::from_rdata(owner, TTL_SECONDS, data))
}

/// Adds what the other zone's server said about the alias' target.
pub(crate) fn merge(mut base: Message, rest: Option<Message>) -> Message {
    match rest {
        Some(rest) => {
            base.metadata.response_code = rest.metadata.response_code;
            base.add_answers(rest.answers);
        }
        None => base.metadata.response_code = ResponseCode::ServFail,
    }
    base
}

/// The packet of a response. What does not fit is left out, and the packet says so.
pub(crate) fn encode(response: &Message, request: &Message, transport: Transport) -> Vec<u8> {
    let limit = match (transport, &request.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => UDP_BYTES_PLAIN,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(UDP_BYTES_PLAIN, UDP_BYTES_MAX),
    };
    let mut bytes = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    match response.emit(&mut encoder) {
        Ok(()) => bytes,
        Err(error) => {
            tracing::warn!(%error, "cannot encode a DNS answer");
            let failed = Message::error_msg(request.metadata.id, OpCode::Query, ResponseCode::ServFail);
            failed.to_vec().unwrap_or_default()
        }
    }
}
