//! Generic algorithms over any object: errors as the API speaks them, field paths, selectors, quantities, patches, tables.
//!
//! Invariants: no IO, no clock, no randomness; nothing here knows a particular kind.

#![forbid(unsafe_code)]

pub mod field;
pub mod status;

pub use field::{FieldError, FieldErrors, Path};
pub use status::ApiError;
