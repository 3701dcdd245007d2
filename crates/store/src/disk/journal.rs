//! Looks through fjall's journal files before fjall does, and tells a torn tail from damage.
//!
//! fjall cuts a journal at the first place it does not understand, and refuses one whose last batch has a wrong checksum. The
//! first would lose acknowledged writes when a byte in the middle flips; the second would refuse a database after an ordinary
//! power loss. So: something whole behind the bad place, or a bad place that is not at the end, is damage; an unfinished last
//! batch is cut off here. A batch is unfinished when its end is missing or a whole sector of it never arrived (journal files
//! are made of zeros beforehand). This module knows the journal format of fjall 3 (its `journal/entry.rs`).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::door::StoreError;

/// Bytes that end every batch.
const TRAILER: &[u8] = b"FJL\x03";
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// Records have keys of this length; the marks beside them have others and are always synced.
const RECORD_KEY_BYTES: u64 = 8;
/// The unit that a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// How much of a file is looked at in one read.
const READ_BYTES: usize = 1024 * 1024;

/// Checks every journal file in `path`; cuts an unfinished batch off the newest.
///
/// # Errors
/// [`StoreError::Damaged`] with file and offset.
pub(super) fn inspect(path: &Path) -> Result<(), StoreError> {
    let io = |error: std::io::Error| StoreError::Engine(format!("cannot read {}: {error}", path.display()));
    let files = super::journals(path).map_err(io)?;
    for (index, file) in files.iter().enumerate() {
        let bytes = read_without_zeros(file).map_err(io)?;
        let newest = index + 1 == files.len();
        match judge(&bytes) {
            Verdict::Whole => {}
            Verdict::Torn { at } if newest => {
                tracing::warn!(file = %file.display(), at, "cut off a write that was never finished");
                cut(file, at).map_err(io)?;
            }
            Verdict::Torn { at } | Verdict::Damaged { at } => {
                return Err(StoreError::Damaged(format!("journal {} at byte {at}", file.display())));
            }
        }
    }
    Ok(())
}

/// What is wrong with a journal, and from which byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Whole,
    /// The last batch was not finished: nobody was told that it is there.
    Torn {
        at: usize,
    },
    Damaged {
        at: usize,
    },
}

fn judge(bytes: &[u8]) -> Verdict {
    let mut at = 0;
    while let Some(batch) = batch(&bytes[at..]) {
        at += batch.length;
    }
    let rest = &bytes[at..];
    if rest.is_empty() {
        return Verdict::Whole;
    }
    let follow = Followers::find(rest);
    let torn = match misses_a_sector(bytes, at, at + follow.first) {
        // Of the synced batches behind it only the last can have been under way when the power went.
        true => follow.synced < 2,
        false => follow.whole == 0 && !rest.ends_with(TRAILER),
    };
    if torn { Verdict::Torn { at } } else { Verdict::Damaged { at } }
}

/// The whole batches behind a bad place.
#[derive(Debug, Default)]
struct Followers {
    /// Where the first one begins (or the end).
    first: usize,
    whole: usize,
    /// Those that began only after everything before them was durable.
    synced: usize,
}

impl Followers {
    fn find(rest: &[u8]) -> Self {
        let mut found = Self { first: rest.len(), ..Self::default() };
        let mut at = 0;
        while let Some(end) = rest[at..].windows(TRAILER.len()).position(|window| window == TRAILER) {
            at += end + TRAILER.len();
            while let Some(batch) = batch(&rest[at..]) {
                found.first = found.first.min(at);
                found.whole += 1;
                found.synced += usize::from(batch.synced);
                at += batch.length;
            }
        }
        found
    }
}

/// Is one of the sectors between `from` and `to`, the first perhaps begun by an earlier batch, nothing but zeros?
fn misses_a_sector(bytes: &[u8], from: usize, to: usize) -> bool {
    let starts = std::iter::once(from).chain((from.next_multiple_of(SECTOR_BYTES)..to).step_by(SECTOR_BYTES));
    let end = |start: usize| (start + 1).next_multiple_of(SECTOR_BYTES);
    starts
        .filter(|start| end(*start) <= bytes.len())
        .any(|start| bytes[start..end(start)].iter().all(|byte| *byte == 0))
}

#[derive(Clone, Copy, Debug)]
struct Batch {
    length: usize,
    synced: bool,
}

