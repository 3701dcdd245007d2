//! What every command works with: the flags that all share, the server, the output.

use std::io::Write as _;
use std::rc::Rc;

use serde_json::Value;
use tokio::sync::OnceCell;

use crate::arguments::Globals;
use crate::failure::{Result, plain};
use crate::kubeconfig;
use crate::resources::{Resource, Resources};
use crate::server::Server;

/// One run of the program.
pub(crate) struct Session {
    pub(crate) globals: Globals,
    /// The version of this program, as `version` prints it.
    pub(crate) version: &'static str,
    server: OnceCell<(Server, String)>,
}

impl Session {
    pub(crate) fn new(globals: Globals, version: &'static str) -> Self {
        Self { globals, version, server: OnceCell::new() }
    }

    async fn connected(&self) -> Result<&(Server, String)> {
        let connect = || async {
            let config = kubeconfig::connection(&self.globals).await?;
            let namespace = self.globals.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
            Ok((Server::new(config)?, namespace))
        };
        self.server.get_or_try_init(connect).await
    }

    /// The server; the kubeconfig is read at first use.
    pub(crate) async fn server(&self) -> Result<&Server> {
        Ok(&self.connected().await?.0)
    }

    /// The namespace that commands mean: by flag, by context, `default`.
    pub(crate) async fn namespace(&self) -> Result<&str> {
        Ok(&self.connected().await?.1)
    }

    pub(crate) async fn resources(&self) -> Result<Rc<Resources>> {
        self.server().await?.resources().await
    }

    /// The resource that a word means.
    pub(crate) async fn resource(&self, word: &str) -> Result<Rc<Resource>> {
        match self.resources().await?.find(word) {
            Some(resource) => Ok(resource),
            None => plain(format!("the server doesn't have a resource type {word:?}")),
        }
    }

    /// The resource of a kind that every server has.
    pub(crate) async fn kind(&self, group: &str, kind: &str) -> Result<Rc<Resource>> {
        match self.resources().await?.of_kind(group, kind) {
            Some(resource) => Ok(resource),
            None => plain(format!("the server doesn't have a resource type {:?}", kind.to_lowercase())),
        }
    }

    /// Reads one object of a kind that every server has.
    pub(crate) async fn read(&self, group: &str, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let resource = self.kind(group, kind).await?;
        self.server().await?.get(&resource.object_path(Some(namespace), name)).await
    }

    /// Writes to standard output at once.
    pub(crate) fn out(&self, text: &str) -> Result {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Writes to standard error.
    pub(crate) fn err(&self, text: &str) {
        // Nothing is left to tell it to when standard error is closed.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}
