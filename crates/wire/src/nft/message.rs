//! nftables messages: tables, chains, sets, elements, rules and the expressions that rules are made of.
//!
//! Layouts and numbers: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h. All numbers travel in network order.

use crate::netlink::{Attrs, F_CREATE, Msg};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DEL_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DEL_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const GET_ELEMENTS: u16 = 13;
const DEL_ELEMENTS: u16 = 14;
const F_APPEND: u16 = 0x800;
/// `NFPROTO_IPV4`.
const FAMILY: u8 = 2;
const VERDICT_DATA: u32 = 0xffff_ff00;
const LIST_ITEM: u16 = 1;
/// Elements in one message: an attribute holds 64 KiB, an element with a chain's name takes less than 128 bytes.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// Register number of the verdict, and of the n-th 32-bit register.
const VERDICT: u32 = 0;
const fn register(n: u32) -> u32 {
    8 + n
}

fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn message(kind: u16, flags: u16) -> Msg {
    message_of(FAMILY, kind, flags)
}

fn message_of(family: u8, kind: u16, flags: u16) -> Msg {
    Msg::new(SUBSYSTEM << 8 | kind, flags, &header(family, 0))
}

pub(super) fn begin() -> Msg {
    Msg::new(BATCH_BEGIN, 0, &header(FAMILY, SUBSYSTEM))
}

pub(super) fn end() -> Msg {
    Msg::new(BATCH_END, 0, &header(FAMILY, SUBSYSTEM))
}

pub(super) fn new_table(table: &str) -> Msg {
    message(NEW_TABLE, F_CREATE).text(1, table)
}

pub(super) fn delete_table(table: &str) -> Msg {
    message(DEL_TABLE, 0).text(1, table)
}

/// Where a chain hangs in the packet's way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    /// `nat` or `filter`.
    pub(super) kind: &'static str,
    /// 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub(super) number: u32,
    pub(super) priority: i32,
}

pub(super) fn new_chain(table: &str, name: &str, hook: Option<Hook>) -> Msg {
    let chain = message(NEW_CHAIN, F_CREATE).text(1, table).text(3, name);
    match hook {
        None => chain,
        Some(hook) => {
            chain.nest(4, Attrs::new().be32(1, hook.number).attr(2, &hook.priority.to_be_bytes())).text(7, hook.kind)
        }
    }
}

/// Removes a chain with its rules.
pub(super) fn delete_chain(table: &str, name: &str) -> Msg {
    message(DEL_CHAIN, 0).text(1, table).text(3, name)
}

pub(super) fn list_chains() -> Msg {
    message(GET_CHAIN, 0)
}

/// What a set maps its keys to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maps {
    Nothing,
    Verdict,
    /// An address and a port.
    Backend,
}

/// A set or map. Keys are lists of 4-byte fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetForm {
    pub(super) name: &'static str,
    pub(super) key: &'static [Field],
    pub(super) maps: Maps,
    /// Filled by rules, with elements that expire: how many there may be.
    pub(super) dynamic: Option<u32>,
}

/// The kinds of fields, numbered as the `nft` program does, for its listings only.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    Number = 4,
    Address = 7,
    Protocol = 12,
    Port = 13,
}

fn listing_type(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |all, field| all << 6 | *field as u32)
}

pub(super) fn new_set(table: &str, form: &SetForm, id: u32) -> Msg {
    let flags = if form.maps == Maps::Nothing { 0 } else { 8 } | if form.dynamic.is_some() { 0x30 } else { 0 };
    let key_length = u32::try_from(form.key.len() * 4).expect("keys have a few fields");
    let set = message(NEW_SET, F_CREATE)
        .text(1, table)
        .text(2, form.name)
        .attr(3, &u32::to_be_bytes(flags))
        .attr(4, &listing_type(form.key).to_be_bytes())
        .attr(5, &key_length.to_be_bytes())
        .attr(10, &id.to_be_bytes());
    let set = match form.maps {
        Maps::Nothing => set,
        Maps::Verdict => set.attr(6, &VERDICT_DATA.to_be_bytes()),
        Maps::Backend => {
            set.attr(6, &listing_type(&[Field::Address, Field::Port]).to_be_bytes()).attr(7, &8u32.to_be_bytes())
        }
    };
    match form.dynamic {
        None => set,
        Some(size) => set.nest(9, Attrs::new().be32(1, size)),
    }
}

