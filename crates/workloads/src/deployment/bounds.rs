//! How many pods a roll-out may have too many or too few.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub(super) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    deployment.spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// Pods above `replicas` that a roll-out may want; 0 unless rolling.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    if is_recreate(deployment) { 0 } else { fence_posts(deployment).0 }
}

/// Pods below `replicas` that a roll-out may leave available; 0 unless rolling.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    if is_recreate(deployment) || replicas(deployment) == 0 {
        return 0;
    }
    fence_posts(deployment).1.min(replicas(deployment))
}

/// Surge is rounded up, unavailability down; when both are none, one pod may be unavailable.
fn fence_posts(deployment: &Deployment) -> (i32, i32) {
    let rolling = deployment.spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let total = replicas(deployment);
    let surge = resolve(rolling.and_then(|r| r.max_surge.as_ref()), total, true);
    let unavailable = resolve(rolling.and_then(|r| r.max_unavailable.as_ref()), total, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// A number, or a percentage of `total`; `None` is upstream's default of 25%.
pub(super) fn resolve(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(number)) => return (*number).max(0),
        Some(IntOrString::String(text)) => text.strip_suffix('%').and_then(|number| number.parse().ok()).unwrap_or(0),
        None => 25_i64,
    };
    let hundredths = i64::from(total.max(0)) * percent.max(0);
    let rounded = if up { hundredths.div_euclid(100) + i64::from(hundredths % 100 != 0) } else { hundredths / 100 };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surge_is_rounded_up_and_unavailability_down() {
        let percent = IntOrString::String("25%".to_owned());
        assert_eq!(resolve(Some(&percent), 10, true), 3);
        assert_eq!(resolve(Some(&percent), 10, false), 2);
        assert_eq!(resolve(None, 4, true), 1);
        assert_eq!(resolve(Some(&IntOrString::Int(7)), 4, true), 7);
    }
}
