//! One suite for every backend: stories, a model, faults of the engine, damage of the files.

#![allow(clippy::unwrap_used)]

mod faults;
mod limits;
mod model;
mod stories;
mod story;
mod torn;
