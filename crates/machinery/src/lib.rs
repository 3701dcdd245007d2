//! Generic algorithms over any object: errors as the API speaks them, field paths, selectors, quantities, patches, tables.
//!
//! Invariants: no IO, no clock, no randomness; nothing here knows a particular kind.

#![forbid(unsafe_code)]

pub mod apply;
pub mod decode;
pub mod discovery;
pub mod field;
pub mod gojson;
pub mod hand_over;
pub mod names;
pub mod openapi;
pub mod ordinals;
pub mod overrides;
pub mod parts;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod table;
pub mod time;
pub mod written;

pub use field::{FieldError, FieldErrors, Path};
pub use status::ApiError;
