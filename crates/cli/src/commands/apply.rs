//! `apply`: objects as manifests say, created or changed; by the client's three-way merge or by the server.
//!
//! Source of the texts: `k8s.io/kubectl/pkg/cmd/apply`.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::common::{Change, DryRun, Teller, is_empty};
use super::prune::{self, Seen};
use crate::apply::{LAST_APPLIED, last_applied, patch, with_annotation};
use crate::builder::{self, Found, Target};
use crate::failure::{Failure, Result, all, plain};
use crate::manifest::{self, Files};
use crate::print::{json, yaml};
use crate::server::Call;
use crate::session::Session;

/// How often a patch that met someone else's is made again.
const TRIES_MAX: usize = 5;

/// What to apply and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    change: Change,
    /// Label selector: which objects of the files.
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Let the server merge.
    #[arg(long)]
    server_side: bool,
    /// Take fields over that others own.
    #[arg(long)]
    force_conflicts: bool,
    /// Delete and create anew what cannot be changed.
    #[arg(long)]
    force: bool,
    /// strict (or true), warn, ignore (or false): what the server does with fields that it does not know.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "strict", default_missing_value = "strict")]
    validate: String,
    /// Delete what was applied once and is in no manifest any more, of what -l selects or of --all.
    #[arg(long)]
    prune: bool,
    /// All that was applied may be pruned.
    #[arg(long)]
    all: bool,
    /// GROUP/VERSION/KIND that is pruned (default: the usual ones).
    #[arg(long)]
    prune_allowlist: Vec<String>,
    /// What becomes of dependents of what is deleted: background, orphan, foreground.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "background", default_missing_value = "background")]
    cascade: String,
    /// Seconds that a deleted object gets to end; negative: what it asks for.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    grace_period: i64,
    /// How long --force waits until an object is gone, such as 30s; 0 for as long as it takes.
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// What is deleted is waited for in any case where it matters.
    #[arg(long, hide = true)]
    wait: bool,
    /// Resolve differences in favour of the manifest.
    #[arg(long, hide = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    overwrite: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Show what was applied last.
    ViewLastApplied {
        words: Vec<String>,
        /// yaml, json
        #[arg(short = 'o', long, default_value = "yaml")]
        output: String,
        #[command(flatten)]
        files: Files,
    },
}

/// Applies every object, telling each; failures come at the end.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    if let Some(What::ViewLastApplied { words, output, files }) = &flags.what {
        return view(session, words, output, files).await;
    }
    flags.files.required()?;
    if flags.force_conflicts && !flags.server_side {
        return plain("--force-conflicts only works with --server-side");
    }
    let manager = if flags.server_side { "kubectl" } else { "kubectl-client-side-apply" };
    let mut teller = Teller::new(session, &flags.change, manager)?;
    if flags.server_side && teller.dry_run == DryRun::Client {
        return plain("--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)");
    }
    flags.check_prune()?;
    let validate = validation(&flags.validate)?;
    let selector = flags.selector.clone().unwrap_or_default();
    let allowed = if flags.prune { prune::allowed(session, &flags.prune_allowlist).await? } else { Vec::new() };
    let removal = Removal {
        force: flags.force,
        how: super::delete::How {
            propagation: super::delete::propagation(session, &flags.cascade)?,
            grace_seconds: (flags.grace_period >= 0).then_some(flags.grace_period),
            dry_run: teller.dry_run == DryRun::Server,
        },
        limit: Some(super::common::duration(&flags.timeout)?).filter(|limit| !limit.is_zero()),
    };
    let loaded = manifest::load_to_validate(&flags.files, validate).await?;
    let wanted = stead_machinery::selector::Selector::parse(&selector).map_err(Failure::Plain)?;
    let (mut failures, mut any, mut seen) = (Vec::new(), false, Seen::default());
    for loaded in loaded {
        if !wanted.matches_labels(&loaded.object["metadata"]["labels"]) {
            continue;
        }
        any = true;
        let done = async {
            let target = builder::of_manifest(session, loaded).await?;
            let made = match flags.server_side {
                true => server_side(session, &mut teller, &target, flags.force_conflicts, validate).await?,
                false => client_side(session, &mut teller, &target, &removal, validate).await?,
            };
            seen.note(&target, &made);
            Ok(())
        };
        match done.await {
            Ok(()) => {}
            Err(Failure::Closed) => return Err(Failure::Closed),
            Err(failure) => failures.push(failure),
        }
    }
    if !any && failures.is_empty() {
        return plain("no objects passed to apply");
    }
    if flags.prune && failures.is_empty() {
        let found = prune::find(session, allowed, &seen, &selector).await?;
        for found in found {
            if teller.dry_run != DryRun::Client {
                let _ = super::delete::delete(session, &found, &removal.how).await?;
            }
            teller.tell(session, &found.resource, &found.object, "pruned")?;
        }
    }
    all(failures)
}

