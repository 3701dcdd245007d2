//! Stored objects in the form that the caller asked for: object, table or metadata only; one or many.

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;
use stead_api::{Kind, convert};
use stead_machinery::ApiError;
use stead_machinery::table::{self, IncludeObject};
use stead_store::{Entry, Revision};

use crate::body::ApiBody;
use crate::chain::Call;
use crate::negotiate::{Form, Media, Shape};
use crate::objects;
use crate::path::Query;
use crate::response::{self, Answer};

/// Long lists are sent in frames of about this many bytes, so that memory does not hold them twice.
const FRAME_BYTES: usize = 128 * 1024;
/// Lists below this many stored bytes are sent at once.
const AT_ONCE_BYTES: usize = 256 * 1024;

/// What a row of a table carries besides its cells.
pub(crate) fn include(query: &Query) -> IncludeObject {
    // Other words are refused by `check_include` where they matter.
    IncludeObject::parse(query.get("includeObject")).unwrap_or_default()
}

/// Refuses unknown values of `includeObject` where tables are asked for.
pub(crate) fn check_include(form: Form, query: &Query) -> Result<(), ApiError> {
    if form.shape == Shape::Table {
        IncludeObject::parse(query.get("includeObject"))?;
    }
    Ok(())
}

/// One object.
pub(crate) fn object(
    code: StatusCode,
    form: Form,
    kind: &Kind,
    entry: &Entry,
    call: &Call,
) -> Result<Answer, ApiError> {
    check_include(form, &call.query)?;
    let mut out = BytesMut::new();
    put_one(&mut out, form.shape, kind, entry, entry.modified, include(&call.query), true);
    Ok(response::json_bytes(code, form, out.freeze()))
}

/// Appends one object in a shape. `columns`: a table tells its columns.
pub(crate) fn put_one(
    out: &mut BytesMut,
    shape: Shape,
    kind: &Kind,
    entry: &Entry,
    revision: Revision,
    include: IncludeObject,
    columns: bool,
) {
    match shape {
        Shape::Object if !kind.converted() => objects::put_object(out, &entry.value, revision),
        Shape::Object => put_value(out, &decode(kind, entry, revision)),
        Shape::Metadata => {
            out.put_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",");
            put_metadata(out, &entry.value, revision);
            out.put_slice(b"}");
        }
        Shape::Table => {
            let meta = ListMeta::at(revision);
            put_table_head(out, kind, &meta, columns);
            put_row(out, kind, entry, revision, include);
            out.put_slice(b"]}");
        }
    }
}

/// The object parsed, in the form of `kind`. Bytes that are no JSON give null: they cannot have been stored by us.
fn decode(kind: &Kind, entry: &Entry, revision: Revision) -> Value {
    objects::decode(&entry.value, revision).map_or(Value::Null, |object| convert::from_storage(kind, object))
}

fn put_value(out: &mut BytesMut, value: &Value) {
    serde_json::to_writer(out.writer(), value).expect("a JSON value can be written to memory");
}

fn put_metadata(out: &mut BytesMut, stored: &[u8], revision: Revision) {
    if revision == 0 {
        out.put_slice(b"\"metadata\":");
        return out.put_slice(objects::metadata_slice(stored).unwrap_or(b"{}"));
    }
    out.put_slice(b"\"metadata\":{\"resourceVersion\":\"");
    out.put_slice(revision.to_string().as_bytes());
    out.put_slice(b"\"");
    if let Some(rest) = objects::metadata_slice(stored).map(|m| &m[1..]) {
        if rest != b"}" {
            out.put_slice(b",");
        }
        out.put_slice(rest);
    } else {
        out.put_slice(b"}");
    }
}

/// The `metadata` of a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListMeta {
    pub(crate) revision: Revision,
    /// The continue token; empty on the last page.
    pub(crate) next: String,
    pub(crate) remaining: Option<usize>,
}

impl ListMeta {
    pub(crate) fn at(revision: Revision) -> Self {
        Self { revision, ..Self::default() }
    }

    fn put(&self, out: &mut BytesMut) {
        if self.revision == 0 {
            // A list of measurements.
            return out.put_slice(b"\"metadata\":{}");
        }
        out.put_slice(format!("\"metadata\":{{\"resourceVersion\":\"{}\"", self.revision).as_bytes());
        if !self.next.is_empty() {
            out.put_slice(format!(",\"continue\":\"{}\"", self.next).as_bytes());
        }
        if let Some(remaining) = self.remaining {
            out.put_slice(format!(",\"remainingItemCount\":{remaining}").as_bytes());
        }
        out.put_slice(b"}");
    }
}

