//! `drain`: takes a node out of scheduling and evicts its pods.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/drain`.

mod evicting;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::common::{DryRun, duration};
use super::cordon::{mark, nodes};
use super::delete::{How, delete, until_gone};
use crate::builder::Found;
use crate::failure::{Failure, Result, all, usage};
use crate::print::{at, list};
use crate::server::Call;
use crate::session::Session;
use evicting::{Hands, Limit, Name};

/// Which nodes, and which pods may go.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    nodes: Vec<String>,
    /// Label selector of nodes.
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Leave pods of DaemonSets where they are.
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Evict pods with emptyDir volumes, whose data is lost.
    #[arg(long, alias = "delete-local-data")]
    delete_emptydir_data: bool,
    /// Evict pods that nothing would replace.
    #[arg(long)]
    force: bool,
    /// Seconds that pods get to end; negative: what they ask for.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    grace_period: i64,
    /// How long to try; 0 for as long as it takes.
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// Label selector of pods.
    #[arg(long)]
    pod_selector: Option<String>,
    /// Delete rather than evict.
    #[arg(long)]
    disable_eviction: bool,
    #[arg(long, hide = true)]
    skip_wait_for_delete_timeout: Option<i64>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "unchanged")]
    dry_run: String,
}

/// Takes all of them out of scheduling, so that no pod goes from one to another, and then empties each.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    if flags.nodes.is_empty() && flags.selector.is_none() {
        return usage("drain", "USAGE: drain NODE [flags]");
    }
    let dry_run = DryRun::parse(session, &flags.dry_run)?;
    let (nodes, mut failures) = nodes(session, &flags.nodes, flags.selector.as_deref()).await?;
    let mut cordoned = Vec::new();
    for node in nodes {
        match mark(session, &node, true, dry_run).await {
            Ok(()) => cordoned.push(node),
            Err(failure) => failures.push(failure),
        }
    }
    let mut pending = Vec::new();
    for node in &cordoned {
        match one(session, &flags, node, dry_run).await {
            Ok(()) => session.out(&format!("node/{} drained{}\n", node.name, dry_run.suffix()))?,
            Err(Failure::Closed) => return Err(Failure::Closed),
            Err(failure) => {
                let why = failure.message();
                session.err(&format!(
                    "error: unable to drain node {:?} due to error: {why}, continuing command...\n",
                    node.name
                ));
                pending.push(format!(" {}\n", node.name));
                match failure {
                    Failure::Many(causes) => failures.extend(causes),
                    cause => failures.push(cause),
                }
            }
        }
    }
    if !pending.is_empty() {
        session.err(&format!("There are pending nodes to be drained:\n{}", pending.concat()));
    }
    all(failures)
}

async fn one(session: &Session, flags: &Flags, node: &Found, dry_run: DryRun) -> Result {
    let limit = Limit::from_now(duration(&flags.timeout)?);
    let listed = pods_of(session, flags, node).await?;
    let plan = plan(&listed, flags);
    if !plan.errors.is_empty() {
        return Err(Failure::Many(plan.errors.into_iter().map(Failure::Bare).collect()));
    }
    if !plan.warnings.is_empty() {
        session.err(&format!("Warning: {}\n", plan.warnings.join("; ")));
    }
    let pods = session.kind("", "Pod").await?;
    let found = |pod: &&Value| Found {
        resource: pods.clone(),
        namespace: Some(at(pod, "/metadata/namespace").to_owned()),
        name: at(pod, "/metadata/name").to_owned(),
        object: (*pod).clone(),
        source: String::new(),
    };
    let going = Going { session, flags, dry_run, pods: plan.evict.iter().map(found).collect() };
    if dry_run == DryRun::Client {
        return (0..going.pods.len()).try_for_each(|place| going.done(place));
    }
    let failures = evicting::all(&going, &going.names(), limit).await;
    if failures.is_empty() {
        return Ok(());
    }
    if failures.iter().any(|failure| matches!(failure, Failure::Closed)) {
        return Err(Failure::Closed);
    }
    let failure = Failure::Many(failures);
    tell_pending(session, flags, node, &failure).await;
    Err(failure)
}

async fn pods_of(session: &Session, flags: &Flags, node: &Found) -> Result<Vec<Value>> {
    let pods = session.kind("", "Pod").await?;
    let mut query = vec![("fieldSelector", format!("spec.nodeName={}", node.name))];
    if let Some(selector) = &flags.pod_selector {
        query.push(("labelSelector", selector.clone()));
    }
    let answer = session.server().await?.list(&pods.path(None), &query, "application/json").await?;
    Ok(list(&answer, "/items").to_vec())
}

/// Tells which pods are still there.
async fn tell_pending(session: &Session, flags: &Flags, node: &Found, failure: &Failure) {
    let why = failure.message();
    session.err(&format!("There are pending pods in node {:?} when an error occurred: {why}\n", node.name));
    match pods_of(session, flags, node).await {
        Ok(listed) => {
            for pod in plan(&listed, flags).evict {
                session.err(&format!("pod/{}\n", at(pod, "/metadata/name")));
            }
        }
        Err(also) => session.err(&format!("following errors also occurred:\n{}\n", also.message())),
    }
}

