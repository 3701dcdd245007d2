//! Update: read, change, admit, put if unchanged; again when somebody was faster. PUT and every patch go this way.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use stead_api::{Subresource, convert};
use stead_machinery::ApiError;
use stead_store::{Entry, Expect};

use super::write::{self, Outcome, store_failed};
use super::{Target, render};
use crate::chain::{Call, Identity};
use crate::decode;
use crate::negotiate;
use crate::objects;
use crate::options::WriteOptions;
use crate::response::{self, Answer};
use crate::server::ApiServer;

/// Tries of an update that does not name a resource version (upstream's number for patches is 5).
const TRIES_MAX: usize = 16;
const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

pub(crate) async fn update(
    server: &ApiServer,
    target: &Target,
    sub: Option<Subresource>,
    call: &Call,
) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, false, true)?;
    let options = WriteOptions::read("UpdateOptions", &call.query, false)?;
    let (mut object, mut warnings) = decode::object(target.kind, call, &options)?;
    let name = object["metadata"]["name"].as_str().unwrap_or("");
    if name != target.name {
        let text = if name.is_empty() {
            "name must be provided".to_owned()
        } else {
            format!("the name of the object ({name}) does not match the name on the URL ({})", target.name)
        };
        return Err(ApiError::bad_request(text));
    }
    write::check_namespace(target, &mut object["metadata"])?;
    let change = Change { target, sub, user: &call.user, dry_run: options.dry_run };
    let done = change
        .run(server, &mut |old: &Value| {
            let mut new = object.clone();
            decode::manage_updated(target.kind, sub, old, &mut new, &options, call);
            Ok(new)
        })
        .await?;
    warnings.extend(done.warnings);
    let mut answer = render::object(StatusCode::OK, form, target.kind, &done.entry, call)?;
    response::warn(answer.headers_mut(), &warnings);
    Ok(answer)
}

/// One change of one object.
pub(crate) struct Change<'a> {
    pub(crate) target: &'a Target,
    pub(crate) sub: Option<Subresource>,
    pub(crate) user: &'a Identity,
    pub(crate) dry_run: bool,
}

/// The object after the change.
pub(crate) struct Changed {
    pub(crate) entry: Entry,
    pub(crate) warnings: Vec<String>,
}

/// Makes the wanted object from the present one (in the form of the request's kind).
pub(crate) type Make<'a> = &'a mut (dyn FnMut(&Value) -> Result<Value, ApiError> + Send);

impl Change<'_> {
    /// Changes the object, again when it changed meanwhile, unless the wanted object names the version it is based on.
    pub(crate) async fn run(&self, server: &ApiServer, make: Make<'_>) -> Result<Changed, ApiError> {
        let key = self.target.key();
        for _ in 0..TRIES_MAX {
            let entry = server.0.store.get(key.as_bytes()).await.map_err(store_failed)?;
            let entry = entry.ok_or_else(|| self.target.not_found())?;
            if let Some(changed) = self.attempt(server, entry, make).await? {
                return Ok(changed);
            }
        }
        Err(self.modified())
    }

    async fn attempt(&self, server: &ApiServer, entry: Entry, make: Make<'_>) -> Result<Option<Changed>, ApiError> {
        let (kind, storage) = (self.target.kind, self.target.kind.storage_kind());
        let old = objects::decode(&entry.value, entry.modified).map_err(|e| ApiError::internal(&e.to_string()))?;
        let wanted = if kind.converted() { make(&convert::from_storage(kind, old.clone()))? } else { make(&old)? };
        self.preconditions(&wanted, &old)?;
        let mut new = convert::to_storage(kind, wanted);
        new["apiVersion"] = storage.api_version().into();
        new["kind"] = storage.kind.into();
        // Whoever names no version means the newest one.
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        let _turn = write::quota_turn(server, &self.target.namespace).await;
        let warnings = match self.sub {
            // A binding is judged by its sub-resource: admission would take the node name back.
            Some(Subresource::Binding) => Vec::new(),
            sub => write::admit(server, self.user, self.dry_run, |ctx| {
                stead_admission::update(storage, &mut new, &old, sub, ctx)
            })?,
        };
        let changed = |entry| Some(Changed { entry, warnings });
        let value = objects::encode(&new);
        // What is stored was encoded the same way: nothing would be written.
        if value == entry.value {
            return Ok(changed(entry));
        }
        if is_over(&new) {
            return Ok(self.finish(server, &entry, &new, value).await?.and_then(changed));
        }
        let expect = Expect::Modified(entry.modified);
        let put = write::Put { kind: storage, key: self.target.key(), expect, dry_run: self.dry_run };
        match write::put(server, put, value).await? {
            Outcome::Done(mut now) => {
                now.created = entry.created;
                write::release(server, storage, &old, Some(&new), self.dry_run);
                Ok(changed(now))
            }
            Outcome::Unmet => {
                write::release(server, storage, &new, Some(&old), self.dry_run);
                Ok(None)
            }
        }
    }

    /// The last finalizer of a deleted object is gone: so is the object.
    async fn finish(
        &self,
        server: &ApiServer,
        entry: &Entry,
        new: &Value,
        value: Bytes,
    ) -> Result<Option<Entry>, ApiError> {
        let storage = self.target.kind.storage_kind();
        let mut last = entry.clone();
        last.value = value;
        if self.dry_run {
            return Ok(Some(last));
        }
        let Some(revision) = write::remove(server, storage, entry).await? else { return Ok(None) };
        last.modified = revision;
        write::release(server, storage, new, None, false);
        Ok(Some(last))
    }

    /// What the wanted object says about the one that it is based on.
    fn preconditions(&self, wanted: &Value, old: &Value) -> Result<(), ApiError> {
        let text = |object: &Value, key: &str| object["metadata"][key].as_str().unwrap_or("").to_owned();
        let (uid, here) = (text(wanted, "uid"), text(old, "uid"));
        if !uid.is_empty() && uid != here {
            let Target { kind, namespace, name } = self.target;
            let place = if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") };
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: /registry/{}/{place}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {here}",
                kind.plural
            );
            return Err(ApiError::conflict(self.target.kind, &self.target.name, &why));
        }
        let version = text(wanted, "resourceVersion");
        if !version.is_empty() && version != "0" && version != text(old, "resourceVersion") {
            return Err(self.modified());
        }
        Ok(())
    }

    fn modified(&self) -> ApiError {
        ApiError::conflict(self.target.kind, &self.target.name, MODIFIED)
    }
}

/// Whether a deleted object has nothing left to wait for.
fn is_over(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let none = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    metadata["deletionTimestamp"].is_string()
        && none(&metadata["finalizers"])
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && (object["kind"] != "Namespace" || none(&object["spec"]["finalizers"]))
}
