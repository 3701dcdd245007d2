//! The words of the system: which kinds exist, and what is true of each of them as data.
//!
//! Invariants:
//! - only this crate lists kinds; everything else is generic over a [`Kind`] row;
//! - no IO, no clock, no randomness.
//!
//! The typed objects are those of `k8s-openapi` and are re-exported as [`types`].

#![forbid(unsafe_code)]

pub mod age;
pub mod columns;
pub mod convert;
pub mod kinds;
mod rows;
pub mod schema;
pub mod typed;

pub use k8s_openapi as types;
pub use kinds::{Column, GroupVersion, KINDS, Kind, Scope, Subresource};