impl Flags {
    /// Refuses flags of pruning that do not go together.
    fn check_prune(&self) -> Result {
        let selects = self.selector.as_deref().is_some_and(|selector| !selector.is_empty());
        if selects && self.all {
            return plain("cannot set --all and --selector at the same time");
        }
        if self.prune && self.force {
            return plain("--force cannot be used with --prune");
        }
        if self.prune && !self.all && !selects {
            return plain(
                "all resources selected for prune without explicitly passing --all. To prune all resources, pass the --all flag. If you did not mean to prune all resources, specify a label selector",
            );
        }
        if self.prune && self.server_side {
            return plain("--prune is in alpha and doesn't currently work on objects created by server-side apply");
        }
        Ok(())
    }
}

/// How objects are deleted that stand in the way, and whether they are.
struct Removal {
    force: bool,
    how: super::delete::How,
    limit: Option<std::time::Duration>,
}

/// The server's word for how strict it is to be.
pub(crate) fn validation(flag: &str) -> Result<&'static str> {
    match flag {
        "strict" | "true" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "ignore" | "false" => Ok("Ignore"),
        other => plain(format!(
            "invalid - validate option {other:?}; must be one of: strict (or true), warn, ignore (or false)"
        )),
    }
}

/// The object as it is then.
async fn client_side(
    session: &Session,
    teller: &mut Teller,
    target: &Target,
    removal: &Removal,
    validate: &str,
) -> Result<Value> {
    let server = session.server().await?;
    let manifest = target.object.clone().unwrap_or_default();
    if target.name.is_none() {
        let what = describe(target);
        return plain(format!(
            "error when retrieving current configuration of:\n{what}\nfrom server for: {:?}: resource name may not be empty",
            target.source
        ));
    }
    let path = target.path();
    for attempt in 1.. {
        let live = match server.get(&path).await {
            Ok(live) => live,
            Err(failure) if failure.is_not_found() => return create(session, teller, target, validate).await,
            Err(failure) => return Err(during(failure, "retrieving current configuration of", target, None)),
        };
        if live["metadata"]["annotations"][LAST_APPLIED].is_null() && teller.dry_run != DryRun::Client {
            session.err(&format!("Warning: resource {}/{} is missing the {LAST_APPLIED} annotation which is required by kubectl apply. kubectl apply should only be used on resources created declaratively by either kubectl create --save-config or kubectl apply. The missing annotation will be patched automatically.\n", target.resource.plural, target.name.as_deref().unwrap_or_default()));
        }
        let (patch, media) = patch(&target.resource, &live, &manifest)?;
        if is_empty(&patch) && teller.dry_run != DryRun::Client {
            teller.tell(session, &target.resource, &live, "unchanged")?;
            return Ok(live);
        }
        if teller.dry_run != DryRun::Client && !live["metadata"]["deletionTimestamp"].is_null() {
            session.err(&format!(
                "Warning: Detected changes to resource {} which is currently being deleted.\n",
                target.name.as_deref().unwrap_or_default()
            ));
        }
        let found = Found {
            resource: target.resource.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone().unwrap_or_default(),
            object: live,
            source: target.source.clone(),
        };
        match change(session, teller, &found, media, &patch, validate).await {
            Ok(object) => {
                teller.tell(session, &target.resource, &object, "configured")?;
                return Ok(object);
            }
            Err(failure) if failure.reason() == "Conflict" && attempt < TRIES_MAX => {}
            Err(failure) if removal.force && matches!(failure.reason(), "Conflict" | "Invalid") => {
                return recreate(session, teller, target, &found, removal, validate).await;
            }
            Err(failure) => return Err(during(failure, "applying patch", target, Some(&patch))),
        }
    }
    Ok(Value::Null)
}

