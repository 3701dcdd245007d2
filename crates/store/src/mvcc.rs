//! The working set: the newest entry of every key, and the window of changes that led there. Pure data; no locks, no IO.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::Options;
use crate::door::{Change, Entry, Range, Revision, StoreError};
use crate::engine::{Loaded, Record};

/// Bytes that one change costs besides the value it supersedes.
const CHANGE_OVERHEAD_BYTES: usize = 256;

/// Everything that reads are served from.
#[derive(Debug)]
pub(crate) struct WorkingSet {
    latest: BTreeMap<Bytes, Entry>,
    history: VecDeque<Kept>,
    history_bytes: usize,
    revision: Revision,
    /// Changes up to here are forgotten.
    floor: Revision,
    /// Revisions that a restart skipped, first and last: someone may have seen lazy writes there that are lost.
    skipped: Vec<(Revision, Revision)>,
    /// Revision of the newest record, which is never forgotten.
    newest: Revision,
    /// During a load: the newest revision that should have had a record and had none.
    missing: Revision,
    options: Options,
}

#[derive(Debug)]
struct Kept {
    change: Arc<Change>,
    at: Instant,
}

/// What was dropped from the history, and what the engine needs no longer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Trimmed {
    pub(crate) floor: Revision,
    pub(crate) dead: Vec<Revision>,
}

impl WorkingSet {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            latest: BTreeMap::new(),
            history: VecDeque::new(),
            history_bytes: 0,
            revision: 0,
            floor: 0,
            skipped: Vec::new(),
            newest: 0,
            missing: 0,
            options,
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Revision of the newest change; [`WorkingSet::revision`] is larger after a restart that skipped some.
    pub(crate) fn newest(&self) -> Revision {
        self.newest
    }

    pub(crate) fn live(&self) -> u64 {
        self.latest.len() as u64
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.latest.get(key)
    }

    /// Takes in one record at start. The floor is not known yet, so every record becomes history; [`WorkingSet::loaded`] trims.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the record cannot follow the ones before it.
    pub(crate) fn load(&mut self, record: Record, now: Instant) -> Result<(), StoreError> {
        if record.revision <= self.revision {
            let (got, newest) = (record.revision, self.revision);
            return Err(StoreError::Damaged(format!("record {got} comes after record {newest}")));
        }
        if record.previous != self.newest {
            self.missing = record.previous;
        }
        self.skip(record.previous, record.revision - 1);
        let before = self.latest.get(&record.key).cloned();
        self.apply(Arc::new(change_of(&record, before)), now);
        Ok(())
    }

    /// Ends the load: places the floor and checks that no record is missing. `last` is the revision of the last record and the
    /// number of keys that exist after it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when one is.
    pub(crate) fn loaded(&mut self, loaded: Loaded, last: Option<(Revision, u64)>) -> Result<(), StoreError> {
        if let Some((at, want)) = last
            && want != self.live()
        {
            let got = self.live();
            return Err(StoreError::Damaged(format!("{want} keys should exist at revision {at}, but {got} do")));
        }
        if self.missing > loaded.floor {
            return Err(StoreError::Damaged(format!("the record of revision {} is missing", self.missing)));
        }
        self.revision = self.revision.max(loaded.base);
        self.skip(self.newest, self.revision);
        self.trim_to(loaded.floor);
        Ok(())
    }

    /// Notes that nobody can have read the revisions between `newest` and `base` in a form that still holds.
    fn skip(&mut self, newest: Revision, base: Revision) {
        if base > newest + 1 {
            self.skipped.push((newest + 1, base - 1));
        }
    }

    /// Takes in one change, newer than all before.
    pub(crate) fn apply(&mut self, change: Arc<Change>, now: Instant) {
        match &change.now {
            Some(entry) => drop(self.latest.insert(entry.key.clone(), entry.clone())),
            None => drop(self.latest.remove(&change.key)),
        }
        self.revision = change.revision;
        self.newest = change.revision;
        self.history_bytes += cost(&change);
        self.history.push_back(Kept { change, at: now });
    }

    /// Applies the limits of history, an eighth at a time so that the engine is asked seldom.
    pub(crate) fn trim(&mut self, now: Instant) -> Option<Trimmed> {
        let Options { history_changes_max: count, history_bytes_max: bytes, history_age_max: age } = self.options;
        let too_many = self.history.len() > count + count / 8;
        let too_large = self.history_bytes > bytes + bytes / 8;
        let too_old = |kept: &Kept, limit: Duration| now.saturating_duration_since(kept.at) > limit;
        let stale = self.history.front().is_some_and(|kept| too_old(kept, age + age / 8));
        if !(too_many || too_large || stale) {
            return None;
        }
        let (mut left, mut left_bytes, mut floor) = (self.history.len(), self.history_bytes, self.floor);
        for kept in &self.history {
            if left <= count && left_bytes <= bytes && !too_old(kept, age) {
                break;
            }
            left -= 1;
            left_bytes -= cost(&kept.change);
            floor = kept.change.revision;
        }
        Some(self.trim_to(floor))
    }

