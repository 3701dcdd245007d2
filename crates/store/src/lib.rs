//! Revisions, compare-and-put, ranges and watches: etcd's semantics behind one small trait.
//!
//! Invariants: knows no kinds; an acknowledged write survives kill -9 and power loss; watchers see every change once, in
//! revision order, and never a change that is not durable.

#![forbid(unsafe_code)]

pub mod door;

pub use door::*;
