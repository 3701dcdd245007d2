//! The order of a merged list: items of the patch as the patch has them, the server's own items as near as may be to where they were.

use serde_json::Value;

use super::strategic::{DIRECTIVE, StrategicError, no_key};

/// What tells an item of a list from the others: its merge key's value, or the scalar itself.
pub(super) fn key_of<'v>(item: &'v Value, key: Option<&str>) -> Option<&'v Value> {
    match (item, key) {
        (Value::Object(map), Some(key)) => map.get(key),
        (scalar, _) => Some(scalar),
    }
}

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    let wanted = key_of(item, key);
    list.iter().position(|other| key_of(other, key) == wanted)
}

/// Orders `merged`: items named in `wanted` keep that order, the others that of `server`; where both orders are free, the
/// wanted items come first. Deletions of a patch go to the end.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, StrategicError> {
    if let Some(key) = key
        && let Some(item) = merged.iter().chain(wanted).find(|item| item.is_object() && item.get(key).is_none())
    {
        return Err(no_key(item, key));
    }
    let (deletions, merged): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| item.get(DIRECTIVE).is_some_and(|d| d == "delete"));
    let (mut named, mut own): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(wanted, item, key).is_some());
    named.sort_by_key(|item| position(wanted, item, key));
    own.sort_by_key(|item| position(server, item, key).unwrap_or(usize::MAX));
    let mut out = interleave(own, named, server, key);
    out.extend(deletions);
    Ok(out)
}

/// Puts each item of `own` before the first item of `named` that follows it on the server.
fn interleave(own: Vec<Value>, named: Vec<Value>, server: &[Value], key: Option<&str>) -> Vec<Value> {
    let mut out = Vec::with_capacity(own.len() + named.len());
    let mut own = own.into_iter().peekable();
    for right in named {
        let right_at = position(server, &right, key);
        while let Some(left) = own.peek() {
            match (position(server, left, key), right_at) {
                (Some(left_at), Some(right_at)) if left_at < right_at => out.extend(own.next()),
                _ => break,
            }
        }
        out.push(right);
    }
    out.extend(own);
    out
}
