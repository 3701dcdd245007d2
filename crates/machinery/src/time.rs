//! Times as the API writes them, and ages as its tables show them.
//!
//! Source of the forms: `k8s.io/apimachinery/pkg/apis/meta/v1` (`Time`, `MicroTime`) and Go's `time.Parse`.

use jiff::Timestamp;
pub use stead_api::age::{between, human_duration, parse, since};

use crate::field::go_quote;

/// Go's name of the layout in error texts.
const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";

/// `2026-11-20T14:54:00Z`: whole seconds, UTC.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
    format!("{whole:.0}")
}

/// `2026-11-20T14:54:00.123456Z`: microseconds, UTC.
#[must_use]
pub fn rfc3339_micro(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// A time that a request carries, in the form in which it is stored.
///
/// # Errors
/// Go's text for a string that is not a time.
pub fn canonical(text: &str, micro: bool) -> Result<String, String> {
    let time = parse_go(text)?;
    Ok(if micro { rfc3339_micro(time) } else { rfc3339(time) })
}

fn parse_go(text: &str) -> Result<Timestamp, String> {
    let wrong = |rest: &str, wanted: &str| {
        format!("parsing time {} as {}: cannot parse {} as {}", q(text), q(LAYOUT), q(rest), q(wanted))
    };
    if let Some((at, wanted)) = mismatch(text.as_bytes()) {
        return Err(wrong(text.get(at..).unwrap_or(text), wanted));
    }
    text.parse().map_err(|_| format!("parsing time {}: day out of range", q(text)))
}

fn q(text: &str) -> String {
    go_quote(text)
}

/// Where a text leaves the layout, and the part of the layout that is missing there.
fn mismatch(text: &[u8]) -> Option<(usize, &'static str)> {
    const PARTS: [(usize, &str); 11] = [
        (4, "2006"),
        (0, "-"),
        (2, "01"),
        (0, "-"),
        (2, "02"),
        (0, "T"),
        (2, "15"),
        (0, ":"),
        (2, "04"),
        (0, ":"),
        (2, "05"),
    ];
    let mut at = 0;
    for (digits, part) in PARTS {
        let end = at + digits.max(part.len());
        let Some(found) = text.get(at..end) else { return Some((at, part)) };
        let fits = if digits == 0 { found == part.as_bytes() } else { found.iter().all(u8::is_ascii_digit) };
        if !fits {
            return Some((at, part));
        }
        at = end;
    }
    if text.get(at) == Some(&b'.') {
        at += 1 + text[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
    }
    let zone = &text[at..];
    let offset = |z: &[u8]| z.len() == 6 && matches!(z[0], b'+' | b'-') && z[3] == b':';
    (zone != b"Z" && !offset(zone)).then_some((at, "Z07:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_stored_in_utc_with_the_precision_of_their_type() {
        for (text, second, micro) in [
            ("2026-11-20T14:54:00Z", "2026-11-20T14:54:00Z", "2026-11-20T14:54:00.000000Z"),
            ("2026-11-20T14:54:00.999Z", "2026-11-20T14:54:00Z", "2026-11-20T14:54:00.999000Z"),
            ("2026-11-20T14:54:00.1234567+01:00", "2026-11-20T13:54:00Z", "2026-11-20T13:54:00.123456Z"),
        ] {
            assert_eq!(canonical(text, false).as_deref(), Ok(second));
            assert_eq!(canonical(text, true).as_deref(), Ok(micro));
        }
    }

    #[test]
    fn a_text_that_is_no_time_is_told_as_go_tells_it() {
        for (text, want) in [
            ("x", r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#),
            ("2026-1", r#"parsing time "2026-1" as "2006-01-02T15:04:05Z07:00": cannot parse "1" as "01""#),
            (
                "2026-01-02 03:04:05",
                r#"parsing time "2026-01-02 03:04:05" as "2006-01-02T15:04:05Z07:00": cannot parse " 03:04:05" as "T""#,
            ),
            (
                "2026-01-02T03:04:05",
                r#"parsing time "2026-01-02T03:04:05" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00""#,
            ),
        ] {
            assert_eq!(canonical(text, false), Err(want.to_owned()));
        }
    }
}
