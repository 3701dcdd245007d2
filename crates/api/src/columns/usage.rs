//! The tables of what nodes and pods use, as metrics-server prints them.

use jiff::Timestamp;
use serde_json::Value;

use super::{items, name, text};

/// The units that usage is written in, in billionths.
const UNITS: [(&str, i128); 10] = [
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("", 1_000_000_000),
    ("k", 1_000_000_000_000),
    ("Ki", 1_024_000_000_000),
    ("Mi", 1_048_576_000_000_000),
    ("Gi", 1_073_741_824_000_000_000),
    ("Ti", 1_099_511_627_776_000_000_000),
    ("Pi", 1_125_899_906_842_624_000_000_000),
];

pub(crate) fn node(object: &Value, _now: Timestamp) -> Vec<Value> {
    let usage = &object["usage"];
    vec![name(object), text(&usage["cpu"]).into(), text(&usage["memory"]).into(), text(&object["window"]).into()]
}

pub(crate) fn pod(object: &Value, _now: Timestamp) -> Vec<Value> {
    let of = |resource: &str| {
        let all = items(&object["containers"]).iter().map(|container| text(&container["usage"][resource]));
        sum(all, resource == "memory")
    };
    vec![name(object), of("cpu").into(), of("memory").into(), text(&object["window"]).into()]
}

/// The sum in the largest unit that keeps it exact: powers of 1024 for bytes.
fn sum<'a>(amounts: impl Iterator<Item = &'a str>, bytes: bool) -> String {
    let total: i128 = amounts.map(nanos).sum();
    let fits = |unit: &&(&str, i128)| total % unit.1 == 0 && unit.0.ends_with('i') == bytes && total != 0;
    let (suffix, size) = UNITS.iter().rfind(fits).copied().unwrap_or(("", 1_000_000_000));
    format!("{}{suffix}", total / size)
}

fn nanos(amount: &str) -> i128 {
    let digits = amount.bytes().take_while(u8::is_ascii_digit).count();
    let unit = UNITS.iter().find(|(suffix, _)| *suffix == &amount[digits..]).map_or(0, |(_, size)| *size);
    amount[..digits].parse().unwrap_or(0) * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_written_as_quantities_are() {
        for (amounts, bytes, want) in [
            (&["1500n", "500n"][..], false, "2u"),
            (&["250m", "1"], false, "1250m"),
            (&["0"], false, "0"),
            (&[], false, "0"),
            (&["1Mi", "512Ki"], true, "1536Ki"),
            (&["1000", "24"], true, "1Ki"),
            (&["1000"], true, "1000"),
            (&["2k"], false, "2k"),
        ] {
            assert_eq!(sum(amounts.iter().copied(), bytes), want, "{amounts:?}");
        }
    }
}
