//! A small world for admission: objects to look up, an address pool that gives what a story expects.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use stead_admission::addresses::{AddressPool, AllocationError, Protocol, ServicePool};
use stead_admission::{Context, Lookup};
use stead_api::{Kind, kinds};

/// Objects by resource.
#[derive(Default)]
pub struct World {
    pub objects: Vec<(&'static Kind, Arc<Value>)>,
}

impl World {
    /// The namespace `obj` with its account, the class `standard`, the system's priority classes.
    pub fn new() -> Self {
        let mut world = Self::default();
        world.add(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "obj"}}));
        world.add(
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "obj"}}),
        );
        world.add(json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/x",
            "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        }));
        world
    }

    pub fn add(&mut self, object: Value) {
        self.objects.push((kind_of(&object), Arc::new(object)));
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

pub fn kind_of(object: &Value) -> &'static Kind {
    kinds::by_api_version(text(object, "/apiVersion"), text(object, "/kind")).expect("a known kind")
}

impl Lookup for World {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let ns = (!namespace.is_empty()).then_some(namespace);
        self.list(group, plural, ns).into_iter().find(|object| text(object, "/metadata/name") == name)
    }

    fn list(&self, group: &str, plural: &str, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let here = |object: &Value| namespace.is_none_or(|ns| text(object, "/metadata/namespace") == ns);
        let of = |kind: &Kind| kind.group == group && kind.plural == plural;
        self.objects.iter().filter(|(kind, object)| of(kind) && here(object)).map(|(_, o)| o.clone()).collect()
    }
}

/// Gives one address and one port, whatever is asked; certain ones are judged by a real pool.
pub struct Fixed {
    pub ip: String,
    pub port: u16,
    pub pool: ServicePool,
}

impl Fixed {
    pub fn new(ip: &str, port: u16) -> Self {
        let pool = ServicePool::new("10.96.0.0/16", stead_admission::addresses::NODE_PORTS).expect("a range");
        Self { ip: ip.to_owned(), port, pool }
    }
}

impl AddressPool for Fixed {
    fn allocate_ip(&self, _seed: u64) -> Result<IpAddr, AllocationError> {
        self.ip.parse().map_err(|_| AllocationError("range is full".to_owned()))
    }
    fn reserve_ip(&self, ip: IpAddr) -> Result<(), AllocationError> {
        self.pool.reserve_ip(ip)
    }
    fn release_ip(&self, ip: IpAddr) {
        self.pool.release_ip(ip);
    }
    fn allocate_port(&self, _protocols: &[Protocol], _seed: u64) -> Result<u16, AllocationError> {
        Ok(self.port)
    }
    fn reserve_port(&self, port: i64, protocol: Protocol) -> Result<(), AllocationError> {
        self.pool.reserve_port(port, protocol)
    }
    fn release_port(&self, port: u16, protocol: Protocol) {
        self.pool.release_port(port, protocol);
    }
}

/// Runs `f` with a context over a world.
pub fn with_context<T>(
    world: &World,
    addresses: &dyn AddressPool,
    suffix: &str,
    f: impl FnOnce(&mut Context<'_>) -> T,
) -> T {
    let mut random = |_: usize| suffix.to_owned();
    let groups = vec!["system:masters".to_owned()];
    f(&mut Context {
        now: "2026-11-20T14:55:13Z".parse().expect("a time"),
        user: "admin",
        groups: &groups,
        lookup: world,
        random: &mut random,
        addresses,
        dry_run: false,
    })
}

/// RFC 7386: nulls remove.
pub fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().expect("an object").remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}
