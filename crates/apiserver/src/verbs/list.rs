//! List: a range of the store, joined from encoded items; pages by continue tokens; the rules of resource versions.
//!
//! Source of the rules: `k8s.io/apiserver/pkg/storage/{continue,errors}.go` and
//! `k8s.io/apimachinery/pkg/apis/meta/internalversion/validation`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use stead_machinery::status::Reason;
use stead_machinery::{ApiError, FieldErrors, Path};
use stead_store::{Entry, Range, Revision, StoreError};

use super::Target;
use super::render::{self, ListMeta};
use super::write::store_failed;
use crate::chain::Call;
use crate::negotiate;
use crate::objects;
use crate::options::{judged, parse_int};
use crate::path::Query;
use crate::response::Answer;
use crate::select::Selection;
use crate::server::ApiServer;

/// Entries that are read at once while a selector looks for enough matches.
const SCAN_ENTRIES: usize = 1000;
const TOKEN_VERSION: &str = "meta.k8s.io/v1";
const TOO_OLD_LIST: &str = "The resourceVersion for the provided list is too old.";
const TOO_OLD_TOKEN: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

pub(crate) async fn list(server: &ApiServer, target: &Target, call: &Call) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, true, true)?;
    render::check_include(form, &call.query)?;
    let options = ListOptions::read(&call.query, server.0.store.revision())?;
    let selection = Selection::read(&server.0.recent, target.kind, &target.name, &call.query)?;
    let prefix = objects::prefix_of(target.kind, &target.namespace);
    let page = if let (Some(name), false) = (selection.name(), target.namespace.is_empty() && target.kind.namespaced())
    {
        // One object, or none: there is no need to look through all.
        let key = format!("{prefix}{name}");
        selected(server, &key, &ListOptions { limit: 0, start: String::new(), ..options }, &selection).await?
    } else if selection.is_all() {
        whole(server, &prefix, &options).await?
    } else {
        selected(server, &prefix, &options, &selection).await?
    };
    render::list(form, target.kind, page.entries, page.meta, call)
}

/// Everything that the selectors of a request match, now.
pub(crate) async fn matching(server: &ApiServer, target: &Target, call: &Call) -> Result<Vec<Entry>, ApiError> {
    let mut options = ListOptions::read(&call.query, server.0.store.revision())?;
    options.limit = 0;
    let selection = Selection::read(&server.0.recent, target.kind, &target.name, &call.query)?;
    let prefix = objects::prefix_of(target.kind, &target.namespace);
    Ok(selected(server, &prefix, &options, &selection).await?.entries)
}

/// Judges the query of a list that is not of the store.
pub(crate) fn check(query: &Query) -> Result<(), ApiError> {
    ListOptions::read(query, Revision::MAX).map(|_| ())
}

/// A page of a list.
struct Page {
    entries: Vec<Entry>,
    meta: ListMeta,
}

async fn whole(server: &ApiServer, prefix: &str, options: &ListOptions) -> Result<Page, ApiError> {
    let range = read(server, prefix, options.start.as_bytes(), options.limit, options).await?;
    let mut meta = ListMeta::at(range.revision);
    if range.remaining > 0
        && let Some(last) = range.entries.last()
    {
        meta.next = token(range.revision, prefix, &last.key);
        meta.remaining = Some(range.remaining);
    }
    Ok(Page { entries: range.entries, meta })
}

/// Reads on until enough entries match.
async fn selected(
    server: &ApiServer,
    prefix: &str,
    options: &ListOptions,
    selection: &Selection,
) -> Result<Page, ApiError> {
    let (mut entries, mut start, mut at) = (Vec::new(), options.start.clone(), options.clone());
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let scan = if options.limit == 0 { 0 } else { SCAN_ENTRIES };
    loop {
        let range = read(server, prefix, start.as_bytes(), scan, &at).await?;
        // All pages of one answer show the same moment.
        at.revision = Some(range.revision);
        let mut meta = ListMeta::at(range.revision);
        for entry in &range.entries {
            if entries.len() == limit {
                let last: &Entry = entries.last().expect("the limit is not zero");
                meta.next = token(range.revision, prefix, &last.key);
                return Ok(Page { entries, meta });
            }
            if selection.matches(entry) {
                entries.push(entry.clone());
            }
        }
        match range.entries.last() {
            Some(last) if range.remaining > 0 => start = after(&last.key),
            _ => return Ok(Page { entries, meta }),
        }
    }
}

