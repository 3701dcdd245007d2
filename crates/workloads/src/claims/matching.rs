//! Which volume fits a claim best.
//!
//! Source: `FindMatchingVolume` in `k8s.io/component-helpers/storage/volume`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use stead_machinery::quantity::Quantity;

use super::{claim_ref, class_of_claim, class_of_volume, points_at, volume_phase};
use crate::owner::selects;

/// What a claim asks for at least.
#[must_use]
pub fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    amount(requests.and_then(|requests| requests.get("storage")))
}

/// What a volume holds.
#[must_use]
pub fn capacity(volume: &PersistentVolume) -> Quantity {
    amount(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage")))
}

pub(crate) fn amount(quantity: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> Quantity {
    quantity.and_then(|quantity| quantity.0.parse().ok()).unwrap_or_default()
}

fn mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

/// Both are used as a file system, or both as a device.
#[must_use]
pub fn same_mode(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    mode(claim.spec.as_ref().and_then(|s| s.volume_mode.as_ref()))
        == mode(volume.spec.as_ref().and_then(|s| s.volume_mode.as_ref()))
}

/// The volume can be used in every way that the claim asks for.
#[must_use]
pub fn modes_fit(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let offered = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    let wanted = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    wanted.iter().all(|mode| offered.contains(mode))
}

/// Why a volume that the user named cannot serve the claim.
///
/// # Errors
/// Upstream's text.
pub fn satisfies(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), &'static str> {
    if capacity(volume) < requested(claim) {
        return Err("requested PV is too small");
    }
    if class_of_volume(volume) != class_of_claim(claim).unwrap_or_default() {
        return Err("storageClassName does not match");
    }
    if !same_mode(claim, volume) {
        return Err("incompatible volumeMode");
    }
    if !modes_fit(claim, volume) {
        return Err("incompatible accessMode");
    }
    Ok(())
}

/// The best volume among `volumes`: one that points at the claim already, else the smallest free one that fits.
/// With `delayed` only the former: the scheduler chooses among the free ones.
#[must_use]
pub fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [Arc<PersistentVolume>],
    delayed: bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let usable = |volume: &&Arc<PersistentVolume>| {
        volume.metadata.deletion_timestamp.is_none()
            && same_mode(claim, volume)
            && capacity(volume) >= requested(claim)
            && modes_fit(claim, volume)
    };
    if let Some(mine) = volumes.iter().filter(usable).find(|volume| points_at(volume, claim)) {
        return Some(mine);
    }
    if delayed {
        return None;
    }
    let class = class_of_claim(claim).unwrap_or_default();
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let labels = |volume: &PersistentVolume| volume.metadata.labels.clone().unwrap_or_default();
    volumes
        .iter()
        .filter(usable)
        .filter(|volume| claim_ref(volume).is_none() && volume_phase(volume) == "Available")
        .filter(|volume| class_of_volume(volume) == class)
        .filter(|volume| selector.is_none_or(|selector| selects(selector, &labels(volume))))
        .min_by(|a, b| capacity(a).cmp(&capacity(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name)))
}
