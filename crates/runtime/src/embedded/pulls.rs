//! Pulls, shared by those who ask for the same image.

use std::sync::Arc;

use super::Inner;
use crate::engine::{Image, PullError, RegistryAuth};
use crate::image::reference::Reference;

impl Inner {
    pub(super) async fn pull(
        self: &Arc<Self>,
        reference: &str,
        _auth: Option<RegistryAuth>,
    ) -> Result<Image, PullError> {
        let reference = Reference::parse(reference).map_err(PullError::InvalidName)?;
        match self.images.find(&reference.to_string()) {
            Some(image) => Ok(image.public()),
            None => Err(PullError::Failed(format!("failed to pull image {reference}: no registry is configured"))),
        }
    }
}
