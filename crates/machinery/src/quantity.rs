//! Amounts of resources: `100m`, `1.5Gi`, `2e3`; parsed, compared, reckoned with and written as upstream does.
//!
//! Amounts are exact to the nano; finer ones round up (away from zero), as do the views in whole units and in milli.
//! Source of the rules: `k8s.io/apimachinery/pkg/api/resource`.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

/// How an amount is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `1e3`
    DecimalExponent,
    /// `1Ki`
    BinarySi,
    /// `1k`
    #[default]
    DecimalSi,
}

/// An amount with the way to write it. Equality and order are of the amounts alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is not a quantity; the texts are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Form,
    #[error("unable to parse quantity's suffix")]
    Suffix,
    #[error("unable to parse numeric part of quantity")]
    Number,
}

const NANO: i128 = 1_000_000_000;
/// Larger amounts are capped, as upstream caps them.
const MAX_NANOS: i128 = i64::MAX as i128 * NANO;
/// No number needs more digits; longer ones are capped or are below a nano.
const MAX_DIGITS: usize = 38;

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

impl Quantity {
    /// A whole number of units.
    #[must_use]
    pub fn new(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANO, format }
    }

    /// A number of thousandths.
    #[must_use]
    pub fn from_milli(milli: i64, format: Format) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1000), format }
    }

    /// A number of billionths.
    #[must_use]
    pub fn from_nanos(nanos: i128, format: Format) -> Self {
        Self::clamped(nanos, format)
    }

    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn sign(&self) -> i32 {
        i32::try_from(self.nanos.signum()).unwrap_or(0)
    }

    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// In whole units, rounded up.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.scaled(NANO)
    }

    /// In thousandths, rounded up.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANO / 1000)
    }

    /// As upstream's `AsApproximateFloat64`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "approximate by name")]
    pub fn to_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    fn scaled(&self, unit: i128) -> i64 {
        let up = i128::from(self.nanos % unit != 0) * self.nanos.signum();
        let value = self.nanos / unit + up;
        i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
    }

    fn clamped(nanos: i128, format: Format) -> Self {
        Self { nanos: nanos.clamp(-MAX_NANOS, MAX_NANOS), format }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// Written as the left side is, or as the right side when the left one is zero.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self::clamped(self.nanos + other.nanos, format)
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: -self.nanos, format: self.format }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Add::add)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let text = text.trim();
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let number_end = rest.bytes().position(|b| !b.is_ascii_digit() && b != b'.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(number_end);
        if number.is_empty() || !well_formed(suffix) {
            return Err(QuantityError::Form);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') {
            return Err(QuantityError::Form);
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Number);
        }
        let (multiplier, mut format) = interpret(suffix)?;
        let nanos = reckon(whole, fraction, multiplier);
        if format == Format::BinarySi && 0 < nanos && nanos < NANO {
            format = Format::DecimalSi;
        }
        Ok(Self::clamped(if negative { -nanos } else { nanos }, format))
    }
}

