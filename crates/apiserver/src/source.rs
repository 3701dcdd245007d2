//! Where the server takes the time of day and random numbers from: the system, or a simulation that runs it in one thread.

use std::cell::RefCell;

use jiff::Timestamp;
use uuid::Uuid;

/// What a simulation gives instead of the system's clock and random numbers.
pub struct Source {
    pub now: Box<dyn Fn() -> Timestamp>,
    pub random: Box<dyn Fn() -> [u8; 16]>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

thread_local! {
    static SIMULATED: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// From now on servers that run in this thread take time and random numbers from `source` (`None`: from the system again).
///
/// Certificates and tokens keep to the system: their random numbers are secrets.
pub fn simulate(source: Option<Source>) {
    SIMULATED.set(source);
}

pub(crate) fn now() -> Timestamp {
    SIMULATED.with_borrow(|source| source.as_ref().map(|source| (source.now)())).unwrap_or_else(Timestamp::now)
}

/// A random UUID of version 4.
pub(crate) fn uuid() -> Uuid {
    let simulated = SIMULATED.with_borrow(|source| source.as_ref().map(|source| (source.random)()));
    simulated.map_or_else(Uuid::new_v4, |bytes| uuid::Builder::from_random_bytes(bytes).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulation_sets_time_and_ids_of_its_thread_only() {
        let at = Timestamp::from_second(1_700_000_000).expect("in range");
        simulate(Some(Source { now: Box::new(move || at), random: Box::new(|| [7; 16]) }));
        assert_eq!((now(), uuid(), uuid().get_version_num()), (at, uuid(), 4));
        let elsewhere = std::thread::spawn(move || now() != at && uuid() != uuid());
        assert!(elsewhere.join().expect("it ends"));
        simulate(None);
        assert_ne!(uuid(), uuid());
    }
}
