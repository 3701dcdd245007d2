//! The Kubernetes API from inside and outside: one client type over an in-process service or over TLS.
//!
//! Invariants:
//! - components depend on [`Client`] only, so the same code runs against any Kubernetes cluster;
//! - nothing here retries: callers decide with [`classify`] what to do with an error.

#![forbid(unsafe_code)]

mod ensure;
mod error;
mod fetch;
mod kubeconfig;
pub mod tls;
mod transport;

pub use ensure::{Ensured, create_if_absent, delete_if_present};
pub use error::{Class, ClientError, classify, is, message};
pub use fetch::{FetchError, Fetched, fetch};
pub use kubeconfig::{Place, from_config, from_kubeconfig, load, service_account};
pub use transport::{in_process, install_crypto};

/// The client that every component uses. In process it skips sockets and TLS; see [`in_process`].
pub type Client = kube::Client;