    /// Forgets the changes up to and including `floor`, but never the newest one: its record carries the counts.
    pub(crate) fn trim_to(&mut self, floor: Revision) -> Trimmed {
        let floor = floor.min(self.newest.saturating_sub(1));
        let mut dead = Vec::new();
        while let Some(kept) = self.history.front()
            && kept.change.revision <= floor
        {
            let change = self.history.pop_front().expect("it has a front").change;
            self.history_bytes -= cost(&change);
            dead.extend(change.before.as_ref().map(|entry| entry.modified));
            dead.extend(change.now.is_none().then_some(change.revision));
        }
        self.floor = self.floor.max(floor);
        self.skipped.retain(|(_, last)| *last >= self.floor);
        Trimmed { floor: self.floor, dead }
    }

    /// The range of [`crate::Store::range`].
    pub(crate) fn range(
        &self,
        prefix: &[u8],
        start: &[u8],
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Range, StoreError> {
        let from = if start > prefix { start } else { prefix };
        let revision = at.unwrap_or(self.revision);
        self.check(revision)?;
        if revision > self.revision {
            return Err(StoreError::Future { asked: revision, newest: self.revision });
        }
        let undo = self.undo(prefix, from, revision);
        let limit = if limit == 0 { usize::MAX } else { limit };
        let now = self.latest_from(prefix, from);
        let mut range = Range { entries: Vec::new(), revision, remaining: 0 };
        let mut take = |entry: &Entry| match range.entries.len() < limit {
            true => range.entries.push(entry.clone()),
            false => range.remaining += 1,
        };
        if undo.is_empty() {
            now.for_each(&mut take);
        } else {
            let kept = now.filter(|entry| !undo.contains_key(&entry.key));
            let mut all: Vec<&Entry> = kept.chain(undo.values().filter_map(|entry| *entry)).collect();
            all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            all.into_iter().for_each(&mut take);
        }
        Ok(range)
    }

    /// Every kept change of the prefix after `after`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when some have been forgotten.
    pub(crate) fn changes(&self, prefix: &[u8], after: Revision) -> Result<Vec<Arc<Change>>, StoreError> {
        self.check(after)?;
        Ok(self.newer(after).filter(|change| change.key.starts_with(prefix)).cloned().collect())
    }

    /// Every kept change of the prefix.
    pub(crate) fn history(&self, prefix: &[u8]) -> Vec<Arc<Change>> {
        self.newer(self.floor).filter(|change| change.key.starts_with(prefix)).cloned().collect()
    }

    /// Is what happened after `asked` still known?
    fn check(&self, asked: Revision) -> Result<(), StoreError> {
        if asked < self.floor {
            return Err(StoreError::Compacted { asked, oldest: self.floor });
        }
        match self.skipped.iter().find(|(first, last)| (*first..=*last).contains(&asked)) {
            Some((_, last)) => Err(StoreError::Compacted { asked, oldest: last + 1 }),
            None => Ok(()),
        }
    }

    fn newer(&self, after: Revision) -> impl DoubleEndedIterator<Item = &Arc<Change>> {
        let first = self.history.partition_point(|kept| kept.change.revision <= after);
        self.history.range(first..).map(|kept| &kept.change)
    }

    fn latest_from<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> impl Iterator<Item = &'a Entry> {
        let bounds = (Bound::Included(from), Bound::Unbounded);
        self.latest.range::<[u8], _>(bounds).map(|(_, entry)| entry).take_while(|entry| entry.key.starts_with(prefix))
    }

    /// What the keys of a range that changed since `revision` were then.
    fn undo(&self, prefix: &[u8], from: &[u8], revision: Revision) -> BTreeMap<&Bytes, Option<&Entry>> {
        let in_range = |change: &&Arc<Change>| change.key.starts_with(prefix) && change.key.as_ref() >= from;
        self.newer(revision).rev().filter(in_range).map(|change| (&change.key, change.before.as_ref())).collect()
    }
}

/// The change that a record makes to a key that was `before`.
pub(crate) fn change_of(record: &Record, before: Option<Entry>) -> Change {
    let (key, created, modified) = (record.key.clone(), record.created, record.revision);
    let now = record.value.clone().map(|value| Entry { key: key.clone(), value, created, modified });
    Change { revision: modified, key, now, before }
}

fn cost(change: &Change) -> usize {
    CHANGE_OVERHEAD_BYTES + change.key.len() + change.before.as_ref().map_or(0, |entry| entry.value.len())
}