async fn read(
    server: &ApiServer,
    prefix: &str,
    start: &[u8],
    limit: usize,
    options: &ListOptions,
) -> Result<Range, ApiError> {
    let start = if start.is_empty() || start.starts_with(b"/registry/") {
        start.to_vec()
    } else {
        [prefix.as_bytes(), start].concat()
    };
    match server.0.store.range(prefix.as_bytes(), &start, limit, options.revision).await {
        Ok(range) => Ok(range),
        Err(StoreError::Compacted { .. }) if options.continued => Err(expired_token(options)),
        Err(StoreError::Compacted { .. }) => Err(ApiError::expired(TOO_OLD_LIST)),
        Err(StoreError::Future { asked, newest }) => Err(too_large(asked, newest)),
        Err(error) => Err(store_failed(error)),
    }
}

/// The smallest key after this one.
fn after(key: &[u8]) -> String {
    format!("{}\0", String::from_utf8_lossy(key))
}

fn token(revision: Revision, prefix: &str, last: &[u8]) -> String {
    let start = after(last);
    let start = start.strip_prefix(prefix).unwrap_or(&start);
    // The order of the fields is upstream's.
    URL_SAFE_NO_PAD.encode(format!("{{\"v\":\"{TOKEN_VERSION}\",\"rv\":{revision},\"start\":{}}}", json!(start)))
}

fn expired_token(options: &ListOptions) -> ApiError {
    let token = format!("{{\"v\":\"{TOKEN_VERSION}\",\"rv\":-1,\"start\":{}}}", json!(options.start));
    let mut error = ApiError::expired(TOO_OLD_TOKEN);
    error.continue_token = URL_SAFE_NO_PAD.encode(token);
    error
}

/// Which part of which moment a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListOptions {
    /// 0: no limit.
    limit: usize,
    /// Where to go on, relative to the prefix of the list.
    start: String,
    /// The moment; `None`: now.
    revision: Option<Revision>,
    /// There was a continue token.
    continued: bool,
}

impl ListOptions {
    /// Reads and judges the query; `newest` is the newest revision.
    fn read(query: &Query, newest: Revision) -> Result<Self, ApiError> {
        let number = |name: &str| match query.get(name) {
            "" => Ok(0),
            text => parse_int(text),
        };
        let limit = usize::try_from(number("limit")?).unwrap_or(0);
        number("timeoutSeconds")?;
        let version = query.get("resourceVersion");
        let token = query.get("continue");
        judge_list(query)?;
        if !token.is_empty() {
            if !version.is_empty() && version != "0" {
                return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
            }
            let (revision, start) = parse_token(token)?;
            return Ok(Self { limit, start, revision, continued: true });
        }
        let version = parse_version(version)?;
        // Upstream's old rule: a limit makes a bare resource version exact.
        let exact = match query.get("resourceVersionMatch") {
            "Exact" => true,
            "" => limit > 0,
            _ => false,
        };
        if version == 0 {
            return Ok(Self { limit, ..Self::default() });
        }
        if exact {
            return Ok(Self { limit, revision: Some(version), ..Self::default() });
        }
        not_newer(version, newest)?;
        Ok(Self { limit, ..Self::default() })
    }
}

