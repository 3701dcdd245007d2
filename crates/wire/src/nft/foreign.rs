//! Other people's firewalls: a way through for pods where forwarding is dropped by default, as Docker and ufw set it up.
//!
//! A packet must be accepted by every table, so our own cannot help there. Each such chain gets two rules at its head, in
//! the form that the `iptables` program shows and keeps, with the instance's name as their comment. Chains of the old
//! kernel interface (`iptables-legacy`) are out of reach.

use nix::errno::Errno;

use super::message::{
    F_REQUEST_ONLY, NewRule, accept, counter, delete_rule, incoming, list_chains_of_all, list_rules, outgoing,
};
use super::message::{begin, end, new_rule_in};
use crate::netlink::{Msg, Reader, Refused, Socket};

/// Hook number of forwarding, and the policy "drop".
const FORWARD: u32 = 2;
const DROP: u32 = 0;
/// Families that see forwarded IPv4: the old one for both, and IPv4.
const FAMILIES: [u8; 2] = [1, 2];

/// A chain that drops what it does not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Strict {
    family: u8,
    table: String,
    chain: String,
}

/// The number in network order.
fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

fn read_strict(item: &[u8]) -> Option<Strict> {
    let family = *item.first()?;
    let attributes = Reader(item.get(4..)?);
    let hook = Reader(attributes.get(4)?);
    let strict = be32(hook.get(1)?)? == FORWARD
        && attributes.get(5).and_then(be32) == Some(DROP)
        && attributes.text(7)? == "filter"
        && FAMILIES.contains(&family);
    strict.then_some(Strict { family, table: attributes.text(1)?, chain: attributes.text(3)? })
}

/// A comment as the `nft` program writes it: kind 0, length, text with its final zero.
fn comment(instance: &str) -> Vec<u8> {
    let text = format!("stead-{instance}\0");
    let mut bytes = vec![0, u8::try_from(text.len()).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Handles of our rules in a chain.
fn ours(socket: &Socket, chain: &Strict, mark: &[u8]) -> Result<Vec<Vec<u8>>, Refused> {
    let items = socket.dump(list_rules(chain.family, &chain.table, &chain.chain))?;
    let of_item = |item: &Vec<u8>| {
        let attributes = Reader(item.get(4..)?);
        let here = attributes.text(1)? == chain.table && attributes.text(2)? == chain.chain;
        (here && attributes.get(7) == Some(mark)).then(|| attributes.get(3).map(<[u8]>::to_vec)).flatten()
    };
    Ok(items.iter().filter_map(of_item).collect())
}

fn strict_chains(socket: &Socket) -> Result<Vec<Strict>, Refused> {
    Ok(socket.dump(list_chains_of_all())?.iter().filter_map(|item| read_strict(item)).collect())
}

/// Makes sure that every strict chain lets packets from and to the interfaces with this prefix pass.
pub(super) fn admit(socket: &Socket, instance: &str, link_prefix: &str) -> Result<(), Refused> {
    let mark = comment(instance);
    for chain in strict_chains(socket)? {
        if ours(socket, &chain, &mark)?.len() == 2 {
            continue;
        }
        let passing = [incoming(link_prefix), outgoing(link_prefix, true)];
        let rules: Vec<Msg> = passing
            .into_iter()
            .map(|direction| {
                let mut rule = direction.to_vec();
                rule.extend([counter(), accept()]);
                let place = NewRule { family: chain.family, table: &chain.table, chain: &chain.chain };
                new_rule_in(&place, F_REQUEST_ONLY, &rule, Some(&mark))
            })
            .collect();
        tracing::info!(
            table = chain.table,
            chain = chain.chain,
            "this firewall drops forwarded packets; letting pods' pass"
        );
        change(socket, rules)?;
    }
    Ok(())
}

/// Takes our rules out of other people's chains.
pub(super) fn withdraw(socket: &Socket, instance: &str) -> Result<(), Refused> {
    let mark = comment(instance);
    for chain in strict_chains(socket)? {
        let rules: Vec<Msg> = ours(socket, &chain, &mark)?
            .iter()
            .map(|handle| delete_rule(chain.family, &chain.table, &chain.chain, handle))
            .collect();
        change(socket, rules)?;
    }
    Ok(())
}

/// One transaction; a chain that vanished meanwhile is fine.
fn change(socket: &Socket, messages: Vec<Msg>) -> Result<(), Refused> {
    if messages.is_empty() {
        return Ok(());
    }
    match socket.transaction(begin(), messages, end()) {
        Err(error) if !error.is(Errno::ENOENT) => Err(error),
        _ => Ok(()),
    }
}