/// What an element leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Nothing,
    Chain(String),
    Value(Vec<u8>),
}

type Elements<'a> = Vec<(&'a [u8], &'a Target)>;

pub(super) fn new_elements(table: &str, set: &str, elements: &Elements<'_>) -> Vec<Msg> {
    elements_messages(NEW_ELEMENTS, F_CREATE, table, set, elements, true)
}

pub(super) fn delete_elements(table: &str, set: &str, elements: &Elements<'_>) -> Vec<Msg> {
    elements_messages(DEL_ELEMENTS, 0, table, set, elements, false)
}

fn elements_messages(
    kind: u16,
    flags: u16,
    table: &str,
    set: &str,
    elements: &Elements<'_>,
    with_data: bool,
) -> Vec<Msg> {
    elements
        .chunks(ELEMENTS_PER_MESSAGE)
        .map(|chunk| {
            let mut list = Attrs::new();
            for (key, target) in chunk {
                let mut item = Attrs::new().nest(1, Attrs::new().attr(1, key));
                if with_data {
                    item = with_target(item, target);
                }
                list.push(LIST_ITEM, &item);
            }
            message(kind, flags).text(1, table).text(2, set).nest(3, list)
        })
        .collect()
}

fn with_target(item: Attrs, target: &Target) -> Attrs {
    match target {
        Target::Nothing => item,
        Target::Chain(chain) => item.nest(2, verdict_data(GOTO, Some(chain))),
        Target::Value(bytes) => item.nest(2, Attrs::new().attr(1, bytes)),
    }
}

pub(super) fn list_elements(table: &str, set: &str) -> Msg {
    message(GET_ELEMENTS, 0).text(1, table).text(2, set)
}

const GOTO: i32 = -4;
const JUMP: i32 = -3;
const DROP: i32 = 0;

fn verdict_data(code: i32, chain: Option<&str>) -> Attrs {
    let verdict = Attrs::new().attr(1, &code.to_be_bytes());
    let verdict = match chain {
        Some(chain) => verdict.text(2, chain),
        None => verdict,
    };
    Attrs::new().nest(2, verdict)
}

pub(super) fn new_rule(table: &str, chain: &str, expressions: &[Expression]) -> Msg {
    new_rule_in(&NewRule { family: FAMILY, table, chain }, F_APPEND, expressions, None)
}

/// Flags of a rule that goes to the head of its chain.
pub(super) const F_REQUEST_ONLY: u16 = 0;

/// Where a rule goes.
#[derive(Debug)]
pub(super) struct NewRule<'a> {
    pub(super) family: u8,
    pub(super) table: &'a str,
    pub(super) chain: &'a str,
}

/// A rule in any table, with a comment by which it is known again.
pub(super) fn new_rule_in(place: &NewRule<'_>, flags: u16, expressions: &[Expression], mark: Option<&[u8]>) -> Msg {
    let mut list = Attrs::new();
    for expression in expressions {
        list.push(LIST_ITEM, &Attrs::new().text(1, expression.name).nest(2, expression.data.clone()));
    }
    let rule =
        message_of(place.family, NEW_RULE, F_CREATE | flags).text(1, place.table).text(2, place.chain).nest(4, list);
    match mark {
        Some(mark) => rule.attr(7, mark),
        None => rule,
    }
}

pub(super) fn list_rules(family: u8, table: &str, chain: &str) -> Msg {
    message_of(family, GET_RULE, 0).text(1, table).text(2, chain)
}

pub(super) fn delete_rule(family: u8, table: &str, chain: &str, handle: &[u8]) -> Msg {
    message_of(family, DEL_RULE, 0).text(1, table).text(2, chain).attr(3, handle)
}

