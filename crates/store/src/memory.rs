//! The engine of a store that lives in memory only: nothing below the working set.

use crate::door::{Revision, StoreError};
use crate::engine::{Engine, Loaded, Record};

/// Keeps nothing.
#[derive(Debug)]
pub(crate) struct Memory;

impl Engine for Memory {
    fn load(&mut self, _each: &mut dyn FnMut(Record) -> Result<(), StoreError>) -> Result<Loaded, StoreError> {
        Ok(Loaded::default())
    }

    fn append(&mut self, _records: &[Record], _sync: bool) -> Result<(), StoreError> {
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn forget(&mut self, _floor: Revision, _dead: &[Revision]) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Durability, Expect, Write};
    use bytes::Bytes;

    #[tokio::test]
    async fn a_memory_store_needs_nothing_and_tells_its_watchers() {
        let store = crate::memory();
        let mut watch = store.watch(b"a/", 0).await.unwrap();
        let write = Write {
            key: Bytes::from_static(b"a/x"),
            value: Some(Bytes::from_static(b"1")),
            expect: Expect::Absent,
            durability: Durability::Now,
        };
        assert_eq!(store.write(write.clone()).await.unwrap(), 1);
        assert!(store.write(write).await.is_err());
        assert_eq!(watch.recv().await.unwrap().revision, 1);
        assert_eq!(store.range(b"a/", b"", 0, None).await.unwrap().entries.len(), 1);
    }
}