/// `[eEinumkKMGTP]*[-+]?[0-9]*` to the end.
fn well_formed(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

enum Multiplier {
    /// Power of ten.
    Ten(i32),
    /// Power of two.
    Two(u32),
}

fn interpret(suffix: &str) -> Result<(Multiplier, Format), QuantityError> {
    if let Some((_, power)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((Multiplier::Ten(*power), Format::DecimalSi));
    }
    if let Some((_, power)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Ok((Multiplier::Two(*power), Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).and_then(|text| text.parse::<i32>().ok());
    exponent.map(|power| (Multiplier::Ten(power), Format::DecimalExponent)).ok_or(QuantityError::Suffix)
}

/// The amount in nanos, rounded up, capped.
fn reckon(whole: &str, fraction: &str, multiplier: Multiplier) -> i128 {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() && fraction.is_empty() {
        return 0;
    }
    let over = || MAX_NANOS;
    let (power, shift) = match multiplier {
        Multiplier::Ten(power) => (i64::from(power), 0),
        Multiplier::Two(shift) => (0, shift),
    };
    if whole.len() > MAX_DIGITS {
        return over();
    }
    // digits * 10^exponent nanos, before the shift
    let kept = &fraction[..fraction.len().min(MAX_DIGITS - whole.len())];
    let cut = kept.len() < fraction.len();
    let Ok(digits) = format!("0{whole}{kept}").parse::<i128>() else { return over() };
    let exponent = power + 9 - i64::try_from(kept.len()).unwrap_or(0);
    let Some(digits) = digits.checked_mul(1 << shift).filter(|d| *d < i128::MAX / 2) else {
        return shifted_by_halves(whole, kept, shift);
    };
    if exponent >= 0 {
        let factor = u32::try_from(exponent).ok().and_then(|e| 10_i128.checked_pow(e));
        return factor.and_then(|f| digits.checked_mul(f)).map_or_else(over, |n| n.min(MAX_NANOS));
    }
    let divisor = u32::try_from(-exponent).ok().and_then(|e| 10_i128.checked_pow(e));
    let Some(divisor) = divisor else { return 1 };
    let up = digits % divisor != 0 || cut;
    (digits / divisor + i128::from(up)).min(MAX_NANOS)
}

/// A binary amount of so many digits that the plain way overflows: whole and fraction apart.
fn shifted_by_halves(whole: &str, fraction: &str, shift: u32) -> i128 {
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(i128::MAX) };
    let fraction = &fraction[..fraction.len().min(15)];
    let parts: i128 = if fraction.is_empty() { 0 } else { fraction.parse().unwrap_or(0) };
    let unit = 10_i128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let low = (parts * (1 << shift) / unit).saturating_mul(NANO);
    whole.saturating_mul(1 << shift).saturating_mul(NANO).saturating_add(low).min(MAX_NANOS)
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that keeps the amount exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos % NANO == 0;
        if self.format == Format::BinarySi && whole && self.nanos.abs() >= 1024 * NANO {
            let mut value = self.nanos / NANO;
            let mut power = 0;
            while value % 1024 == 0 && power < BINARY.len() {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", if power == 0 { "" } else { BINARY[power - 1].0 });
        }
        let (mut value, mut exponent) = (self.nanos, -9);
        while value % 1000 == 0 {
            value /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{value}") } else { write!(f, "{value}e{exponent}") };
        }
        let suffix = DECIMAL.iter().find(|(_, power)| *power == exponent).map_or("", |(s, _)| s);
        write!(f, "{value}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn the_canonical_form_is_upstreams() {
        for (text, want) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("-1", "-1"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("1500m", "1500m"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("100000", "100k"),
            ("1234567", "1234567"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("1000Ki", "1000Ki"),
            ("0.001Ki", "1024m"),
            ("1e3", "1e3"),
            ("12e-3", "12e-3"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("100n", "100n"),
            ("0.1n", "1n"),
            ("1.0000000001", "1000000001n"),
            ("-0.1n", "-1n"),
            ("10000000000E", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775807"),
            ("12345678901234567890123456789012345678901234567890", "9223372036854775807"),
            ("0.00000000000000000000000000000000000000000000000001", "1n"),
            ("8Ei", "9223372036854775807"),
            ("7Ei", "7Ei"),
        ] {
            assert_eq!(q(text).to_string(), want, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_told_as_upstream_tells_it() {
        for (text, want) in [
            ("", QuantityError::Form),
            ("1GiB", QuantityError::Form),
            ("1 Gi", QuantityError::Form),
            ("x", QuantityError::Form),
            ("1.2.3", QuantityError::Form),
            (".", QuantityError::Number),
            ("1kk", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1K", QuantityError::Suffix),
        ] {
            assert_eq!(text.parse::<Quantity>(), Err(want), "{text}");
        }
    }

    #[test]
    fn views_round_up_and_sums_keep_the_way_of_writing() {
        assert_eq!(q("1500m").value(), 2);
        assert_eq!(q("-1500m").value(), -2);
        assert_eq!(q("1n").milli_value(), 1);
        assert_eq!(q("2Gi").milli_value(), 2 * 1024 * 1024 * 1024 * 1000);
        assert_eq!(q("9E").milli_value(), i64::MAX);
        assert_eq!(Quantity::from_nanos(1_500_000, Format::DecimalSi).to_string(), "1500u");
        assert_eq!((q("1Gi") + q("512Mi")).to_string(), "1536Mi");
        assert_eq!((Quantity::default() + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("1") - q("250m")).to_string(), "750m");
        assert!(q("1Ki") > q("1k"));
        assert_eq!(q("1000m"), q("1"));
        assert_eq!([q("1"), q("100m"), q("2")].into_iter().sum::<Quantity>().to_string(), "3100m");
    }
}
