//! What commands that change objects share: which objects, `--dry-run`, how the outcome is told, patches.

use clap::Args;
use http::Method;
use serde_json::Value;

use crate::builder::{self, Found, Question};
use crate::failure::{Failure, Result, plain};
use crate::manifest::Files;
use crate::print::{Format, Output, PLAIN_FORMATS, without_managed_fields};
use crate::resources::Resource;
use crate::server::Call;
use crate::session::Session;

/// The media types of patches.
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";

/// The objects to change.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Selection {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Label selector.
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// All of the resource in the namespace.
    #[arg(long)]
    pub(crate) all: bool,
}

impl Selection {
    pub(crate) fn question<'a>(&'a self, words: &'a [String]) -> Question<'a> {
        Question {
            words,
            files: self.files.clone(),
            selector: self.selector.as_deref(),
            all: self.all,
            ..Question::default()
        }
    }

    /// The objects that words and flags mean, and what could not be found.
    pub(crate) async fn find(&self, session: &Session, words: &[String]) -> Result<(Vec<Found>, Vec<Failure>)> {
        builder::find(session, &self.question(words)).await
    }
}

/// How a change is made and told.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Change {
    /// client: only print; server: have the server try it without keeping it; none.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "unchanged")]
    pub(crate) dry_run: String,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Who the server is told makes the change.
    #[arg(long)]
    pub(crate) field_manager: Option<String>,
}

/// Whether a change is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DryRun {
    #[default]
    None,
    Client,
    Server,
}

impl DryRun {
    pub(crate) fn parse(session: &Session, text: &str) -> Result<Self> {
        match text {
            "" | "none" | "false" => Ok(Self::None),
            "client" => Ok(Self::Client),
            "server" => Ok(Self::Server),
            "unchanged" | "true" => {
                session.err("W: --dry-run is deprecated and can be replaced with --dry-run=client.\n");
                Ok(Self::Client)
            }
            other => plain(format!("Invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\".")),
        }
    }

    /// What stands behind what was done.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}

/// Tells what was done, in the form that was asked for.
#[derive(Debug)]
pub(crate) struct Teller {
    pub(crate) dry_run: DryRun,
    format: Format,
    managed: bool,
    manager: String,
    documents: usize,
}

impl Teller {
    pub(crate) fn new(session: &Session, change: &Change, manager: &str) -> Result<Self> {
        Ok(Self {
            dry_run: DryRun::parse(session, &change.dry_run)?,
            format: change.output.format(PLAIN_FORMATS, true)?,
            managed: change.output.show_managed_fields,
            manager: change.field_manager.clone().unwrap_or_else(|| manager.to_owned()),
            documents: 0,
        })
    }

    /// `statefulset.apps/web scaled`, or the object as `-o` asks for it.
    pub(crate) fn tell(&mut self, session: &Session, resource: &Resource, object: &Value, done: &str) -> Result {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let named = resource.named(name);
        if self.format.is_human() {
            return session.out(&format!("{named} {done}{}\n", self.dry_run.suffix()));
        }
        if matches!(self.format, Format::Name) {
            return session.out(&format!("{named}\n"));
        }
        let keeps = self.managed || !self.format.is_document();
        let object = if keeps { object.clone() } else { without_managed_fields(object.clone()) };
        let text = self.format.print(&object)?;
        let separator = if self.documents > 0 && matches!(self.format, Format::Yaml) { "---\n" } else { "" };
        self.documents += 1;
        session.out(&format!("{separator}{text}"))
    }

    /// The query parameters of a write.
    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = vec![("fieldManager", self.manager.clone())];
        if self.dry_run == DryRun::Server {
            query.push(("dryRun", "All".to_owned()));
        }
        query
    }

    /// Patches an object, or with a client's dry run says what it is now.
    pub(crate) async fn patch(&self, session: &Session, found: &Found, media: &str, patch: &Value) -> Result<Value> {
        self.patch_at(session, &found.path(), found, media, patch).await
    }