/// The chains of all families.
pub(super) fn list_chains_of_all() -> Msg {
    message_of(0, GET_CHAIN, 0)
}

/// One step of a rule.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    name: &'static str,
    data: Attrs,
}

fn expression(name: &'static str, data: Attrs) -> Expression {
    Expression { name, data }
}

fn payload(base: u32, offset: u32, length: u32, to: u32) -> Expression {
    expression("payload", Attrs::new().be32(1, register(to)).be32(2, base).be32(3, offset).be32(4, length))
}

/// Loads the packet's source address.
pub(super) fn source(to: u32) -> Expression {
    payload(1, 12, 4, to)
}

/// Loads the packet's destination address.
pub(super) fn destination(to: u32) -> Expression {
    payload(1, 16, 4, to)
}

/// Loads the destination port; TCP, UDP and SCTP have it in the same place.
pub(super) fn port(to: u32) -> Expression {
    payload(2, 2, 2, to)
}

pub(super) fn protocol(to: u32) -> Expression {
    expression("meta", Attrs::new().be32(1, register(to)).be32(2, 16))
}

fn compare(from: u32, equal: bool, value: &[u8]) -> Expression {
    let operation = u32::from(!equal);
    let value = Attrs::new().attr(1, value);
    expression("cmp", Attrs::new().be32(1, register(from)).be32(2, operation).nest(3, value))
}

/// Goes on when the name of the interface that the packet came in by begins with `prefix`.
pub(super) fn incoming(prefix: &str) -> [Expression; 2] {
    [expression("meta", Attrs::new().be32(1, register(0)).be32(2, 6)), compare(0, true, prefix.as_bytes())]
}

/// Goes on when the name of the interface that the packet leaves by begins with `prefix`, or when it does not.
pub(super) fn outgoing(prefix: &str, begins: bool) -> [Expression; 2] {
    [expression("meta", Attrs::new().be32(1, register(0)).be32(2, 7)), compare(0, begins, prefix.as_bytes())]
}

/// Goes on when the packet leaves by exactly this interface, or when it does not.
pub(super) fn outgoing_exactly(name: &str, equal: bool) -> [Expression; 2] {
    let mut bytes = [0u8; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    [expression("meta", Attrs::new().be32(1, register(0)).be32(2, 7)), compare(0, equal, &bytes)]
}

/// Goes on when the loaded address is in the range, or when it is not.
pub(super) fn in_range(load: Expression, network: &[u8], mask: &[u8], inside: bool) -> [Expression; 3] {
    let length = u32::try_from(mask.len()).expect("an address is short");
    let mask = Attrs::new()
        .be32(1, register(0))
        .be32(2, register(0))
        .be32(3, length)
        .nest(4, Attrs::new().attr(1, mask))
        .nest(5, Attrs::new().attr(1, &vec![0; mask.len()]));
    [load, expression("bitwise", mask), compare(0, inside, network)]
}

/// Goes on when the packet's destination is not this address.
pub(super) fn destination_is_not(address: &[u8]) -> [Expression; 2] {
    [destination(0), compare(0, false, address)]
}

/// Goes on when the destination is one of this machine's addresses.
pub(super) fn destination_is_local() -> [Expression; 2] {
    const ADDRESS_TYPE: u32 = 3;
    const BY_DESTINATION: u32 = 2;
    const LOCAL: u32 = 2;
    let fib = Attrs::new().be32(1, register(0)).be32(2, ADDRESS_TYPE).be32(3, BY_DESTINATION);
    [expression("fib", fib), compare(0, true, &LOCAL.to_ne_bytes())]
}

/// Goes on when the connection's destination was changed by a rule.
pub(super) fn was_redirected() -> [Expression; 3] {
    const STATUS: u32 = 2;
    const REDIRECTED: u32 = 1 << 5;
    let load = expression("ct", Attrs::new().be32(1, register(0)).be32(2, STATUS));
    let [load, mask, _] = in_range(load, &[], &REDIRECTED.to_ne_bytes(), true);
    [load, mask, compare(0, false, &[0; 4])]
}

/// Puts a constant into a register.
pub(super) fn constant(to: u32, value: &[u8]) -> Expression {
    expression("immediate", Attrs::new().be32(1, register(to)).nest(2, Attrs::new().attr(1, value)))
}

/// Puts a random number below `modulus` into a register.
pub(super) fn random(to: u32, modulus: u32) -> Expression {
    const RANDOM: u32 = 1;
    expression("numgen", Attrs::new().be32(1, register(to)).be32(2, modulus).be32(3, RANDOM))
}

/// Goes on when the set has the key that begins in `from`.
pub(super) fn contained(set: &str, from: u32) -> Expression {
    expression("lookup", Attrs::new().text(1, set).be32(2, register(from)))
}

/// Loads what the map has for the key; goes on only when it has something.
pub(super) fn mapped(set: &str, from: u32, to: u32) -> Expression {
    expression("lookup", Attrs::new().text(1, set).be32(2, register(from)).be32(3, register(to)))
}

/// Goes where the verdict map says for the key.
pub(super) fn dispatch(set: &str, from: u32) -> Expression {
    expression("lookup", Attrs::new().text(1, set).be32(2, register(from)).be32(3, VERDICT))
}

/// What a rule does to a map.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// Adds the element, or begins its time anew.
    Renew = 1,
    Remove = 2,
}

