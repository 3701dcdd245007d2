//! `scale`: another number of replicas, by the scale sub-resource.
//!
//! Source of the texts: `k8s.io/kubectl/pkg/cmd/scale`.

use clap::Args;
use serde_json::json;

use super::common::{Change, MERGE, Selection, Teller};
use crate::failure::{Failure, Result, all, plain};
use crate::print::int;
use crate::session::Session;

/// What to scale, and to how many.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// TYPE NAME ... or TYPE/NAME ...
    words: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    change: Change,
    /// The new number.
    #[arg(long, required = true, allow_hyphen_values = true)]
    replicas: String,
    /// Only when it is at this number now.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    current_replicas: i64,
    /// Only when it is at this revision now.
    #[arg(long)]
    resource_version: Option<String>,
    /// How long to wait; the change itself is immediate.
    #[arg(long, hide = true)]
    timeout: Option<String>,
}

/// Scales each.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let Ok(replicas) = flags.replicas.parse::<i64>() else {
        return plain(format!(
            "invalid argument {:?} for \"--replicas\" flag: strconv.ParseInt: parsing {:?}: invalid syntax\nSee 'kubectl scale --help' for usage.",
            flags.replicas, flags.replicas
        ));
    };
    if replicas < 0 {
        return plain("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0");
    }
    let mut teller = Teller::new(session, &flags.change, "kubectl")?;
    let (found, mut failures) = flags.selection.find(session, &flags.words).await?;
    if found.is_empty() {
        let why = Failure::Many(failures).message();
        return plain(format!("no objects passed to scale {why}").trim_end());
    }
    for found in found {
        let path = format!("{}/scale", found.path());
        let done = async {
            let live = session.server().await?.get(&path).await?;
            let now = int(&live, "/spec/replicas");
            if flags.current_replicas >= 0 && now != flags.current_replicas {
                return plain(format!("Expected replicas to be {}, was {now}", flags.current_replicas));
            }
            let version = live["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            if let Some(wanted) = flags.resource_version.as_deref().filter(|wanted| *wanted != version) {
                return plain(format!("Expected resource version to be {wanted}, was {version}"));
            }
            let patch = json!({"spec": {"replicas": replicas}});
            teller.patch_at(session, &path, &found, MERGE, &patch).await?;
            let mut object = found.object.clone();
            object["spec"]["replicas"] = replicas.into();
            teller.tell(session, &found.resource, &object, "scaled")
        };
        if let Err(failure) = done.await {
            failures.push(failure);
        }
    }
    all(failures)
}
