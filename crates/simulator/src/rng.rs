//! Random numbers from a seed: the only ones of a simulation.

use std::sync::atomic::{AtomicU64, Ordering};

/// A generator (SplitMix64). Shared ones stay deterministic because everything runs in one thread.
#[derive(Debug)]
pub(crate) struct Rng(AtomicU64);

impl Rng {
    #[must_use]
    pub(crate) fn new(seed: u64, label: &str) -> Self {
        Self(AtomicU64::new(seed ^ xxhash_rust::xxh3::xxh3_64(label.as_bytes())))
    }

    pub(crate) fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn between(&self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    pub(crate) fn percent(&self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// Milliseconds: mostly short, sometimes up to `max`.
    pub(crate) fn spread(&self, max: u64) -> std::time::Duration {
        let top = match self.below(10) {
            0..=5 => max / 20,
            6..=8 => max / 4,
            _ => max,
        };
        std::time::Duration::from_millis(self.below(top.max(1)))
    }

    pub(crate) fn bytes(&self) -> [u8; 16] {
        (u128::from(self.next()) << 64 | u128::from(self.next())).to_be_bytes()
    }
}