/// A list, in frames when it is long.
pub(crate) fn list(
    form: Form,
    kind: &'static Kind,
    entries: Vec<Entry>,
    meta: ListMeta,
    call: &Call,
) -> Result<Answer, ApiError> {
    let mut joiner = Joiner {
        shape: form.shape,
        kind,
        include: include(&call.query),
        meta,
        entries: entries.into_iter(),
        state: State::Head,
    };
    let size: usize = joiner.entries.as_slice().iter().map(|entry| entry.value.len()).sum();
    if form.media == Media::Json && !form.pretty && size > AT_ONCE_BYTES {
        let frames = std::iter::from_fn(move || joiner.frame(FRAME_BYTES));
        let zip = response::takes_gzip(call.headers());
        let body = if zip { response::gzip(frames) } else { ApiBody::frames(futures::stream::iter(frames)) };
        let mut answer = response::with_type(StatusCode::OK, form.media.content_type(), body);
        if zip {
            response::mark_gzip(&mut answer);
        }
        return Ok(answer);
    }
    let whole = joiner.frame(usize::MAX).unwrap_or_default();
    Ok(response::json_bytes(StatusCode::OK, form, whole))
}

enum State {
    Head,
    Items { comma: bool },
    Done,
}

/// Joins encoded items to a list, frame by frame.
struct Joiner {
    shape: Shape,
    kind: &'static Kind,
    include: IncludeObject,
    meta: ListMeta,
    entries: std::vec::IntoIter<Entry>,
    state: State,
}

impl Joiner {
    fn frame(&mut self, size: usize) -> Option<Bytes> {
        let mut out = BytesMut::with_capacity(size.min(FRAME_BYTES + FRAME_BYTES / 8));
        if matches!(self.state, State::Head) {
            self.put_head(&mut out);
            self.state = State::Items { comma: false };
        }
        while let State::Items { comma } = self.state {
            if out.len() >= size {
                break;
            }
            let Some(entry) = self.entries.next() else {
                out.put_slice(b"]}");
                self.state = State::Done;
                break;
            };
            if comma {
                out.put_slice(b",");
            }
            self.put_item(&mut out, &entry);
            self.state = State::Items { comma: true };
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    fn put_head(&self, out: &mut BytesMut) {
        match self.shape {
            Shape::Object => {
                let (kind, version) = (self.kind.kind, self.kind.api_version());
                out.put_slice(format!("{{\"kind\":\"{kind}List\",\"apiVersion\":\"{version}\",").as_bytes());
                self.meta.put(out);
                out.put_slice(b",\"items\":[");
            }
            Shape::Metadata => {
                out.put_slice(b"{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",");
                self.meta.put(out);
                out.put_slice(b",\"items\":[");
            }
            Shape::Table => put_table_head(out, self.kind, &self.meta, true),
        }
    }

    fn put_item(&self, out: &mut BytesMut, entry: &Entry) {
        match self.shape {
            Shape::Object if !self.kind.converted() => objects::put_item(out, &entry.value, entry.modified),
            Shape::Object => {
                let mut object = decode(self.kind, entry, entry.modified);
                if let Some(map) = object.as_object_mut() {
                    map.remove("kind");
                    map.remove("apiVersion");
                }
                put_value(out, &object);
            }
            Shape::Metadata => put_one(out, Shape::Metadata, self.kind, entry, entry.modified, self.include, false),
            Shape::Table => put_row(out, self.kind, entry, entry.modified, self.include),
        }
    }
}

fn put_table_head(out: &mut BytesMut, kind: &Kind, meta: &ListMeta, columns: bool) {
    out.put_slice(b"{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",");
    meta.put(out);
    out.put_slice(b",\"columnDefinitions\":");
    if columns {
        put_value(out, &columns_of(kind));
    } else {
        out.put_slice(b"null");
    }
    out.put_slice(b",\"rows\":[");
}

fn columns_of(kind: &Kind) -> Value {
    let mut empty = table::table(kind, [], Value::Null, IncludeObject::None, true, Timestamp::UNIX_EPOCH);
    empty["columnDefinitions"].take()
}

fn put_row(out: &mut BytesMut, kind: &Kind, entry: &Entry, revision: Revision, include: IncludeObject) {
    put_value(out, &table::row(kind, &decode(kind, entry, revision), include, crate::source::now()));
}
