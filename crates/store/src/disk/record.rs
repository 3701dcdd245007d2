//! Bytes of one record and of one mark, both with a checksum. No IO.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::door::StoreError;
use crate::engine::Record;

/// First byte of a record, bit 0: the key was written (and not deleted).
const WRITTEN: u8 = 1;
/// First byte of a record, bit 1: its batch was not synced by itself.
pub(super) const LAZY: u8 = 2;
const CHECKSUM_BYTES: usize = 8;
/// Kind, previous, created, live, length of the key.
const HEAD_BYTES: usize = 1 + 8 + 8 + 8 + 4;

/// The value under the key `record.revision`.
///
/// # Errors
/// When the key is longer than the format can say.
pub(super) fn encode(record: &Record, synced: bool) -> Result<Vec<u8>, StoreError> {
    let value = record.value.as_deref().unwrap_or_default();
    let length = u32::try_from(record.key.len())
        .map_err(|_| StoreError::Engine(format!("a key of {} bytes is too long", record.key.len())))?;
    let mut out = Vec::with_capacity(HEAD_BYTES + record.key.len() + value.len() + CHECKSUM_BYTES);
    out.push(if record.value.is_some() { WRITTEN } else { 0 } | if synced { 0 } else { LAZY });
    out.extend(record.previous.to_le_bytes());
    out.extend(record.created.to_le_bytes());
    out.extend(record.live.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend(&record.key[..]);
    out.extend(value);
    out.extend(checksum(&record.revision.to_be_bytes(), &out).to_le_bytes());
    Ok(out)
}

/// # Errors
/// [`StoreError::Damaged`] when these are not the bytes that [`encode`] made for this key.
pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Result<Record, StoreError> {
    let revision = <[u8; 8]>::try_from(key).map(u64::from_be_bytes);
    let revision = revision.map_err(|_| StoreError::Damaged(format!("a record has a key of {} bytes", key.len())))?;
    parse(revision, bytes).ok_or_else(|| StoreError::Damaged(format!("the record of revision {revision} is damaged")))
}

fn parse(revision: u64, bytes: &[u8]) -> Option<Record> {
    let body = checked(&revision.to_be_bytes(), bytes)?;
    let (head, rest) = body.split_at_checked(HEAD_BYTES)?;
    let number = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
    let length = u32::from_le_bytes(head.get(25..29)?.try_into().ok()?);
    let (key, value) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let value = match *head.first()? & !LAZY {
        WRITTEN => Some(Bytes::copy_from_slice(value)),
        0 if value.is_empty() => None,
        _ => return None,
    };
    let key = Bytes::copy_from_slice(key);
    Some(Record { revision, previous: number(1)?, key, value, created: number(9)?, live: number(17)? })
}

/// Was the batch of this record not synced by itself?
pub(super) fn is_lazy(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|kind| kind & LAZY != 0)
}

/// The value of a mark.
pub(super) fn encode_meta(name: &str, value: u64) -> Vec<u8> {
    let mut out = value.to_le_bytes().to_vec();
    out.extend(checksum(name.as_bytes(), &out).to_le_bytes());
    out
}

/// # Errors
/// [`StoreError::Damaged`] when these are not the bytes that [`encode_meta`] made for this mark.
pub(super) fn decode_meta(name: &str, bytes: &[u8]) -> Result<u64, StoreError> {
    let value = checked(name.as_bytes(), bytes).and_then(|body| body.try_into().ok()).map(u64::from_le_bytes);
    value.ok_or_else(|| StoreError::Damaged(format!("the mark {name:?} is damaged")))
}

fn checked<'a>(salt: &[u8], bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    (sum == checksum(salt, body).to_le_bytes()).then_some(body)
}

/// Covers the key as well, so that a record in another's place is noticed.
fn checksum(salt: &[u8], body: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(salt);
    hasher.update(body);
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(value: Option<&'static [u8]>) -> Record {
        let (key, value) = (Bytes::from_static(b"/pods/default/web-0"), value.map(Bytes::from_static));
        Record { revision: 7, previous: 6, key, value, created: 3, live: 12 }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        for record in [sample(Some(b"value")), sample(Some(b"")), sample(None)] {
            assert_eq!(decode(&7u64.to_be_bytes(), &encode(&record, false).unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = encode(&sample(Some(b"value")), true).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&7u64.to_be_bytes(), &flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode(&7u64.to_be_bytes(), &bytes[..length]).is_err(), "length {length}");
        }
        assert!(decode(&8u64.to_be_bytes(), &bytes).is_err(), "in the place of another revision");
    }

    #[test]
    fn a_mark_is_not_taken_for_another() {
        let bytes = encode_meta("floor", 9);
        assert_eq!(decode_meta("floor", &bytes).unwrap(), 9);
        assert!(decode_meta("base", &bytes).is_err());
    }
}
