//! OCI images and containers behind one trait.
//!
//! Invariants: knows no Kubernetes kinds; containers are only ever created from the single-threaded shim; killing the caller
//! never stops a container.

pub mod engine;

pub use engine::*;
