//! Why a reconciliation ended early.

use stead_client::{Class, classify, message};

/// The first error of a reconciliation; the key is tried again after its back-off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error("cannot {what}: {}", message(.cause))]
    Api { what: String, cause: Box<kube::Error> },
    /// Something other than the API stands in the way; says what, and what would mend it.
    #[error("{0}")]
    Blocked(String),
    /// It may not be done now; a change of what forbids it brings the key back.
    #[error("{0}")]
    Held(String),
}

impl Error {
    /// For `map_err`: `api.create(..).await.map_err(Error::doing("create pod web-0"))`.
    pub fn doing(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |cause| Self::Api { what, cause: Box::new(cause) }
    }

    /// What kind of API error it was.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        match self {
            Self::Api { cause, .. } => Some(classify(cause)),
            Self::Blocked(_) | Self::Held(_) => None,
        }
    }
}
