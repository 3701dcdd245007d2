//! `annotate`: as `label`, for annotations.

pub(crate) use super::label::Flags;
use super::label::{self, What};
use crate::failure::Result;
use crate::session::Session;

/// Sets and removes annotations.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    label::run(session, flags, What::Annotation).await
}
