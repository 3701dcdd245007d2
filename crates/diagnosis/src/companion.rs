//! Who does what for a set: a stead's own controller all of it, another cluster's only what upstream's API says, and a
//! companion (`stead controller`) what a set asks it for.

use k8s_openapi::api::apps::v1::StatefulSet;
use stead_workloads::statefulset::companion::{self, Asked, Ignored, MANAGED, PROGRESS, Share};
use stead_workloads::statefulset::wishes;

use crate::finding::Finding;
use crate::snapshot::{Snapshot, name};

/// A set as this cluster treats it.
pub(crate) struct Treatment {
    /// With what its annotations ask for where somebody does it, and without what nobody does.
    pub(crate) set: StatefulSet,
    /// What of it a companion does.
    pub(crate) share: Option<Share>,
    ignored: Vec<Ignored>,
    /// It asks for a companion, and there is none.
    alone: bool,
}

impl Treatment {
    pub(crate) fn of(snapshot: &Snapshot, set: &StatefulSet) -> Self {
        let share = Share::of(set, false);
        let alone = share.is_some() && snapshot.companion == Some(false) && !is_looked_at(set);
        match share {
            Some(share) if !alone => {
                let Asked { set, ignored } = companion::asked(set, share);
                Self { set, share: Some(share), ignored, alone }
            }
            None if snapshot.heals => Self { set: set.clone(), share: None, ignored: Vec::new(), alone },
            Some(_) | None => {
                let ignored = if alone { Vec::new() } else { unknown(set) };
                Self { set: companion::left(set), share: None, ignored, alone }
            }
        }
    }

    /// What is asked for in vain.
    pub(crate) fn findings(&self, snapshot: &Snapshot) -> Vec<Finding> {
        let word = format!("statefulset/{}", name(&self.set.metadata));
        let mut findings = Vec::new();
        if self.alone {
            let what = "it asks for a companion beside this cluster's own controller, and none runs";
            let (kubectl, absent) = (snapshot.kubectl(), "lease kube-system/stead-controller");
            findings.push(
                Finding::new("NoCompanion", word.as_str(), what)
                    .seen(format!("metadata.annotations[{MANAGED}]"), "true")
                    .seen(absent, "nobody holds it")
                    .advice("run `stead controller` (docs/controller.md)")
                    .mended_by("or do without", format!("{kubectl} annotate {word} {MANAGED}-")),
            );
        }
        findings.extend(self.ignored.iter().map(|Ignored { annotation, why }| {
            Finding::new(
                "IgnoredAnnotation",
                word.as_str(),
                format!("annotation {annotation} does nothing here: {why}"),
            )
            .note()
        }));
        findings
    }
}

/// A companion has written down how the newest revision gets on.
fn is_looked_at(set: &StatefulSet) -> bool {
    let update = set.status.as_ref().and_then(|status| status.update_revision.as_deref());
    let progress = set.metadata.annotations.as_ref().and_then(|all| all.get(PROGRESS));
    update.zip(progress).is_some_and(|(update, progress)| progress.contains(update))
}

/// Annotations that only a stead knows, on a set of another cluster.
fn unknown(set: &StatefulSet) -> Vec<Ignored> {
    /// What a companion would do, and what only a stead's own controller can.
    const COMPANIONS: [&str; 5] = [
        wishes::PROGRESS_DEADLINE,
        wishes::PAUSED,
        wishes::ORDERED_DELETE,
        wishes::UPDATE_LAST,
        companion::CLAIM_SIZES,
    ];
    const OWN: [&str; 3] = [wishes::RESERVED, wishes::DEPENDS_ON, wishes::GROW_CLAIMS];
    let why = |key: &str| {
        let companions = COMPANIONS.contains(&key);
        let hint = if companions { format!("; with {MANAGED}: \"true\" a companion does") } else { String::new() };
        let known = companions || OWN.contains(&key);
        known.then(|| format!("this cluster's own controller does not know it{hint}"))
    };
    let asked = set.metadata.annotations.iter().flatten().filter(|(_, value)| *value != "false");
    asked.filter_map(|(key, _)| Some(Ignored { annotation: key.clone(), why: why(key)? })).collect()
}