    /// The same at another path, such as that of a sub-resource.
    pub(crate) async fn patch_at(
        &self,
        session: &Session,
        path: &str,
        found: &Found,
        media: &str,
        patch: &Value,
    ) -> Result<Value> {
        if self.dry_run == DryRun::Client {
            return merged(&found.resource, &found.object, media, patch);
        }
        let call = Call::new(Method::PATCH, path).query(self.query()).body(media, patch.to_string().into_bytes());
        session.server().await?.send(call).await
    }
}

/// What a patch makes of an object, without asking the server.
pub(crate) fn merged(resource: &Resource, object: &Value, media: &str, patch: &Value) -> Result<Value> {
    use stead_machinery::patch::{json, merge, strategic};
    let mut object = object.clone();
    let shape = shape_of(resource);
    match (media, shape) {
        (JSON_PATCH, _) => json::apply(object, patch).map_err(|error| Failure::Plain(error.message)),
        (STRATEGIC, Some(shape)) => {
            let schema = stead_api::schema::schema();
            strategic::apply(schema, shape, object, patch.clone()).map_err(|error| Failure::Plain(error.to_string()))
        }
        _ => {
            merge::apply(&mut object, patch.clone());
            Ok(object)
        }
    }
}

/// The schema of a resource's objects, when this program knows it.
pub(crate) fn shape_of(resource: &Resource) -> Option<stead_api::schema::Shape> {
    let id = stead_api::schema::schema().of_object(&resource.group, &resource.version, &resource.kind)?;
    Some(stead_api::schema::Shape::Struct(id))
}

/// The patch from one form of an object to another, and its media type: strategic where the schema is known.
pub(crate) fn difference(resource: &Resource, from: &Value, to: &Value) -> Result<(Value, &'static str)> {
    match shape_of(resource) {
        Some(shape) => {
            let schema = stead_api::schema::schema();
            let patch = stead_machinery::patch::diff::two_way(schema, shape, from, to);
            Ok((patch.map_err(|error| Failure::Plain(error.to_string()))?, STRATEGIC))
        }
        None => Ok((stead_machinery::patch::merge::diff(from, to), MERGE)),
    }
}

/// Whether a patch changes nothing.
pub(crate) fn is_empty(patch: &Value) -> bool {
    patch.as_object().is_some_and(serde_json::Map::is_empty)
}

/// A duration as Go writes it: `1h30m`, `10s`, `500ms`, `0`.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration> {
    let bad = || Failure::Plain(format!("invalid argument {text:?}: time: invalid duration {text:?}"));
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned.is_empty() {
        return Err(bad());
    }
    let mut rest = unsigned;
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            "" if unsigned.bytes().all(|b| b.is_ascii_digit()) => 1.0,
            _ => return Err(bad()),
        };
        rest = &rest[letters..];
        seconds += number * unit;
    }
    std::time::Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}

/// As Go writes a duration: `2m3.5s`.
pub(crate) fn go_duration(of: jiff::SignedDuration) -> String {
    let (hours, minutes, seconds) = (of.as_secs() / 3600, of.as_secs() / 60 % 60, of.as_secs() % 60);
    let mut fraction = format!("{seconds}.{:09}", of.subsec_nanos());
    fraction.truncate(fraction.trim_end_matches('0').trim_end_matches('.').len());
    match (hours, minutes) {
        (0, 0) => format!("{fraction}s"),
        (0, _) => format!("{minutes}m{fraction}s"),
        _ => format!("{hours}h{minutes}m{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in
            [("0", 0.0), ("30s", 30.0), ("1m30s", 90.0), ("1.5h", 5400.0), ("500ms", 0.5), ("7", 7.0)]
        {
            assert_eq!(duration(text).expect(text).as_secs_f64(), seconds, "{text}");
        }
        for text in ["", "s", "1x", "-1s", "1e9h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
