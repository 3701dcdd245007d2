//! Get: one object, by copying its stored bytes.

use http::StatusCode;
use stead_machinery::ApiError;

use super::{Target, list, render};
use crate::chain::Call;
use crate::negotiate;
use crate::response::Answer;
use crate::server::ApiServer;
use crate::verbs::write::store_failed;

pub(crate) async fn get(server: &ApiServer, target: &Target, call: &Call) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, false, true)?;
    let entry = server.0.store.get(target.key().as_bytes()).await.map_err(store_failed)?;
    if let Some(version) = call.query.find("resourceVersion").filter(|v| !v.is_empty()) {
        list::not_newer(list::parse_version(version)?, server.0.store.revision())?;
    }
    let entry = entry.ok_or_else(|| target.not_found())?;
    render::object(StatusCode::OK, form, target.kind, &entry, call)
}
