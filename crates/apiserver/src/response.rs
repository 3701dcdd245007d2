//! Responses: bytes with the headers that every answer has, errors as Status, indentation and compression.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use serde_json::Value;
use stead_machinery::ApiError;

use crate::body::ApiBody;
use crate::negotiate::{Form, Media};

/// Bodies from this size on are compressed for whoever asks (upstream's threshold), in bytes.
const GZIP_BYTES_MIN: usize = 128 * 1024;
/// Speed matters more than size on a local network (upstream's level).
const GZIP_LEVEL: u32 = 1;

/// The response type of the whole server.
pub(crate) type Answer = Response<ApiBody>;

/// An answer of JSON bytes that is written in the caller's form.
#[must_use]
pub(crate) fn json_bytes(code: StatusCode, form: Form, json: Bytes) -> Answer {
    let bytes = match form.media {
        Media::Json if form.pretty => indent(&json),
        Media::Json | Media::Protobuf => json,
        Media::Yaml => to_yaml(&json),
    };
    with_type(code, form.media.content_type(), ApiBody::full(bytes))
}

/// An answer of a JSON value.
#[must_use]
pub(crate) fn json_value(code: StatusCode, form: Form, value: &Value) -> Answer {
    json_bytes(code, form, serde_json::to_vec(value).expect("a JSON value can be written").into())
}

/// Plain text, as health checks and unknown paths answer.
#[must_use]
pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = with_type(code, "text/plain; charset=utf-8", ApiBody::full(text));
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// What upstream says for a path that it does not know.
#[must_use]
pub(crate) fn page_not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A request whose user may not make it.
#[must_use]
pub(crate) fn forbidden(form: Form, refusal: &ApiError) -> Answer {
    let mut answer = error(form, refusal);
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// A failed request.
#[must_use]
pub(crate) fn error(form: Form, error: &ApiError) -> Answer {
    let code = StatusCode::from_u16(error.reason.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json_bytes(code, form, status_bytes(&error.to_status()));
    if let Some(seconds) = error.details.get("retryAfterSeconds").and_then(Value::as_u64) {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// A Status with its fields in upstream's order: what people look for comes before the details.
fn status_bytes(status: &Value) -> Bytes {
    let mut out = String::with_capacity(256);
    for key in ["kind", "apiVersion", "metadata", "status", "message", "reason", "details", "code"] {
        if !status[key].is_null() {
            let comma = if out.is_empty() { '{' } else { ',' };
            out.push_str(&format!("{comma}\"{key}\":{}", status[key]));
        }
    }
    out.push('}');
    out.into()
}

#[must_use]
pub(crate) fn with_type(code: StatusCode, content_type: &'static str, body: ApiBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Adds one `Warning` header per text, as upstream encodes them.
pub(crate) fn warn(headers: &mut HeaderMap, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(header::WARNING, value);
        }
    }
}

/// Compresses a large body.
pub(crate) fn compress(answer: &mut Answer) {
    let ApiBody::Full(Some(bytes)) = answer.body() else { return };
    if bytes.len() < GZIP_BYTES_MIN || answer.headers().contains_key(header::CONTENT_ENCODING) {
        return;
    }
    *answer.body_mut() = gzip(std::iter::once(bytes.clone()));
    mark_gzip(answer);
}

/// Frames compressed one by one as they are sent: neither form is ever in memory as a whole.
pub(crate) fn gzip(frames: impl Iterator<Item = Bytes> + Send + 'static) -> ApiBody {
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL)));
    let mut frames = frames;
    let next = move || {
        loop {
            let mut open = encoder.take()?;
            let Some(frame) = frames.next() else {
                return open.finish().ok().filter(|last| !last.is_empty()).map(Bytes::from);
            };
            // Writing to memory does not fail; if it did, the stream ends and the caller sees that it is cut short.
            open.write_all(&frame).ok()?;
            let ready = std::mem::take(open.get_mut());
            encoder = Some(open);
            if !ready.is_empty() {
                return Some(Bytes::from(ready));
            }
        }
    };
    ApiBody::frames(futures::stream::iter(std::iter::from_fn(next)))
}

/// Leaves only the head of an answer, with the length that the body would have.
pub(crate) fn drop_body(answer: &mut Answer) {
    let length = answer.body().size_hint().exact();
    *answer.body_mut() = ApiBody::Empty;
    if let Some(length) = length {
        answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Says that the body is compressed.
pub(crate) fn mark_gzip(answer: &mut Answer) {
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.remove(header::CONTENT_LENGTH);
}

/// Whether the caller's `Accept-Encoding` names gzip.
#[must_use]
pub(crate) fn takes_gzip(request: &HeaderMap) -> bool {
    request
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|coding| coding.split(';').next().is_some_and(|name| name.trim() == "gzip"))
}

fn to_yaml(json: &Bytes) -> Bytes {
    let value: Value = serde_json::from_slice(json).unwrap_or(Value::Null);
    serde_norway::to_string(&value).map_or_else(|_| json.clone(), Bytes::from)
}

/// Indents JSON by two spaces, as upstream for people; the order of fields stays.
#[must_use]
pub(crate) fn indent(json: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut text, mut escaped) = (0usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + depth * 2, b' ');
    };
    for (i, &byte) in json.iter().enumerate() {
        if text {
            out.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => {
                text = true;
                out.push(byte);
            }
            b'{' | b'[' => {
                out.push(byte);
                depth += 1;
                if !matches!(json.get(i + 1), Some(b'}' | b']')) {
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !matches!(out.last(), Some(b'{' | b'[')) {
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.push(byte),
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indents_as_upstream() {
        let got = indent(br#"{"a":{},"b":[1,{"c":"x,{\"y"}],"d":[]}"#);
        let want = "{\n  \"a\": {},\n  \"b\": [\n    1,\n    {\n      \"c\": \"x,{\\\"y\"\n    }\n  ],\n  \"d\": []\n}";
        assert_eq!(std::str::from_utf8(&got).unwrap(), want);
    }

    #[test]
    fn warnings_are_quoted() {
        let mut headers = HeaderMap::new();
        warn(&mut headers, &["unknown field \"spec.x\"".to_owned()]);
        assert_eq!(headers[header::WARNING], "299 - \"unknown field \\\"spec.x\\\"\"");
    }
}
