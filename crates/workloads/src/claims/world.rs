//! Claims, volumes and a crash-prone executor in miniature, for the tests of the plans.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::claim::{Act, Plan, Snapshot, User, plan};
use super::{CLAIM_FINALIZER, Event, VOLUME_FINALIZER, annotation, bind, claim_ref, name, volume};
use crate::provision::Place;

/// Everything there is. Objects are kept as JSON so that states can be compared.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) claims: BTreeMap<String, PersistentVolumeClaim>,
    pub(super) volumes: BTreeMap<String, PersistentVolume>,
    pub(super) classes: BTreeMap<String, StorageClass>,
    pub(super) default_class: Option<String>,
    pub(super) users: BTreeMap<String, Vec<User>>,
    pub(super) nodes: Vec<String>,
    pub(super) local: bool,
    /// Distinguishes objects of the same name.
    pub(super) births: u32,
}

/// Writes until the process dies; `None`: it lives.
pub(super) struct Life(pub(super) Option<usize>);

impl Life {
    /// Whether one more write happens.
    fn write(&mut self) -> bool {
        match &mut self.0 {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

impl World {
    pub(super) fn class(&mut self, class: Value) {
        let class: StorageClass = serde_json::from_value(class).expect("a class");
        self.classes.insert(name(&class.metadata).to_owned(), class);
    }

    /// `size` like `1Gi`; `class` like `standard`, `""` or `-` for none said.
    pub(super) fn claim(&mut self, own: &str, size: &str, class: &str) {
        self.births += 1;
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
        if class != "-" {
            spec["storageClassName"] = class.trim_matches('"').into();
        }
        let metadata = json!({
            "name": own, "namespace": "ns", "uid": format!("c{}", self.births), "finalizers": [CLAIM_FINALIZER],
        });
        let claim = json!({"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}});
        self.claims.insert(own.to_owned(), serde_json::from_value(claim).expect("a claim"));
    }

    pub(super) fn volume(&mut self, own: &str, size: &str, class: &str) {
        self.births += 1;
        let metadata = json!({"name": own, "uid": format!("v{}", self.births), "finalizers": [VOLUME_FINALIZER]});
        let volume = json!({"metadata": metadata, "status": {"phase": "Pending"}, "spec": {
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "capacity": {"storage": size},
            "storageClassName": class.trim_matches('"'), "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/x"},
        }});
        self.volumes.insert(own.to_owned(), serde_json::from_value(volume).expect("a volume"));
    }

    pub(super) fn snapshot(&self, own: &str) -> Option<Snapshot> {
        let claim = self.claims.get(own)?;
        let class = super::class_of_claim(claim).unwrap_or_default();
        let place = |node: &String| Place {
            node: node.clone(),
            hostname: format!("{node}.lan"),
            open: true,
            volumes: self.volumes.len(),
        };
        Some(Snapshot {
            claim: Arc::new(claim.clone()),
            volumes: self.volumes.values().cloned().map(Arc::new).collect(),
            class: self.classes.get(class).cloned().map(Arc::new),
            default_class: self.default_class.clone(),
            users: self.users.get(own).cloned().unwrap_or_default(),
            places: self.nodes.iter().map(place).collect(),
            storage_dir: self.local.then(|| "/data/storage".to_owned()),
        })
    }

    pub(super) fn claim_plan(&self, own: &str) -> Plan {
        self.snapshot(own).map(|snapshot| plan(&snapshot, true)).unwrap_or_default()
    }

    pub(super) fn volume_plan(&self, own: &str) -> volume::Plan {
        let Some(volume) = self.volumes.get(own) else { return volume::Plan::default() };
        let of = claim_ref(volume).and_then(|reference| reference.name.clone()).unwrap_or_default();
        let claim = self.claims.get(&of).cloned().map(Arc::new);
        volume::plan(&volume::Snapshot { volume: Arc::new(volume.clone()), claim }, true)
    }

    /// Looks at a claim once and does what the plan says, as far as life goes.
    pub(super) fn sync_claim(&mut self, own: &str, life: &mut Life) -> Vec<Event> {
        let plan = self.claim_plan(own);
        for act in plan.acts {
            let goes_on = match act {
                Act::Update(claim) | Act::Status(claim) => self.write_claim(claim, life),
                Act::UpdateVolume(volume) => self.write_volume(volume, life),
                Act::AskPods => unreachable!("everything has been asked"),
                Act::Bind(volume) => self.bind(&volume, own, None, life),
                Act::Provision { volume, claim } => {
                    self.births += 1;
                    self.write_volume(volume.clone(), life) && self.bind(&volume, own, Some(claim), life)
                }
            };
            if !goes_on {
                break;
            }
        }
        plan.events
    }

    fn bind(
        &mut self,
        volume: &PersistentVolume,
        own: &str,
        claim: Option<PersistentVolumeClaim>,
        life: &mut Life,
    ) -> bool {
        let name_of = name(&volume.metadata).to_owned();
        let claim = claim.or_else(|| self.claims.get(own).cloned()).expect("planned for");
        if bind::volume(volume, &claim).is_some_and(|bound| !self.write_volume(bound, life)) {
            return false;
        }
        let volume = self.volumes[&name_of].clone();
        if bind::volume_status(&volume).is_some_and(|bound| !self.write_volume(bound, life)) {
            return false;
        }
        let volume = self.volumes[&name_of].clone();
        if bind::claim(&claim, &volume).is_some_and(|bound| !self.write_claim(bound, life)) {
            return false;
        }
        let claim = self.claims[own].clone();
        bind::claim_status(&claim, &volume).is_none_or(|bound| self.write_claim(bound, life))
    }

    pub(super) fn sync_volume(&mut self, own: &str, life: &mut Life) -> Vec<Event> {
        let plan = self.volume_plan(own);
        for act in plan.acts {
            let goes_on = match act {
                volume::Act::Update(volume) | volume::Act::Status(volume) => self.write_volume(volume, life),
                volume::Act::WakeClaim | volume::Act::AskClaim => true,
            };
            if !goes_on {
                break;
            }
        }
        plan.events
    }

    fn write_claim(&mut self, claim: PersistentVolumeClaim, life: &mut Life) -> bool {
        let lives = life.write();
        if lives {
            let own = name(&claim.metadata).to_owned();
            let going = claim.metadata.deletion_timestamp.is_some();
            if going && claim.metadata.finalizers.iter().flatten().next().is_none() {
                self.claims.remove(&own);
            } else {
                self.claims.insert(own, claim);
            }
        }
        lives
    }

    fn write_volume(&mut self, volume: PersistentVolume, life: &mut Life) -> bool {
        let lives = life.write();
        if lives {
            let own = name(&volume.metadata).to_owned();
            let going = volume.metadata.deletion_timestamp.is_some();
            if going && volume.metadata.finalizers.iter().flatten().next().is_none() {
                self.volumes.remove(&own);
            } else {
                self.volumes.insert(own, volume);
            }
        }
        lives
    }

    pub(super) fn delete_claim(&mut self, own: &str) {
        if let Some(claim) = self.claims.get_mut(own) {
            claim.metadata.deletion_timestamp.get_or_insert(Time(jiff::Timestamp::UNIX_EPOCH));
        }
    }

    pub(super) fn delete_volume(&mut self, own: &str) {
        if let Some(volume) = self.volumes.get_mut(own) {
            volume.metadata.deletion_timestamp.get_or_insert(Time(jiff::Timestamp::UNIX_EPOCH));
        }
    }

    pub(super) fn annotate_claim(&mut self, own: &str, key: &str, value: &str) {
        super::annotate(&mut self.claims.get_mut(own).expect("a claim").metadata, key, value);
    }

    /// Syncs everything until nothing changes; fails when that never happens.
    pub(super) fn settle(&mut self) {
        for _ in 0..20 {
            let before = self.fingerprint();
            let (claims, volumes): (Vec<_>, Vec<_>) =
                (self.claims.keys().cloned().collect(), self.volumes.keys().cloned().collect());
            volumes.iter().for_each(|own| drop(self.sync_volume(own, &mut Life(None))));
            claims.iter().for_each(|own| drop(self.sync_claim(own, &mut Life(None))));
            if self.fingerprint() == before {
                return;
            }
        }
        panic!("it never settles: {}", self.draw());
    }

    pub(super) fn fingerprint(&self) -> String {
        serde_json::to_string(&(&self.claims, &self.volumes)).expect("JSON")
    }

    /// `a:Bound>v1 b:Pending | v1:Bound>a(c1) v2:Available`.
    pub(super) fn draw(&self) -> String {
        let claims = self.claims.iter().map(|(own, claim)| {
            let to = super::volume_name(claim);
            let to = if to.is_empty() { String::new() } else { format!(">{to}") };
            format!("{own}:{}{to}", super::claim_phase(claim))
        });
        let volumes = self.volumes.iter().map(|(own, volume)| {
            let to = claim_ref(volume).map(|r| format!(">{}", r.name.as_deref().unwrap_or_default()));
            format!("{own}:{}{}", super::volume_phase(volume), to.unwrap_or_default())
        });
        let (claims, volumes): (Vec<_>, Vec<_>) = (claims.collect(), volumes.collect());
        format!("{} | {}", claims.join(" "), volumes.join(" "))
    }

    /// What must be true at every moment.
    pub(super) fn check(&self) {
        for (own, claim) in &self.claims {
            if super::claim_phase(claim) != "Bound" {
                continue;
            }
            let Some(volume) = self.volumes.get(super::volume_name(claim)) else { continue };
            let uid = claim_ref(volume).and_then(|r| r.uid.clone());
            assert_eq!(uid, claim.metadata.uid, "{own} is Bound to a volume of another claim: {}", self.draw());
            assert!(annotation(&claim.metadata, super::BIND_COMPLETED).is_some(), "{}", self.draw());
        }
    }
}