/// Changes a dynamic map from within a rule.
pub(super) fn change(set: &str, what: Change, key: u32, data: u32, seconds: u32) -> Expression {
    let change = Attrs::new()
        .text(1, set)
        .be32(3, what as u32)
        .be32(4, register(key))
        .be32(5, register(data))
        .attr(6, &(u64::from(seconds) * 1000).to_be_bytes());
    expression("dynset", change)
}

/// Sends the connection to the address and port in two registers that follow each other.
pub(super) fn redirect(from: u32) -> Expression {
    const DESTINATION: u32 = 1;
    let nat = Attrs::new()
        .be32(1, DESTINATION)
        .be32(2, u32::from(FAMILY))
        .be32(3, register(from))
        .be32(5, register(from + 1));
    expression("nat", nat)
}

/// Gives the connection this source address.
pub(super) fn come_from(address: &[u8]) -> [Expression; 2] {
    const SOURCE: u32 = 0;
    let nat = Attrs::new().be32(1, SOURCE).be32(2, u32::from(FAMILY)).be32(3, register(0));
    [constant(0, address), expression("nat", nat)]
}

/// Gives the connection the source address of the interface it leaves by, and any free port.
pub(super) fn masquerade() -> Expression {
    const FULLY_RANDOM: u32 = 1 << 4;
    expression("masq", Attrs::new().be32(1, FULLY_RANDOM))
}

/// Refuses at once: "port unreachable", which callers see as "connection refused". The kernel sends few of them a second.
pub(super) fn reject() -> Expression {
    const ICMP: u32 = 0;
    const PORT_UNREACHABLE: u8 = 3;
    expression("reject", Attrs::new().be32(1, ICMP).attr(2, &[PORT_UNREACHABLE]))
}

/// Refuses a TCP connection by a reset, of which there may be any number; goes on for other protocols.
pub(super) fn reset() -> [Expression; 3] {
    const TCP: [u8; 1] = [6];
    const RESET: u32 = 1;
    [protocol(0), compare(0, true, &TCP), expression("reject", Attrs::new().be32(1, RESET).attr(2, &[0]))]
}

fn verdict(code: i32, chain: Option<&str>) -> Expression {
    expression("immediate", Attrs::new().be32(1, VERDICT).nest(2, verdict_data(code, chain)))
}

pub(super) fn jump(chain: &str) -> Expression {
    verdict(JUMP, Some(chain))
}

pub(super) fn accept() -> Expression {
    const ACCEPT: i32 = 1;
    verdict(ACCEPT, None)
}

/// Counts, as every rule of the `iptables` program does.
pub(super) fn counter() -> Expression {
    expression("counter", Attrs::new())
}

pub(super) fn discard() -> Expression {
    verdict(DROP, None)
}