/// Which pods go, and what stands against it.
#[derive(Debug, Default)]
struct Plan<'p> {
    evict: Vec<&'p Value>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

fn plan<'p>(pods: &'p [Value], flags: &Flags) -> Plan<'p> {
    let mut plan = Plan::default();
    let (mut daemons, mut local, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for pod in pods {
        let name = format!("{}/{}", at(pod, "/metadata/namespace"), at(pod, "/metadata/name"));
        let finished = matches!(at(pod, "/status/phase"), "Succeeded" | "Failed");
        let controller = list(pod, "/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true);
        if !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() {
            continue;
        }
        if controller.is_some_and(|owner| owner["kind"] == "DaemonSet") && !finished {
            daemons.push(name);
            continue;
        }
        if !finished && list(pod, "/spec/volumes").iter().any(|volume| volume["emptyDir"].is_object()) {
            local.push(name.clone());
            // What stands against it first is what is told.
            if !flags.delete_emptydir_data {
                continue;
            }
        }
        if !finished && controller.is_none() {
            bare.push(name);
        }
        plan.evict.push(pod);
    }
    for (names, allowed, error, warning) in [
        (
            daemons,
            flags.ignore_daemonsets,
            "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)",
            "ignoring DaemonSet-managed Pods",
        ),
        (
            local,
            flags.delete_emptydir_data,
            "cannot delete Pods with local storage (use --delete-emptydir-data to override)",
            "",
        ),
        (
            bare,
            flags.force,
            "cannot delete Pods that declare no controller (use --force to override)",
            "deleting Pods that declare no controller",
        ),
    ] {
        if names.is_empty() {
            continue;
        }
        let names = names.join(", ");
        match allowed {
            false => plan.errors.push(format!("{error}: {names}")),
            true if warning.is_empty() => {}
            true => plan.warnings.push(format!("{warning}: {names}")),
        }
    }
    plan
}

/// The pods that go, and how.
struct Going<'a> {
    session: &'a Session,
    flags: &'a Flags,
    dry_run: DryRun,
    pods: Vec<Found>,
}

impl Going<'_> {
    fn names(&self) -> Vec<Name<'_>> {
        let names = self
            .pods
            .iter()
            .map(|pod| Name { namespace: pod.namespace.as_deref().unwrap_or_default(), name: &pod.name });
        names.collect()
    }
}

impl Hands for Going<'_> {
    fn evicts(&self) -> bool {
        !self.flags.disable_eviction
    }

    async fn ask(&self, place: usize) -> Result {
        let (pod, tries) = (&self.pods[place], self.dry_run == DryRun::Server);
        let grace_seconds = (self.flags.grace_period >= 0).then_some(self.flags.grace_period);
        if !self.evicts() {
            let how = How { grace_seconds, dry_run: tries, ..How::default() };
            return delete(self.session, pod, &how).await.map(drop);
        }
        let mut options = json!({"gracePeriodSeconds": grace_seconds});
        if tries {
            options["dryRun"] = json!(["All"]);
        }
        let metadata = json!({"name": pod.name, "namespace": pod.namespace});
        let body =
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, "deleteOptions": options});
        let path = format!("{}/eviction", pod.path());
        let call = Call::new(Method::POST, &path).body("application/json", body.to_string().into_bytes());
        self.session.server().await?.send(call).await.map(drop)
    }

    async fn gone(&self, place: usize) -> Result {
        let pod = &self.pods[place];
        match self.dry_run {
            DryRun::None => until_gone(self.session, pod, pod.object["metadata"]["uid"].as_str(), None).await,
            _ => Ok(()),
        }
    }

    fn out(&self, text: &str) -> Result {
        self.session.out(text)
    }

    fn err(&self, text: &str) {
        self.session.err(text);
    }

    fn done(&self, place: usize) -> Result {
        let word = if self.evicts() { "evicted" } else { "deleted" };
        self.session.out(&format!("pod/{} {word}{}\n", self.pods[place].name, self.dry_run.suffix()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Flags {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            flags: Flags,
        }
        use clap::Parser as _;
        Line::parse_from(std::iter::once("drain").chain(line.split_whitespace())).flags
    }

    #[test]
    fn pods_that_would_be_lost_need_to_be_allowed() {
        let owner = |kind: &str| json!([{"controller": true, "kind": kind}]);
        let pods = [
            json!({"metadata": {"namespace": "n", "name": "set", "ownerReferences": owner("StatefulSet")}}),
            json!({"metadata": {"namespace": "n", "name": "daemon", "ownerReferences": owner("DaemonSet")}}),
            json!({"metadata": {"namespace": "n", "name": "bare"}}),
            json!({"metadata": {"namespace": "n", "name": "done"}, "status": {"phase": "Succeeded"}}),
        ];
        let refused = plan(&pods, &flags("n1"));
        assert_eq!(
            refused.errors,
            [
                "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): n/daemon",
                "cannot delete Pods that declare no controller (use --force to override): n/bare",
            ]
        );
        let allowed = plan(&pods, &flags("n1 --ignore-daemonsets --force"));
        let names: Vec<&str> = allowed.evict.iter().map(|pod| at(pod, "/metadata/name")).collect();
        assert_eq!(names, ["set", "bare", "done"]);
        assert_eq!(allowed.warnings.len(), 2);
    }
}
