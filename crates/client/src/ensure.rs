//! Idempotent writes: create when absent, delete when present.

use std::fmt::Debug;

use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Class, classify};

/// What [`create_if_absent`] found.
#[derive(Clone, Debug, PartialEq)]
pub enum Ensured<K> {
    /// It was not there and is now; as the server stored it.
    Created(K),
    /// Something of that name is there, whoever made it.
    Existed,
}

/// Creates `object` unless one of its name exists.
///
/// # Errors
/// Every API error but `AlreadyExists`.
pub async fn create_if_absent<K>(api: &Api<K>, object: &K) -> Result<Ensured<K>, kube::Error>
where
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    match api.create(&PostParams::default(), object).await {
        Ok(created) => Ok(Ensured::Created(created)),
        Err(error) if classify(&error) == Class::AlreadyExists => Ok(Ensured::Existed),
        Err(error) => Err(error),
    }
}

/// Deletes the object of that name; being gone already is success. Returns whether there was one.
///
/// # Errors
/// Every API error but `NotFound`.
pub async fn delete_if_present<K>(api: &Api<K>, name: &str, how: &DeleteParams) -> Result<bool, kube::Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    match api.delete(name, how).await {
        Ok(_) => Ok(true),
        Err(error) if classify(&error) == Class::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
