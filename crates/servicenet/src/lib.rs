//! Services: which pods stand behind one, which packets go where, and what a name means.
//!
//! Invariants: no IO, no clock, no randomness. The DNS server and the proxy both take their answers from here, so that a
//! name and a virtual address never disagree. Time comes in through the objects.

#![forbid(unsafe_code)]

pub mod endpoints;
pub mod table;
pub mod zone;
