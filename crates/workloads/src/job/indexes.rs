//! Sets of completion indexes as the status writes them: `1,3-5,7`.

use std::collections::BTreeSet;
use std::fmt;

/// A set of completion indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(pub BTreeSet<u32>);

impl Indexes {
    /// Reads `1,3-5`; what is not readable or not below `limit` is left out.
    #[must_use]
    pub fn parse(text: &str, limit: u32) -> Self {
        let mut set = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
                set.extend((first..=last.min(limit.saturating_sub(1))).filter(|index| *index < limit));
            }
        }
        Self(set)
    }
}

/// Two in a row are written `1,2`, three and more `1-3`, as upstream does.
impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for index in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *index => *last = *index,
                _ => runs.push((*index, *index)),
            }
        }
        for (n, (first, last)) in runs.into_iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7", "0,2,4"] {
            assert_eq!(Indexes::parse(text, 100).to_string(), text);
        }
        assert_eq!(Indexes::parse("1,3-9", 5).to_string(), "1,3,4");
        assert_eq!(Indexes::parse("0-4294967295,x,-", 3).to_string(), "0-2");
    }
}
