//! Which change wakes which key.

use stead_informer::{Cache, Change, Key, Object, Queue, index};

/// A change of an object wakes the key of that object.
pub fn wake_self<K: Object>(cache: &Cache<K>, queue: &Queue<Key>) {
    let queue = queue.clone();
    cache.on_change(move |change| queue.add(change.key.clone()));
}

/// A change of an object wakes its controller of that kind (and the one it had before).
pub fn wake_controller<K: Object>(cache: &Cache<K>, kind: &'static str, queue: &Queue<Key>) {
    wake(cache, queue, move |change| {
        let owners =
            [&change.old, &change.new].into_iter().flatten().filter_map(|object| index::controller_of(&**object));
        owners.filter(|owner| owner.kind == kind).map(|owner| Key::new(&change.key.namespace, &owner.name)).collect()
    });
}

/// A change of an object wakes the keys that `keys` finds for it.
pub fn wake<K, F>(cache: &Cache<K>, queue: &Queue<Key>, keys: F)
where
    K: Object,
    F: Fn(&Change<K>) -> Vec<Key> + Send + 'static,
{
    let queue = queue.clone();
    cache.on_change(move |change| {
        for key in keys(change) {
            queue.add(key);
        }
    });
}
