//! What a person sees: one line for each thing that happens, with the time since the start.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Instant;

#[derive(Clone, Copy)]
pub(super) struct Screen {
    started: Instant,
    colour: bool,
}

impl Screen {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), colour: std::io::stdout().is_terminal() }
    }

    pub(super) fn say(&self, what: &str) {
        let seconds = self.started.elapsed().as_secs_f32();
        if self.colour {
            println!("\x1b[2m{seconds:7.3} s\x1b[0m  {what}");
        } else {
            println!("{seconds:7.3} s  {what}");
        }
    }

    /// A heading between the acts.
    pub(super) fn act(&self, title: &str) {
        if self.colour { println!("\n\x1b[1m{title}\x1b[0m") } else { println!("\n{title}") }
    }

    pub(super) fn next_steps(&self, kubeconfig: &Path) {
        self.act("Try next, in another terminal");
        println!("  export KUBECONFIG={}", kubeconfig.display());
        println!("  kubectl get sts,pods,pvc -o wide");
        println!("  kubectl scale sts demo --replicas=5");
        println!("  kubectl delete pod demo-0; kubectl get pods -w");
        println!("  stead check default demo --kubeconfig $KUBECONFIG\n");
    }

    pub(super) fn try_next(&self) {
        self.act("Try next");
        println!("  stead quickstart --keep           the same, and the cluster stays for you to play with");
        println!("  sudo stead server                 a cluster that keeps its data in /var/lib/stead");
        println!("  kubectl --kubeconfig /etc/stead/stead.yaml get pods -A");
    }
}
