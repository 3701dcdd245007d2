//! What an API error means for the caller: who has to act, and whether trying again can help.

use kube::core::Status;

/// What a failed request means. Every error is in exactly one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The object changed since it was read: read again and decide again.
    Conflict,
    /// An object of that name exists: look whose it is.
    AlreadyExists,
    /// The object, its namespace or its kind is gone.
    NotFound,
    /// The revision asked for is compacted: list again.
    Expired,
    /// The namespace is being deleted: nothing can be created in it any more.
    NamespaceTerminating,
    /// The server is busy, away or timed out, or the connection broke: the same request may succeed later.
    Retryable,
    /// The request itself is refused: the same request will fail again.
    Final,
}

/// An error of this crate's own helpers.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot use {path}: {cause}")]
    Kubeconfig { path: String, cause: kube::config::KubeconfigError },
    #[error("{}", message(.0))]
    Api(#[from] kube::Error),
}

/// Sorts an error into its [`Class`].
#[must_use]
pub fn classify(error: &kube::Error) -> Class {
    match error {
        kube::Error::Api(status) => classify_status(status),
        kube::Error::Service(_)
        | kube::Error::HyperError(_)
        | kube::Error::ReadEvents(_)
        | kube::Error::UpgradeConnection(_) => Class::Retryable,
        _ => Class::Final,
    }
}

/// Whether `result` failed with an error of that class.
pub fn is<T>(result: &Result<T, kube::Error>, class: Class) -> bool {
    result.as_ref().err().is_some_and(|error| classify(error) == class)
}

/// The server's own words, without the wrapping that kube's display adds.
#[must_use]
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("the server answered {} {}", status.code, status.reason),
        other => other.to_string(),
    }
}

fn classify_status(status: &Status) -> Class {
    let terminating =
        || status.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"));
    match (status.code, status.reason.as_str()) {
        (_, "AlreadyExists") => Class::AlreadyExists,
        (_, "Conflict") | (409, _) => Class::Conflict,
        (_, "NotFound") | (404, _) => Class::NotFound,
        (_, "Expired" | "Gone") | (410, _) => Class::Expired,
        (403, _) if terminating() => Class::NamespaceTerminating,
        (408 | 429 | 500..=599, _) => Class::Retryable,
        _ => Class::Final,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(code: u16, reason: &str) -> Class {
        let status = Status { code, reason: reason.to_owned(), ..Status::default() };
        classify(&kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn tells_a_conflict_from_a_name_that_is_taken() {
        assert_eq!(class_of(409, "AlreadyExists"), Class::AlreadyExists);
        assert_eq!(class_of(409, "Conflict"), Class::Conflict);
    }

    #[test]
    fn a_busy_server_is_worth_another_try_and_a_refusal_is_not() {
        for code in [429, 500, 503, 504] {
            assert_eq!(class_of(code, ""), Class::Retryable, "{code}");
        }
        for code in [400, 401, 403, 405, 422] {
            assert_eq!(class_of(code, ""), Class::Final, "{code}");
        }
        assert_eq!(class_of(410, "Expired"), Class::Expired);
    }
}
