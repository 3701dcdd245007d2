//! Paths to fields and the errors that validation finds at them, in upstream's words.
//!
//! Source of the texts: `k8s.io/apimachinery/pkg/util/validation/field`.

use std::fmt;

/// The way to a field: `spec.template.spec.containers[0].name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    #[must_use]
    pub fn new(root: &str) -> Self {
        Self(root.to_owned())
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field. The names are the `reason`s of a Status' causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    NotFound,
    TooLong,
    TooMany,
    TypeInvalid,
    Internal,
}

impl FieldErrorKind {
    /// The cause's `reason` on the wire.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }
}

/// One error at one field. `message` is the text without the field: `Invalid value: -1: must be ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    pub field: String,
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// All that validation found, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldErrors(pub Vec<FieldError>);

impl FieldErrors {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `field: Required value` with an optional `: detail`.
    pub fn required(&mut self, path: &Path, detail: &str) {
        self.push(FieldErrorKind::Required, path, with_detail("Required value", detail));
    }

    /// `field: Invalid value: VALUE: detail`; `value` is shown as Go's `%q` for strings and as JSON otherwise.
    pub fn invalid(&mut self, path: &Path, value: &dyn Shown, detail: &str) {
        self.push(FieldErrorKind::Invalid, path, with_detail(&format!("Invalid value: {}", value.shown()), detail));
    }

    /// `field: Unsupported value: VALUE: supported values: "A", "B"`.
    pub fn not_supported(&mut self, path: &Path, value: &dyn Shown, supported: &[&str]) {
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        let detail = if list.is_empty() { String::new() } else { format!("supported values: {list}") };
        self.push(
            FieldErrorKind::NotSupported,
            path,
            with_detail(&format!("Unsupported value: {}", value.shown()), &detail),
        );
    }

    /// `field: Duplicate value: VALUE`.
    pub fn duplicate(&mut self, path: &Path, value: &dyn Shown) {
        self.push(FieldErrorKind::Duplicate, path, format!("Duplicate value: {}", value.shown()));
    }

    /// `field: Forbidden: detail`.
    pub fn forbidden(&mut self, path: &Path, detail: &str) {
        self.push(FieldErrorKind::Forbidden, path, with_detail("Forbidden", detail));
    }

    /// `field: Not found: VALUE`.
    pub fn not_found(&mut self, path: &Path, value: &dyn Shown) {
        self.push(FieldErrorKind::NotFound, path, format!("Not found: {}", value.shown()));
    }

    /// `field: Too long: may not be more than MAX bytes`.
    pub fn too_long(&mut self, path: &Path, max_bytes: usize) {
        self.push(FieldErrorKind::TooLong, path, format!("Too long: may not be more than {max_bytes} bytes"));
    }

    /// `field: Too many: ACTUAL: must have at most MAX items`.
    pub fn too_many(&mut self, path: &Path, actual: usize, max: usize) {
        let items = if max == 1 { "item" } else { "items" };
        self.push(FieldErrorKind::TooMany, path, format!("Too many: {actual}: must have at most {max} {items}"));
    }

    pub fn push(&mut self, kind: FieldErrorKind, path: &Path, message: String) {
        self.0.push(FieldError { kind, field: path.to_string(), message });
    }
}

fn with_detail(text: &str, detail: &str) -> String {
    if detail.is_empty() { text.to_owned() } else { format!("{text}: {detail}") }
}

/// A value as upstream's errors show it.
pub trait Shown {
    fn shown(&self) -> String;
}

impl Shown for str {
    fn shown(&self) -> String {
        go_quote(self)
    }
}

impl Shown for &str {
    fn shown(&self) -> String {
        go_quote(self)
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        go_quote(self)
    }
}

impl Shown for serde_json::Value {
    fn shown(&self) -> String {
        match self {
            Self::String(text) => go_quote(text),
            other => other.to_string(),
        }
    }
}

macro_rules! shown_as_display {
    ($($t:ty)*) => { $(impl Shown for $t { fn shown(&self) -> String { self.to_string() } })* };
}
shown_as_display!(i32 i64 u16 u32 u64 usize bool f64);

/// Go's `%q`.
#[must_use]
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
