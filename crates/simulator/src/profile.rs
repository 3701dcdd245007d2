//! Which faults a seed has, and how often: each seed draws its own few, so that rare combinations come up.

use crate::rng::Rng;

/// Chances of faults. Per request they are per mille; over time they are the mean seconds between two (0: never).
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) nodes: u8,
    /// The request does not arrive.
    pub(crate) lost: u64,
    /// It is done and the answer does not arrive.
    pub(crate) reply_lost: u64,
    /// It is refused with a conflict.
    pub(crate) conflict: u64,
    /// The server is busy.
    pub(crate) busy: u64,
    /// The caller dies before a write, or after it.
    pub(crate) crash: u64,
    /// The request takes up to seconds.
    pub(crate) slow: u64,
    /// A watch breaks off and what was under way is lost.
    pub(crate) watch_cut: u64,
    /// A watch event comes twice.
    pub(crate) watch_twice: u64,
    /// A watch is refused with 410.
    pub(crate) watch_gone: u64,
    /// The history is compacted.
    pub(crate) compact: u64,
    /// The watches of one part are late by up to [`LATE_MAX_MS`].
    pub(crate) late: u64,
    pub(crate) clock_jump: u64,
    pub(crate) disk_full: u64,
    /// The disk takes its time for a write (per mille).
    pub(crate) slow_disk: u64,
    pub(crate) second_leader: u64,
    pub(crate) partition: u64,
    /// Nearly every change of one part meets a conflict for a while.
    pub(crate) storm: u64,
    /// The API server goes down and comes again.
    pub(crate) restart: u64,
    /// A node loses its power for a while, and its containers with it.
    pub(crate) power: u64,
    /// A pod stops being ready for a while, or fails (per cent of the times that it becomes ready).
    pub(crate) flap: u64,
    pub(crate) fail: u64,
    /// A part hears late of what was just written (per mille of the writes).
    pub(crate) echo: u64,
    /// People take their time, so that everybody knows everything before they do the next thing.
    pub(crate) patient: bool,
    /// Nodes are silent for long, and nothing holds pods to their node.
    pub(crate) silent: bool,
}

/// How late watch events may be made on purpose.
pub(crate) const LATE_MAX_MS: u64 = 20_000;

/// Between two restarts of the API server, in seconds at least on average.
const RESTART_MEAN_MIN: u64 = 20;
/// Between two silences of nodes where these are the company, in seconds at most on average.
const SILENCE_MEAN_MAX: u64 = 120;

impl Profile {
    #[must_use]
    pub(crate) fn draw(seed: u64) -> Self {
        let rng = Rng::new(seed, "profile");
        let quiet = rng.percent(5);
        let some = |chance: u64, max: u64| if !quiet && rng.percent(chance) { rng.between(1, max) } else { 0 };
        let mut profile = Self {
            nodes: rng.between(1, 3) as u8,
            lost: some(50, 60),
            reply_lost: some(50, 60),
            conflict: some(40, 150),
            busy: some(40, 60),
            crash: some(50, 30),
            slow: some(40, 80),
            watch_cut: some(50, 60),
            watch_twice: some(50, 100),
            watch_gone: some(30, 150),
            compact: some(30, 40),
            late: some(50, 40),
            clock_jump: some(25, 120),
            disk_full: some(25, 120),
            second_leader: some(30, 90),
            partition: some(40, 150),
            flap: some(40, 30),
            fail: some(30, 15),
            storm: some(30, 90),
            // Each one makes a hundred watches try again and again: more often, nothing else would happen.
            restart: some(25, 120).checked_add(RESTART_MEAN_MIN).filter(|mean| *mean > RESTART_MEAN_MIN).unwrap_or(0),
            power: some(25, 150),
            slow_disk: some(40, 300),
            echo: some(50, 60),
            patient: rng.percent(20),
            silent: rng.percent(12),
        };
        if profile.silent {
            profile.nodes = profile.nodes.max(2);
            profile.partition = rng.between(20, SILENCE_MEAN_MAX);
            profile.patient = true;
        }
        profile
    }
}
