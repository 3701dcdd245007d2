//! Which call of a storage driver comes next for one volume of a pod on this node.
//!
//! The order is the interface's own: a volume is attached to the node, staged once for all pods of the node, then published to
//! each pod; and back. Every call may be repeated, so what was not seen to have happened is simply done again.

/// What is known of a volume that a pod waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The driver has made itself known on this node.
    pub registered: bool,
    /// The driver's volumes have to be attached first.
    pub attaches: bool,
    /// It is.
    pub attached: bool,
    /// The driver wants to be called once for the node before it is called for a pod.
    pub stages: bool,
    pub staged: bool,
    pub published: bool,
    /// The volume has been made larger since it was last used, and the driver has a part in that here.
    pub grows: bool,
}

/// The next step towards a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is no such driver on this node yet.
    AwaitDriver,
    AwaitAttachment,
    Stage,
    Publish,
    Expand,
    /// The pod has its volume.
    Ready,
}

/// The next step towards a volume.
#[must_use]
pub fn next(wanted: Wanted) -> Step {
    match wanted {
        Wanted { registered: false, .. } => Step::AwaitDriver,
        Wanted { attaches: true, attached: false, .. } => Step::AwaitAttachment,
        Wanted { stages: true, staged: false, .. } => Step::Stage,
        Wanted { published: false, .. } => Step::Publish,
        Wanted { grows: true, .. } => Step::Expand,
        _ => Step::Ready,
    }
}

/// What is known of a volume that a pod lets go of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The pod still has it.
    pub published: bool,
    /// Pods of this node, other than this one, that have it.
    pub others: usize,
    pub staged: bool,
}

/// The next step away from a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepBack {
    Unpublish,
    Unstage,
    /// Nothing of it is left here for this pod.
    Gone,
}

/// The next step away from a volume.
#[must_use]
pub fn next_back(left: Left) -> StepBack {
    match left {
        Left { published: true, .. } => StepBack::Unpublish,
        Left { staged: true, others: 0, .. } => StepBack::Unstage,
        _ => StepBack::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps until `Ready` or until one waits, when each step does what it says.
    fn walk(mut wanted: Wanted) -> Vec<Step> {
        let mut steps = Vec::new();
        loop {
            let step = next(wanted);
            steps.push(step);
            match step {
                Step::AwaitDriver | Step::AwaitAttachment | Step::Ready => return steps,
                Step::Stage => wanted.staged = true,
                Step::Publish => wanted.published = true,
                Step::Expand => wanted.grows = false,
            }
        }
    }

    #[test]
    fn a_volume_comes_up_in_order() {
        let none = Wanted::default();
        let there = Wanted { registered: true, ..none };
        let full = Wanted { attaches: true, stages: true, grows: true, ..there };
        let table = [
            (none, vec![Step::AwaitDriver]),
            (there, vec![Step::Publish, Step::Ready]),
            (full, vec![Step::AwaitAttachment]),
            (Wanted { attached: true, ..full }, vec![Step::Stage, Step::Publish, Step::Expand, Step::Ready]),
            // After a restart of the node's process, nothing is asked twice.
            (Wanted { attached: true, staged: true, published: true, grows: false, ..full }, vec![Step::Ready]),
            // A volume that is in use here must have lost its attachment for somebody to take it away: it waits.
            (Wanted { staged: true, ..full }, vec![Step::AwaitAttachment]),
        ];
        for (wanted, steps) in table {
            assert_eq!(walk(wanted), steps, "{wanted:?}");
        }
    }

    #[test]
    fn the_last_pod_takes_the_stage_away() {
        let left = Left { published: true, others: 0, staged: true };
        let table = [
            (left, StepBack::Unpublish),
            (Left { published: false, ..left }, StepBack::Unstage),
            (Left { published: false, others: 1, ..left }, StepBack::Gone),
            (Left { published: false, staged: false, ..left }, StepBack::Gone),
            (Left { others: 3, ..left }, StepBack::Unpublish),
        ];
        for (left, step) in table {
            assert_eq!(next_back(left), step, "{left:?}");
        }
    }
}
