//! Numbers and ranges of numbers as people write them: `2,5-6`.

use std::ops::RangeInclusive;

/// Some ordinals. What cannot be understood of a list is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ordinals {
    /// By their beginnings; they may overlap.
    ranges: Vec<RangeInclusive<u32>>,
}

impl Ordinals {
    /// Reads a list; items that are no ordinals count as not given.
    #[must_use]
    pub fn lenient(text: &str) -> Self {
        let mut ranges: Vec<_> = items(text).filter_map(range).collect();
        ranges.sort_unstable_by_key(|range| *range.start());
        Self { ranges }
    }

    /// Whether every item of the list can be understood.
    #[must_use]
    pub fn understands(text: &str) -> bool {
        items(text).all(|item| range(item).is_some())
    }

    #[must_use]
    pub fn contains(&self, ordinal: u32) -> bool {
        self.ranges.iter().any(|range| range.contains(&ordinal))
    }

    /// The ranges, ordered by their beginnings.
    #[must_use]
    pub fn ranges(&self) -> &[RangeInclusive<u32>] {
        &self.ranges
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// `3` or `4-6`; nothing for anything else.
#[must_use]
pub fn range(text: &str) -> Option<RangeInclusive<u32>> {
    let number = |text: &str| {
        let text = text.trim();
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_numbers_and_ranges() {
        for (text, expected, understood) in [
            ("", vec![], true),
            ("2,5-6", vec![2..=2, 5..=6], true),
            (" 7 , 1 - 2,", vec![1..=2, 7..=7], true),
            ("2-1", vec![], false),
            ("x,-3,+4,1", vec![1..=1], false),
            ("4294967296", vec![], false),
        ] {
            let ordinals = Ordinals::lenient(text);
            assert_eq!((ordinals.ranges(), Ordinals::understands(text)), (&expected[..], understood), "{text:?}");
        }
        let some = Ordinals::lenient("2,5-6");
        assert_eq!((0..8).filter(|ordinal| some.contains(*ordinal)).collect::<Vec<_>>(), [2, 5, 6]);
    }
}
