//! `drain`: takes a node out of scheduling and evicts its pods.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/drain`.

use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::common::{DryRun, duration};
use super::cordon::{mark, nodes};
use super::delete::{How, delete, until_gone};
use crate::builder::Found;
use crate::failure::{Failure, Result, all, plain, usage};
use crate::print::{at, list};
use crate::server::Call;
use crate::session::Session;

/// How long an eviction that a disruption budget refuses waits before it is tried again, as upstream has it.
const RETRY_AFTER: Duration = Duration::from_secs(5);

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

/// Empties each.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    if flags.nodes.is_empty() && flags.selector.is_none() {
        return usage("drain", "USAGE: drain NODE [flags]");
    }
    let dry_run = DryRun::parse(session, &flags.dry_run)?;
    let (nodes, mut failures) = nodes(session, &flags.nodes, flags.selector.as_deref()).await?;
    for node in nodes {
        if let Err(failure) = one(session, &flags, &node, dry_run).await {
            failures.push(failure);
        }
    }
    all(failures)
}

async fn one(session: &Session, flags: &Flags, node: &Found, dry_run: DryRun) -> Result {
    mark(session, node, true, dry_run).await?;
    let pods = session.kind("", "Pod").await?;
    let mut query = vec![("fieldSelector", format!("spec.nodeName={}", node.name))];
    if let Some(selector) = &flags.pod_selector {
        query.push(("labelSelector", selector.clone()));
    }
    let answer = session.server().await?.list(&pods.path(None), &query, "application/json").await?;
    let plan = plan(list(&answer, "/items"), flags);
    if !plan.errors.is_empty() {
        let cause = match &plan.errors[..] {
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        return plain(format!(
            "unable to drain node {:?} due to error: {cause}, continuing command...\nThere are pending nodes to be drained:\n {}\n{}",
            node.name,
            node.name,
            plan.errors.join("\n")
        ));
    }
    if !plan.warnings.is_empty() {
        session.err(&format!("Warning: {}\n", plan.warnings.join("; ")));
    }
    let limit = duration(&flags.timeout)?;
    let evicting = futures::future::join_all(plan.evict.iter().map(|pod| {
        let found = Found {
            resource: pods.clone(),
            namespace: Some(at(pod, "/metadata/namespace").to_owned()),
            name: at(pod, "/metadata/name").to_owned(),
            object: (*pod).clone(),
            source: String::new(),
        };
        evict(session, flags, found, dry_run)
    }));
    let outcomes = match limit.is_zero() {
        true => evicting.await,
        false => match tokio::time::timeout(limit, evicting).await {
            Ok(outcomes) => outcomes,
            Err(_) => {
                return plain(format!(
                    "unable to drain node {:?} due to error: global timeout reached: {}, continuing command...\nThere are pending nodes to be drained:\n {}\nglobal timeout reached: {}",
                    node.name, flags.timeout, node.name, flags.timeout
                ));
            }
        },
    };
    all(outcomes.into_iter().filter_map(std::result::Result::err).collect())?;
    session.out(&format!("node/{} drained{}\n", node.name, dry_run.suffix()))
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

async fn evict(session: &Session, flags: &Flags, pod: Found, dry_run: DryRun) -> Result {
    let word = if flags.disable_eviction { "deleted" } else { "evicted" };
    if dry_run == DryRun::Client {
        return session.out(&format!("pod/{} {word} (dry run)\n", pod.name));
    }
    let namespace = pod.namespace.clone().unwrap_or_default();
    session.out(&format!(
        "{} pod {namespace}/{}\n",
        if flags.disable_eviction { "deleting" } else { "evicting" },
        pod.name
    ))?;
    let grace_seconds = (flags.grace_period >= 0).then_some(flags.grace_period);
    loop {
        let asked = if flags.disable_eviction {
            delete(session, &pod, &How { grace_seconds, dry_run: dry_run == DryRun::Server, ..How::default() }).await
        } else {
            let mut options = json!({"gracePeriodSeconds": grace_seconds});
            if dry_run == DryRun::Server {
                options["dryRun"] = json!(["All"]);
            }
            let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.name, "namespace": namespace}, "deleteOptions": options});
            let path = format!("{}/eviction", pod.path());
            session
                .server()
                .await?
                .send(Call::new(Method::POST, &path).body("application/json", body.to_string().into_bytes()))
                .await
        };
        match asked {
            Ok(_) => break,
            Err(failure) if failure.is_not_found() => return session.out(&format!("pod/{} {word}\n", pod.name)),
            Err(failure) if failure.reason() == "TooManyRequests" => {
                session.err(&format!(
                    "error when evicting pods/{:?} -n {namespace:?} (will retry after 5s): {}\n",
                    pod.name,
                    failure.message()
                ));
                // A budget says nothing when it would allow the eviction: upstream asks again, too.
                tokio::time::sleep(RETRY_AFTER).await;
            }
            Err(failure) => {
                return Err(Failure::Plain(format!(
                    "error when evicting pods/{:?} -n {namespace:?}: {}",
                    pod.name,
                    failure.message()
                )));
            }
        }
    }
    if dry_run == DryRun::None {
        until_gone(session, &pod, pod.object["metadata"]["uid"].as_str(), None).await?;
    }
    session.out(&format!("pod/{} {word}{}\n", pod.name, dry_run.suffix()))
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
