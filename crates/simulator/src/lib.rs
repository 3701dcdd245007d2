//! A whole cluster in one thread, under a clock that stands still, from one seed: the real API server, store, controllers and
//! scheduler with simulated nodes and people, and faults between all of them.
//!
//! Invariants:
//! - a seed always gives the same events in the same order: nothing here asks the system for time or random numbers;
//! - every write to the store is judged when it happens (`rules`), the end result by `settle`;
//! - product code is run as it is; faults come in through its doors (transport, store, clock).

#![forbid(unsafe_code)]
// Tools for tests: what panics here has found a fault of the simulator.
#![allow(missing_debug_implementations)]

mod campaign;
mod chaos;
mod disk;
mod line;
mod model;
mod nodes;
mod parts;
mod people;
mod plant;
mod profile;
mod rng;
mod rules;
mod run;
mod settle;
mod views;
mod world;

/// A quarter of a simulation is the making and dropping of small pieces of objects.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub use campaign::{Campaign, Report, range};
pub use plant::{BUGS, Bug, Plant};
pub use run::{Outcome, run, run_with};