/// The batch at the start of `bytes`, if it is whole and its checksum is right.
fn batch(bytes: &[u8]) -> Option<Batch> {
    let mut cursor = Cursor { bytes, at: 0 };
    if cursor.byte()? != START {
        return None;
    }
    let items = cursor.number(4)?;
    cursor.skip(8)?;
    let first = cursor.at;
    let mut synced = true;
    for _ in 0..items {
        synced &= cursor.item()?;
    }
    let body = &bytes[first..cursor.at];
    if cursor.byte()? != END {
        return None;
    }
    let checksum = cursor.number(8)?;
    let trailer = cursor.take(TRAILER.len() as u64)?;
    (trailer == TRAILER && checksum == xxh3_64(body)).then_some(Batch { length: cursor.at, synced })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let end = self.at.checked_add(usize::try_from(length).ok()?)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn skip(&mut self, length: u64) -> Option<()> {
        self.take(length).map(drop)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self, length: u64) -> Option<u64> {
        let bytes = self.take(length)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Passes one item and says whether it belongs to a batch that was synced.
    fn item(&mut self) -> Option<bool> {
        match self.byte()? {
            ITEM => {
                // Kind of value, compression, keyspace.
                self.skip(1 + 1 + 8)?;
                let key = self.number(2)?;
                self.skip(4)?;
                let value = self.number(4)?;
                self.skip(key)?;
                let value = self.take(value)?;
                Some(!(key == RECORD_KEY_BYTES && super::record::is_lazy(value)))
            }
            CLEAR => self.skip(8).map(|()| true),
            _ => None,
        }
    }
}

/// The bytes of a file without the zeros at its end, of which there are many.
fn read_without_zeros(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let (mut bytes, mut zeros) = (Vec::new(), 0);
    let mut chunk = vec![0; READ_BYTES];
    let blank = vec![0; READ_BYTES];
    loop {
        let length = file.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        if chunk[..length] == blank[..length] {
            zeros += length;
            continue;
        }
        let used = chunk[..length].iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        bytes.resize(bytes.len() + zeros, 0);
        bytes.extend_from_slice(&chunk[..used]);
        zeros = length - used;
    }
    Ok(bytes)
}

fn cut(path: &Path, at: usize) -> std::io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(at as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(value: &[u8]) -> Vec<u8> {
        let mut item = vec![ITEM, 0, 0];
        item.extend(1u64.to_le_bytes());
        item.extend(8u16.to_le_bytes());
        item.extend((value.len() as u32).to_le_bytes());
        item.extend((value.len() as u32).to_le_bytes());
        item.extend(b"revision");
        item.extend(value);
        let mut out = vec![START, 1, 0, 0, 0];
        out.extend(9u64.to_le_bytes());
        out.extend(&item);
        out.push(END);
        out.extend(xxh3_64(&item).to_le_bytes());
        out.extend(TRAILER);
        out
    }

    /// Three batches, one of them changed by `harm`.
    fn verdict(harm: impl Fn(&mut Vec<u8>)) -> (Verdict, [usize; 3]) {
        let batches = [sample(b"one"), sample(&[7; 2000]), sample(&[8; 3000])];
        let starts = [0, batches[0].len(), batches[0].len() + batches[1].len()];
        let mut bytes = batches.concat();
        harm(&mut bytes);
        (judge(&bytes), starts)
    }

    #[test]
    fn whole_batches_are_whole() {
        assert_eq!(verdict(|_| ()).0, Verdict::Whole);
        assert_eq!(judge(&[]), Verdict::Whole);
    }

    #[test]
    fn a_flipped_byte_before_the_end_is_damage() {
        for offset in [0, 3, 20, 26, 45] {
            let (verdict, [_, second, _]) = verdict(|bytes| bytes[offset + sample(b"one").len()] ^= 0x40);
            assert_eq!(verdict, Verdict::Damaged { at: second }, "byte {offset} of the second batch");
        }
    }

    #[test]
    fn a_flipped_byte_in_the_last_batch_is_damage_because_its_end_is_there() {
        let (verdict, [.., third]) = verdict(|bytes| *bytes.last_chunk_mut::<100>().unwrap().first_mut().unwrap() ^= 1);
        assert_eq!(verdict, Verdict::Damaged { at: third });
    }

    #[test]
    fn a_batch_without_its_end_is_torn_wherever_it_was_cut() {
        let whole = sample(b"one").len() + sample(&[7; 2000]).len();
        for length in 1..sample(&[8; 3000]).len() {
            let (verdict, [.., third]) = verdict(|bytes| bytes.truncate(whole + length));
            assert_eq!(verdict, Verdict::Torn { at: third }, "{length} bytes of the third batch");
        }
    }

    #[test]
    fn a_batch_of_which_one_sector_never_arrived_is_torn() {
        let (verdict, [.., third]) = verdict(|bytes| bytes[3072..3584].fill(0));
        assert_eq!(verdict, Verdict::Torn { at: third });
    }

    #[test]
    fn what_was_synced_behind_a_missing_sector_shows_that_it_once_was_there() {
        // Lazy batches, and the one that was being synced, may reach the disk in any order; two synced ones may not.
        let lazy = super::super::record::LAZY;
        for (follow, torn) in [(vec![], true), (vec![lazy; 3], true), (vec![lazy, 5], true), (vec![5, lazy, 5], false)]
        {
            let mut bytes = sample(&[lazy; 3000]);
            bytes[1024..1536].fill(0);
            follow.iter().for_each(|kind| bytes.extend(sample(&[*kind; 40])));
            let want = if torn { Verdict::Torn { at: 0 } } else { Verdict::Damaged { at: 0 } };
            assert_eq!(judge(&bytes), want, "{follow:?}");
        }
    }

    #[test]
    fn a_short_batch_that_never_arrived_between_two_that_did_is_torn() {
        let mut bytes = sample(&[super::super::record::LAZY; 3000]);
        let at = bytes.len();
        bytes.resize(at.next_multiple_of(SECTOR_BYTES), 0);
        bytes.extend([9; 20]);
        bytes.extend(TRAILER);
        bytes.extend(sample(b"one"));
        assert_eq!(judge(&bytes), Verdict::Torn { at });
    }
}
