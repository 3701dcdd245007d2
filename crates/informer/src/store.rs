//! The objects of one kind in memory, with indexes. No IO and no waiting.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::Key;

/// The values under which an object is found in one index.
pub type IndexFn<K> = fn(&K) -> Vec<String>;

type Names<K> = BTreeMap<Arc<str>, Arc<K>>;

/// Objects by namespace and name, and by every index.
pub(crate) struct Store<K> {
    namespaces: BTreeMap<Arc<str>, Names<K>>,
    indexes: Vec<Index<K>>,
    len: usize,
}

struct Index<K> {
    name: &'static str,
    values_of: IndexFn<K>,
    objects: HashMap<String, BTreeMap<Key, Arc<K>>>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self { namespaces: BTreeMap::new(), indexes: Vec::new(), len: 0 }
    }
}

impl<K> Store<K> {
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.namespaces.get(namespace)?.get(name)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<K>> {
        self.namespaces.values().flat_map(BTreeMap::values)
    }

    pub(crate) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        self.namespaces.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    pub(crate) fn by_index(&self, index: &str, value: &str) -> Option<impl Iterator<Item = &Arc<K>>> {
        let index = self.indexes.iter().find(|i| i.name == index)?;
        Some(index.objects.get(value).into_iter().flat_map(BTreeMap::values))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.namespaces
            .iter()
            .flat_map(|(ns, names)| names.keys().map(|name| Key { namespace: ns.clone(), name: name.clone() }))
    }

    /// Puts `object` in place of what was there, which is returned.
    pub(crate) fn insert(&mut self, key: &Key, object: &Arc<K>) -> Option<Arc<K>> {
        let names = self.namespaces.entry(key.namespace.clone()).or_default();
        let old = names.insert(key.name.clone(), object.clone());
        self.len += usize::from(old.is_none());
        for index in &mut self.indexes {
            index.replace(key, old.as_ref(), Some(object));
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let names = self.namespaces.get_mut(&key.namespace)?;
        let old = names.remove(&key.name)?;
        if names.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
        self.len -= 1;
        for index in &mut self.indexes {
            index.replace(key, Some(&old), None);
        }
        Some(old)
    }

    /// Adds an index over the objects that are there and those to come, unless one of that name exists.
    pub(crate) fn add_index(&mut self, name: &'static str, values_of: IndexFn<K>) {
        if self.indexes.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index { name, values_of, objects: HashMap::new() };
        for (namespace, names) in &self.namespaces {
            for (name, object) in names {
                let key = Key { namespace: namespace.clone(), name: name.clone() };
                index.replace(&key, None, Some(object));
            }
        }
        self.indexes.push(index);
    }
}

impl<K> Index<K> {
    fn replace(&mut self, key: &Key, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        for value in old.map(|o| (self.values_of)(o)).unwrap_or_default() {
            if let Some(bucket) = self.objects.get_mut(&value) {
                bucket.remove(key);
                if bucket.is_empty() {
                    self.objects.remove(&value);
                }
            }
        }
        if let Some(object) = new {
            for value in (self.values_of)(object) {
                self.objects.entry(value).or_default().insert(key.clone(), object.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Text = &'static str;

    fn words(store: &Store<Text>, index: &str, value: &str) -> Vec<Text> {
        store.by_index(index, value).expect("index").map(|o| **o).collect()
    }

    #[test]
    fn an_index_follows_the_objects_and_may_come_later_than_they() {
        let mut store = Store::default();
        let first = |word: &Text| vec![word[..1].to_owned()];
        store.insert(&Key::new("a", "1"), &Arc::new("apple"));
        store.add_index("first", first);
        store.insert(&Key::new("a", "2"), &Arc::new("avocado"));
        assert_eq!(words(&store, "first", "a"), ["apple", "avocado"]);
        store.insert(&Key::new("a", "1"), &Arc::new("banana"));
        assert_eq!(words(&store, "first", "a"), ["avocado"]);
        assert_eq!(words(&store, "first", "b"), ["banana"]);
        store.remove(&Key::new("a", "1"));
        assert_eq!(words(&store, "first", "b"), [""; 0]);
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn a_namespace_lists_only_its_own() {
        let mut store = Store::default();
        for (ns, name) in [("a", "x"), ("a", "y"), ("b", "x")] {
            store.insert(&Key::new(ns, name), &Arc::new(name));
        }
        assert_eq!(store.of_namespace("a").count(), 2);
        assert_eq!(store.all().count(), 3);
        assert!(store.get("b", "y").is_none());
    }
}
