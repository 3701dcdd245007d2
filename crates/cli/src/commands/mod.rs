//! One file per command: its flags, its `run`, and below them what it decides and prints as pure functions.

pub(crate) mod annotate;
pub(crate) mod api_resources;
pub(crate) mod apply;
pub(crate) mod attach;
pub(crate) mod auth;
pub(crate) mod autoscale;
pub(crate) mod certificate;
pub(crate) mod cluster_info;
pub(crate) mod common;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod cordon;
pub(crate) mod cp;
pub(crate) mod create;
mod create_access;
pub(crate) mod debug;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod diagnose;
pub(crate) mod diff;
pub(crate) mod drain;
pub(crate) mod edit;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod expose;
pub(crate) mod get;
pub(crate) mod kustomize;
pub(crate) mod label;
pub(crate) mod logs;
pub(crate) mod options;
pub(crate) mod patch;
pub(crate) mod plan;
pub(crate) mod plugin;
pub(crate) mod pods;
pub(crate) mod port_forward;
pub(crate) mod proxy;
pub(crate) mod prune;
pub(crate) mod replace;
pub(crate) mod rollout;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod set;
pub(crate) mod taint;
pub(crate) mod timeline;
pub(crate) mod top;
pub(crate) mod version;
pub(crate) mod wait;

use crate::arguments::Command;
use crate::failure::Result;
use crate::session::Session;

/// Does what the command line asks for.
pub(crate) async fn run(session: &Session, command: Command) -> Result {
    match command {
        Command::Get(flags) => get::run(session, flags).await,
        Command::Describe(flags) => describe::run(session, flags).await,
        Command::Apply(flags) => apply::run(session, flags).await,
        Command::Create(flags) => create::run(session, flags).await,
        Command::Replace(flags) => replace::run(session, flags).await,
        Command::Delete(flags) => delete::run(session, flags).await,
        Command::Scale(flags) => scale::run(session, flags).await,
        Command::Edit(flags) => edit::run(session, flags).await,
        Command::Patch(flags) => patch::run(session, flags).await,
        Command::Set(flags) => set::run(session, flags).await,
        Command::Rollout(flags) => rollout::run(session, flags).await,
        Command::Exec(flags) => exec::run(session, flags).await,
        Command::Logs(flags) => logs::run(session, flags).await,
        Command::Run(flags) => run::run(session, flags).await,
        Command::Attach(flags) => attach::run(session, flags).await,
        Command::Label(flags) => label::run(session, flags, label::What::Label).await,
        Command::Annotate(flags) => annotate::run(session, flags).await,
        Command::Wait(flags) => wait::run(session, flags).await,
        Command::Events(flags) => events::run(session, flags).await,
        Command::PortForward(flags) => port_forward::run(session, flags).await,
        Command::Cp(flags) => cp::run(session, flags).await,
        Command::ApiResources(flags) => api_resources::run(session, flags).await,
        Command::ApiVersions => api_resources::versions(session).await,
        Command::Explain(flags) => explain::run(session, flags).await,
        Command::Plan(flags) => plan::run(session, flags).await,
        Command::Timeline(flags) => timeline::run(session, flags).await,
        Command::Top(flags) => top::run(session, flags).await,
        Command::Version(flags) => version::run(session, flags).await,
        Command::Cordon(flags) => cordon::run(session, flags, true).await,
        Command::Uncordon(flags) => cordon::run(session, flags, false).await,
        Command::Taint(flags) => taint::run(session, flags).await,
        Command::Auth(flags) => auth::run(session, flags).await,
        Command::Drain(flags) => drain::run(session, flags).await,
        Command::Config(flags) => config::run(session, flags).await,
        Command::Kustomize(flags) => kustomize::run(session, &flags),
        Command::ClusterInfo(flags) => cluster_info::run(session, flags).await,
        Command::Expose(flags) => expose::run(session, flags).await,
        Command::Autoscale(flags) => autoscale::run(session, flags).await,
        Command::Diff(flags) => diff::run(session, flags).await,
        Command::Debug(flags) => debug::run(session, flags).await,
        Command::Proxy(flags) => proxy::run(session, flags).await,
        Command::Certificate(flags) => certificate::run(session, flags).await,
        Command::Plugin(flags) => plugin::run(session, &flags),
        Command::Options => options::run(session),
        Command::Completion(flags) => completion::run(session, &flags),
    }
}
