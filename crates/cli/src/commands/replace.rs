//! `replace`: objects by those of files.

use clap::Args;
use http::Method;

use super::common::{Change, DryRun, Teller};
use crate::apply::{LAST_APPLIED, with_annotation};
use crate::builder::{self, Found};
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
    /// The sub-resource to replace.
    #[arg(long)]
    subresource: Option<String>,
}

/// Replaces each.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    if flags.files.filename.is_empty() {
        return plain("must specify one of -f and -k");
    }
    let mut teller = Teller::new(session, &flags.change, "kubectl-replace")?;
    let validate = super::apply::validation(&flags.validate)?;
    let mut failures = Vec::new();
    for loaded in manifest::load(&flags.files)? {
        let done = async {
            let target = builder::of_manifest(session, loaded).await?;
            let manifest = target.object.clone().unwrap_or_default();
            let keeps = flags.save_config || !manifest["metadata"]["annotations"][LAST_APPLIED].is_null();
            let object = if keeps { with_annotation(&manifest) } else { manifest };
            if flags.force {
                let found = Found {
                    resource: target.resource.clone(),
                    namespace: target.namespace.clone(),
                    name: target.name.clone().unwrap_or_default(),
                    object: object.clone(),
                    source: target.source.clone(),
                };
                let grace = (flags.grace_period >= 0).then_some(flags.grace_period);
                let how = super::delete::How { grace_seconds: grace, ..Default::default() };
                super::delete::gone(session, &found, &how, None).await?;
                session.out(&format!("{} {:?} deleted\n", found.resource.group_kind(), found.name))?;
                let made = super::apply::post(session, &teller, &target, &object, validate).await?;
                return teller.tell(session, &target.resource, &made, "replaced");
            }
            let path = match &flags.subresource {
                Some(sub) => format!("{}/{sub}", target.path()),
                None => target.path(),
            };
            let new = if teller.dry_run == DryRun::Client {
                object
            } else {
                let mut query = teller.query();
                query.push(("fieldValidation", validate.to_owned()));
                let call = Call::new(Method::PUT, &path)
                    .query(query)
                    .body("application/json", object.to_string().into_bytes());
                let sent = session.server().await?.send(call).await;
                sent.map_err(|failure| failure.when("replacing", &target.source))?
            };
            teller.tell(session, &target.resource, &new, "replaced")
        };
        if let Err(failure) = done.await {
            failures.push(failure);
        }
    }
    all(failures)
}
