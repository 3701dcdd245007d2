//! One file per command: its flags, its `run`, and below them what it decides and prints as pure functions.

pub(crate) mod api_resources;
pub(crate) mod cluster_info;
pub(crate) mod config;
pub(crate) mod get;
pub(crate) mod version;

use crate::arguments::Command;
use crate::failure::Result;
use crate::session::Session;

/// Does what the command line asks for.
pub(crate) async fn run(session: &Session, command: Command) -> Result {
    match command {
        Command::Get(flags) => get::run(session, flags).await,
        Command::ApiResources(flags) => api_resources::run(session, flags).await,
        Command::ApiVersions => api_resources::versions(session).await,
        Command::Version(flags) => version::run(session, flags).await,
        Command::Config(flags) => config::run(session, flags).await,
        Command::ClusterInfo(flags) => cluster_info::run(session, flags).await,
    }
}