async fn change(
    session: &Session,
    teller: &Teller,
    found: &Found,
    media: &str,
    patch: &Value,
    validate: &str,
) -> Result<Value> {
    if teller.dry_run == DryRun::Client {
        return super::common::merged(&found.resource, &found.object, media, patch);
    }
    let mut query = teller.query();
    query.push(("fieldValidation", validate.to_owned()));
    let path = found.path();
    let call = Call::new(Method::PATCH, &path).query(query).body(media, patch.to_string().into_bytes());
    session.server().await?.send(call).await
}

async fn create(session: &Session, teller: &mut Teller, target: &Target, validate: &str) -> Result<Value> {
    let object = with_annotation(target.object.as_ref().unwrap_or(&Value::Null));
    let made = post(session, teller, target, &object, validate).await?;
    teller.tell(session, &target.resource, &made, "created")?;
    Ok(made)
}

/// Creates an object as it is.
pub(crate) async fn post(
    session: &Session,
    teller: &Teller,
    target: &Target,
    object: &Value,
    validate: &str,
) -> Result<Value> {
    if teller.dry_run == DryRun::Client {
        return Ok(object.clone());
    }
    let mut query = teller.query();
    query.push(("fieldValidation", validate.to_owned()));
    let path = target.resource.path(target.namespace.as_deref());
    let call = Call::new(Method::POST, &path).query(query).body("application/json", object.to_string().into_bytes());
    let made = session.server().await?.send(call).await;
    made.map_err(|failure| if target.source.is_empty() { failure } else { failure.when("creating", &target.source) })
}

async fn recreate(
    session: &Session,
    teller: &mut Teller,
    target: &Target,
    found: &Found,
    removal: &Removal,
    validate: &str,
) -> Result<Value> {
    super::delete::gone(session, found, &removal.how, removal.limit).await?;
    let object = with_annotation(target.object.as_ref().unwrap_or(&Value::Null));
    let made = post(session, teller, target, &object, validate).await?;
    teller.tell(session, &target.resource, &made, "configured")?;
    Ok(made)
}

async fn server_side(
    session: &Session,
    teller: &mut Teller,
    target: &Target,
    force: bool,
    validate: &str,
) -> Result<Value> {
    let mut query = teller.query();
    query.push(("force", force.to_string()));
    query.push(("fieldValidation", validate.to_owned()));
    let manifest = target.object.clone().unwrap_or_default();
    let path = target.path();
    let call = Call::new(Method::PATCH, &path)
        .query(query)
        .body("application/apply-patch+yaml", manifest.to_string().into_bytes());
    match session.server().await?.send(call).await {
        Ok(object) => {
            teller.tell(session, &target.resource, &object, "serverside-applied")?;
            Ok(object)
        }
        Err(failure) if failure.reason() == "Conflict" => plain(conflict(&failure.message())),
        Err(failure) => Err(failure),
    }
}

fn conflict(message: &str) -> String {
    format!(
        "{message}
Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts"
    )
}

fn describe(target: &Target) -> String {
    let resource = &target.resource;
    format!(
        "Resource: \"{}/{}, Resource={}\", GroupVersionKind: \"{}/{}, Kind={}\"\nName: {:?}, Namespace: {:?}",
        resource.group,
        resource.version,
        resource.plural,
        resource.group,
        resource.version,
        resource.kind,
        target.name.as_deref().unwrap_or_default(),
        target.namespace.as_deref().unwrap_or_default()
    )
}

/// Says in the failure what was being done.
fn during(failure: Failure, what: &str, target: &Target, patch: Option<&Value>) -> Failure {
    let described = describe(target);
    let source = &target.source;
    let text = match patch {
        Some(patch) => format!("error when {what}:\n{patch}\nto:\n{described}\nfor: {source:?}"),
        None => format!("error when {what}:\n{described}\nfrom server for: {source:?}"),
    };
    match failure {
        Failure::Api(mut refusal) => {
            refusal.during = Some(text);
            Failure::Api(refusal)
        }
        other => other,
    }
}

async fn view(session: &Session, words: &[String], output: &str, files: &Files) -> Result {
    let question = builder::Question { words, files: files.clone(), bare_type: true, ..Default::default() };
    let (found, failures) = builder::find(session, &question).await?;
    for found in found {
        let Some(last) = last_applied(&found.object) else {
            return plain(format!("no last-applied-configuration annotation found on resource: {}", found.name));
        };
        session.out(&if output == "json" { json(&last) + "\n" } else { yaml(&last) })?;
    }
    all(failures)
}
