//! The Kubernetes API over a [`stead_store::Store`]: REST on HTTP/1.1 and HTTP/2, generic by verb.
//!
//! The way of a request: [`http`](mod@http) (or the in-process transport) -> `chain` (who, may they, is there room) ->
//! `verbs` or `subresources` -> the store. Watches and lists copy encoded objects; only writes parse them.
//!
//! Invariants:
//! - no handler knows a kind; what differs between kinds is data in `stead_api` and rules in `stead_admission`;
//! - nothing but this crate touches the store;
//! - errors leave as a Status in upstream's words, from one place.

#![forbid(unsafe_code)]

mod body;
mod bootstrap;
mod chain;
mod decode;
mod followed;
mod http;
mod inprocess;
pub mod join;
mod lookup;
mod measured;
mod metrics;
mod negotiate;
mod nonresource;
mod objects;
mod options;
mod path;
pub mod pki;
mod response;
mod select;
mod server;
mod source;
mod subresources;
pub mod tunnel;
mod verbs;

pub use body::ApiBody;
pub use chain::{Identity, REFUSED, REQUEST_BYTES_MAX};
pub use http::ServeError;
pub use inprocess::InProcess;
pub use pki::Pki;
pub use server::{ApiServer, AsyncReadWrite, Config, GIT_VERSION, JoinConfig, NoNodes, NodeDialer, OpenError};
pub use source::{Source, simulate};
