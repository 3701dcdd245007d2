//! One word for a pod: upstream's `getPhase` (`pkg/kubelet/kubelet_pods.go`).

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::spec::{self, RestartPolicy};

pub const PENDING: &str = "Pending";
pub const RUNNING: &str = "Running";
pub const SUCCEEDED: &str = "Succeeded";
pub const FAILED: &str = "Failed";

/// The phase that container states add up to. `ended`: nothing will be started for this pod any more.
#[must_use]
pub fn phase(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], ended: bool) -> &'static str {
    let tally = Tally::of(pod, main);
    if !tally.any_started {
        match initialization(pod, init) {
            Initialization::Failed => return FAILED,
            Initialization::Pending => return PENDING,
            Initialization::Done => {}
        }
    }
    let all_succeeded = tally.stopped == tally.succeeded;
    if tally.waiting > 0 {
        return PENDING;
    }
    if tally.running > 0 && tally.unknown == 0 {
        return RUNNING;
    }
    if tally.running > 0 || tally.stopped == 0 || tally.unknown > 0 {
        return PENDING;
    }
    match (ended, spec::restart_policy(pod)) {
        (true, _) | (false, RestartPolicy::Never) => {
            if all_succeeded {
                SUCCEEDED
            } else {
                FAILED
            }
        }
        (false, RestartPolicy::Always) => RUNNING,
        (false, RestartPolicy::OnFailure) => {
            if all_succeeded {
                SUCCEEDED
            } else {
                RUNNING
            }
        }
    }
}

enum Initialization {
    Done,
    Pending,
    Failed,
}

fn initialization(pod: &Pod, statuses: &[ContainerStatus]) -> Initialization {
    for init in spec::init_containers(pod) {
        let status = statuses.iter().find(|status| status.name == init.name);
        if spec::is_sidecar(init) {
            if status.is_none_or(|status| status.started != Some(true)) {
                return Initialization::Pending;
            }
            continue;
        }
        let state = status.and_then(|status| status.state.as_ref());
        let ended = state.and_then(|state| state.terminated.as_ref());
        match ended {
            Some(ended) if ended.exit_code == 0 => {}
            Some(_) if spec::restart_policy(pod) == RestartPolicy::Never => return Initialization::Failed,
            _ => return Initialization::Pending,
        }
    }
    Initialization::Done
}

#[derive(Default)]
struct Tally {
    any_started: bool,
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
    unknown: usize,
}

impl Tally {
    fn of(pod: &Pod, statuses: &[ContainerStatus]) -> Self {
        let mut tally = Tally::default();
        for container in spec::main_containers(pod) {
            let status = statuses.iter().find(|status| status.name == container.name);
            tally.count(status);
        }
        tally
    }

    fn count(&mut self, status: Option<&ContainerStatus>) {
        let Some(state) = status.and_then(|status| status.state.as_ref()) else {
            self.unknown += 1;
            return;
        };
        let ended_before =
            status.and_then(|status| status.last_state.as_ref()).is_some_and(|last| last.terminated.is_some());
        self.any_started |= state.running.is_some() || state.terminated.is_some() || ended_before;
        if state.running.is_some() {
            self.running += 1;
        } else if let Some(ended) = &state.terminated {
            self.stopped += 1;
            self.succeeded += usize::from(ended.exit_code == 0);
        } else if ended_before {
            self.stopped += 1;
        } else {
            self.waiting += 1;
        }
    }
}
