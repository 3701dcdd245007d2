//! OCI images and containers behind one trait.
//!
//! Invariants: knows no Kubernetes kinds; containers are only ever created from the single-threaded shim; killing the caller
//! never stops a container.
#![allow(unsafe_code)]

mod cgroup;
pub mod embedded;
pub mod engine;
mod image;
mod mounts;
mod seccomp;
mod shim;

pub use engine::*;
pub use shim::shim_main;
