//! The door to storage systems: the Container Storage Interface, and how its drivers make themselves known.
//!
//! A driver listens on a socket of the machine and speaks gRPC. Only the part of gRPC that it takes is here: unary calls over
//! HTTP/2, each on a connection of its own, so that a driver may come and go between two calls.
//!
//! Invariants: nothing is retried here; what a call carries is not logged, since it may hold secrets.

#![forbid(unsafe_code)]

mod capability;
mod client;
mod frame;
pub mod messages;
pub mod registration;
mod server;
mod sockets;
mod status;

pub use capability::{ControllerAbilities, NodeAbilities, Services, access_mode, device, mounted};
pub use client::Endpoint;
pub use server::{Handler, answer, serve};
pub use sockets::{Socket, Sockets};
pub use status::{Code, Status};

/// A request and what it is answered with.
pub trait Rpc: prost::Message + Default + 'static {
    /// Where it is sent to: `/package.Service/Call`.
    const PATH: &'static str;
    type Response: prost::Message + Default + 'static;
}