/// The rules of `resourceVersionMatch` for lists.
fn judge_list(query: &Query) -> Result<(), ApiError> {
    let (matching, version) = (query.get("resourceVersionMatch"), query.get("resourceVersion"));
    let mut errors = FieldErrors::default();
    let path = Path::new("resourceVersionMatch");
    if !matching.is_empty() {
        if version.is_empty() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !query.get("continue").is_empty() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            errors.not_supported(&path, &matching, &["Exact", "NotOlderThan", ""]);
        }
        if matching == "Exact" && version == "0" {
            errors.forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if query.find("sendInitialEvents").is_some_and(|v| !v.is_empty()) {
        errors.forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
    }
    judged("ListOptions", &errors)
}

/// A resource version of a query; 0 for none.
pub(crate) fn parse_version(text: &str) -> Result<Revision, ApiError> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        let why =
            format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax");
        ApiError::new(Reason::Unknown, why)
    })
}

/// Refuses versions that have not happened yet.
pub(crate) fn not_newer(version: Revision, newest: Revision) -> Result<(), ApiError> {
    if version > newest { Err(too_large(version, newest)) } else { Ok(()) }
}

fn too_large(version: Revision, newest: Revision) -> ApiError {
    let text = format!("Timeout: Too large resource version: {version}, current: {newest}");
    let mut error = ApiError::new(Reason::Timeout, text);
    error.details = json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    });
    error
}

/// Revision (`None`: whatever is now) and start of a continue token.
fn parse_token(token: &str) -> Result<(Option<Revision>, String), ApiError> {
    let invalid =
        |why: &str| ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|e| invalid(&e.to_string()))?;
    let token: Value =
        serde_json::from_slice(&bytes).map_err(|_| invalid(&stead_machinery::patch::json_error(&bytes)))?;
    if token["v"] != TOKEN_VERSION {
        return Err(invalid(&format!(
            "server does not recognize this encoded version {:?}",
            token["v"].as_str().unwrap_or("")
        )));
    }
    let start = token["start"].as_str().unwrap_or("");
    if start.is_empty() {
        return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
    }
    // Dots and slashes must not lead out of the prefix of the list.
    if start.split('/').any(|part| part == "." || part == "..") || start.starts_with('/') {
        return Err(invalid(start));
    }
    match token["rv"].as_i64() {
        Some(0) | None => Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")),
        Some(-1) => Ok((None, start.to_owned())),
        Some(revision) => Ok((u64::try_from(revision).ok(), start.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_options() {
        let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NDMyMCwic3RhcnQiOiJjbTFcdTAwMDAifQ";
        for (query, want) in [
            ("", "limit 0 at None from \"\""),
            ("limit=2&resourceVersion=0", "limit 2 at None from \"\""),
            ("limit=-1", "limit 0 at None from \"\""),
            ("limit=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
            ("timeoutSeconds=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
            ("resourceVersion=7", "limit 0 at None from \"\""),
            ("resourceVersion=7&limit=1", "limit 1 at Some(7) from \"\""),
            ("resourceVersion=7&resourceVersionMatch=Exact", "limit 0 at Some(7) from \"\""),
            ("resourceVersion=9", "Timeout: Too large resource version: 9, current: 8"),
            (
                "resourceVersion=abc",
                "resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax",
            ),
            (
                "resourceVersion=0&resourceVersionMatch=Exact",
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                "resourceVersionMatch=Exact",
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "resourceVersion=4&resourceVersionMatch=Frob",
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Unsupported value: \"Frob\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            (&format!("limit=2&continue={token}"), "limit 2 at Some(4320) from \"cm1\\0\""),
            (
                &format!("limit=2&continue={token}&resourceVersion=5"),
                "specifying resource version is not allowed when using continue",
            ),
        ] {
            let got = ListOptions::read(&Query::parse(Some(query)), 8);
            let got =
                got.map_or_else(|e| e.message, |o| format!("limit {} at {:?} from {:?}", o.limit, o.revision, o.start));
            assert_eq!(got, want, "{query}");
        }
        assert_eq!(super::token(4320, "/registry/configmaps/http/", b"/registry/configmaps/http/cm1"), token);
    }
}
