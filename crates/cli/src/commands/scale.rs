//! `scale`: another number of replicas, by the scale sub-resource; or one chosen pod of a StatefulSet less.
//!
//! Source of the texts: `k8s.io/kubectl/pkg/cmd/scale`.

use clap::Args;
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};
use stead_api::typed;
use stead_workloads::statefulset::wishes;

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
    #[arg(long, required_unless_present = "remove_ordinal", allow_hyphen_values = true)]
    replicas: Option<String>,
    /// Take this pod of a StatefulSet away and no other: one replica less, and its ordinal reserved.
    #[arg(long, value_name = "ORDINAL", conflicts_with = "replicas")]
    remove_ordinal: Option<u32>,
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
    let wanted = Wanted::read(&flags)?;
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
            let mut object = found.object.clone();
            match wanted {
                Wanted::Replicas(replicas) => {
                    let patch = json!({"spec": {"replicas": replicas}});
                    teller.patch_at(session, &path, &found, MERGE, &patch).await?;
                    object["spec"]["replicas"] = replicas.into();
                }
                Wanted::Without(ordinal) => {
                    let mut patch = removal(&found.object, &found.name, ordinal)?;
                    // What the patch is made from must not have changed meanwhile.
                    patch["metadata"]["resourceVersion"] = found.object["metadata"]["resourceVersion"].clone();
                    object = teller.patch_at(session, &found.path(), &found, MERGE, &patch).await?;
                }
            }
            teller.tell(session, &found.resource, &object, "scaled")
        };
        if let Err(failure) = done.await {
            failures.push(failure);
        }
    }
    all(failures)
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Replicas(i64),
    Without(u32),
}

impl Wanted {
    fn read(flags: &Flags) -> Result<Self> {
        if let Some(ordinal) = flags.remove_ordinal {
            return Ok(Self::Without(ordinal));
        }
        let text = flags.replicas.as_deref().unwrap_or_default();
        let Ok(replicas) = text.parse::<i64>() else {
            return plain(format!(
                "invalid argument {text:?} for \"--replicas\" flag: strconv.ParseInt: parsing {text:?}: invalid syntax\nSee 'kubectl scale --help' for usage."
            ));
        };
        if replicas < 0 {
            return plain("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0");
        }
        Ok(Self::Replicas(replicas))
    }
}

/// The patch that takes one pod of a StatefulSet away.
pub(crate) fn removal(object: &Value, name: &str, ordinal: u32) -> Result<Value> {
    if object["kind"] != "StatefulSet" {
        return plain(format!("--remove-ordinal: {name} is no StatefulSet, and only their pods have ordinals"));
    }
    let set: StatefulSet = typed::from_value(object)
        .map_err(|error| Failure::Plain(format!("cannot read StatefulSet {name}: {error}")))?;
    wishes::removal(&set, ordinal).map_or_else(
        || plain(format!("--remove-ordinal: StatefulSet {name} has no pod {name}-{ordinal} that could be removed")),
        Ok,
    )
}
