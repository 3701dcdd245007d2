//! Black-box tests: a real `stead server`, real containers, stock kubectl. They need root; `cargo xtask test` prepares what they need.

// A test may give up where it stands.
#![allow(clippy::unwrap_used)]

mod acceptance;
mod applications;
mod autoscaling;
mod bad_input;
mod check;
mod companion;
mod csi;
mod documents;
mod healing;
mod neighbours;
mod nodes;
mod order;
mod plan;
mod quickstart;
mod records;
mod restart;
mod same_as_kubectl;
mod seed_000;
mod seed_001;
mod seed_002;
mod seed_004;
mod statements;
mod states;
mod storage;
mod support;
mod templates;
mod upstream;
mod wishes;
mod wrong_use;
