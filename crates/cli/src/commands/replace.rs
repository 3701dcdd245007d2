//! `replace`: objects by those of files.

use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::common::{Change, DryRun, Teller};
use crate::apply::{LAST_APPLIED, with_annotation};
use crate::builder::{self, Found, Target};
use crate::failure::{Result, all, plain};
use crate::manifest::{self, Files};
use crate::server::Call;
use crate::session::Session;

/// What to replace and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    change: Change,
    /// Delete and create anew.
    #[arg(long)]
    force: bool,
    /// Seconds that a deleted object gets to end.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    grace_period: i64,
    /// Keep the manifest on the object.
    #[arg(long)]
    save_config: bool,
    /// strict (or true), warn, ignore (or false)
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "strict", default_missing_value = "strict")]
    validate: String,
    /// What becomes of dependents of what --force deletes: background, orphan, foreground.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "background", default_missing_value = "background")]
    cascade: String,
    /// How long --force waits until an object is gone, such as 30s; 0 for as long as it takes.
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// What is deleted is waited for in any case.
    #[arg(long, hide = true)]
    wait: bool,
    /// A URL path to put a file to.
    #[arg(long)]
    raw: Option<String>,
    /// The sub-resource to replace.
    #[arg(long)]
    subresource: Option<String>,
}

/// Replaces each.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let mut teller = Teller::new(session, &flags.change, "kubectl-replace")?;
    flags.files.required()?;
    let limit = super::common::duration(&flags.timeout)?;
    if flags.grace_period >= 0 && !flags.force {
        return plain("--grace-period must have --force specified");
    }
    if !limit.is_zero() && !flags.force {
        return plain("--timeout must have --force specified");
    }
    if flags.force && teller.dry_run != DryRun::None {
        return plain("--dry-run can not be used when --force is set");
    }
    if let Some(raw) = &flags.raw {
        return super::create::send_raw(session, Method::PUT, raw, &flags.files).await;
    }
    let validate = super::apply::validation(&flags.validate)?;
    let (mut targets, mut failures) = (Vec::new(), Vec::new());
    for loaded in manifest::load_to_validate(&flags.files, validate).await? {
        match builder::of_manifest(session, loaded).await {
            Ok(target) => targets.push(target),
            Err(failure) => failures.push(failure),
        }
    }
    if flags.force {
        // All go before the first one comes back.
        remove(session, &flags, &targets, Some(limit).filter(|limit| !limit.is_zero())).await?;
    }
    for target in &targets {
        let manifest = target.object.clone().unwrap_or_default();
        let keeps = flags.save_config || !manifest["metadata"]["annotations"][LAST_APPLIED].is_null();
        let object = if keeps { with_annotation(&manifest) } else { manifest };
        let made = match (flags.force, teller.dry_run) {
            (true, _) => super::apply::post(session, &teller, target, &object, validate).await,
            (_, DryRun::Client) => Ok(object),
            _ => put(session, &flags, &teller, target, &object, validate).await,
        };
        match made {
            Ok(new) => teller.tell(session, &target.resource, &new, "replaced")?,
            Err(failure) => failures.push(failure),
        }
    }
    all(failures)
}

async fn put(
    session: &Session,
    flags: &Flags,
    teller: &Teller,
    target: &Target,
    object: &Value,
    validate: &str,
) -> Result<Value> {
    let path = match &flags.subresource {
        Some(sub) => format!("{}/{sub}", target.path()),
        None => target.path(),
    };
    let mut query = teller.query();
    query.push(("fieldValidation", validate.to_owned()));
    let call = Call::new(Method::PUT, &path).query(query).body("application/json", object.to_string().into_bytes());
    session.server().await?.send(call).await.map_err(|failure| failure.when("replacing", &target.source))
}

/// Deletes the objects, then waits until all are gone. What is not there is no error.
async fn remove(session: &Session, flags: &Flags, targets: &[Target], limit: Option<Duration>) -> Result {
    let grace = (flags.grace_period >= 0).then_some(flags.grace_period.max(1));
    let propagation = super::delete::propagation(session, &flags.cascade)?;
    let how = super::delete::How { grace_seconds: grace, propagation, dry_run: false };
    let mut waiting = Vec::new();
    for target in targets {
        let found = Found {
            resource: target.resource.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone().unwrap_or_default(),
            object: target.object.clone().unwrap_or_default(),
            source: target.source.clone(),
        };
        match super::delete::delete(session, &found, &how).await {
            Ok(answer) => {
                session.out(&super::delete::told(&found, flags.change.output.is_name(), false, DryRun::None))?;
                waiting.push((found, super::delete::uid_of(&answer)));
            }
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure.when("deleting", &target.source)),
        }
    }
    for (found, uid) in waiting {
        super::delete::until_gone(session, &found, uid.as_deref(), limit).await?;
    }
    Ok(())
}
