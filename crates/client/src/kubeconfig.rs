//! A client from a kubeconfig file, with kubectl's rules for which file and which context.

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::{Client, ClientError, install_crypto};

/// Which kubeconfig to use, and what to take from it. Everything left out follows kubectl's defaults.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// `--kubeconfig`; without it `$KUBECONFIG`, then `~/.kube/config`.
    pub path: Option<PathBuf>,
    /// `--context`; without it the file's `current-context`.
    pub context: Option<String>,
    /// `--cluster`.
    pub cluster: Option<String>,
    /// `--user`.
    pub user: Option<String>,
}

/// Reads the kubeconfig that `place` names.
///
/// # Errors
/// [`ClientError::Kubeconfig`] when a file is missing or malformed, or names a context that it does not have.
pub async fn load(place: &Place) -> Result<kube::Config, ClientError> {
    let options =
        KubeConfigOptions { context: place.context.clone(), cluster: place.cluster.clone(), user: place.user.clone() };
    let named = place.path.as_ref().map_or_else(|| "the default kubeconfig".to_owned(), |p| p.display().to_string());
    let failed = |cause| ClientError::Kubeconfig { path: named.clone(), cause };
    match &place.path {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            kube::Config::from_custom_kubeconfig(file, &options).await.map_err(failed)
        }
        None => kube::Config::from_kubeconfig(&options).await.map_err(failed),
    }
}

/// A client for the cluster that `place` names.
///
/// # Errors
/// Those of [`load`], and [`ClientError::Api`] when certificates or tokens of the file cannot be used.
pub async fn from_kubeconfig(place: &Place) -> Result<Client, ClientError> {
    from_config(load(place).await?)
}

/// The configuration of the service account whose files are in this pod; `None` outside of one.
#[must_use]
pub fn service_account() -> Option<kube::Config> {
    kube::Config::incluster().ok()
}

/// A client from a configuration that is at hand already.
///
/// # Errors
/// [`ClientError::Api`] when certificates or tokens cannot be used.
pub fn from_config(config: kube::Config) -> Result<Client, ClientError> {
    install_crypto();
    Client::try_from(config).map_err(ClientError::from)
}
