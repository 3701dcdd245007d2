//! Pulls, shared by those who ask for the same image with the same credentials.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

use super::Inner;
use super::client::lock;
use crate::engine::{Image, PullError, RegistryAuth};
use crate::image::reference::Reference;
use crate::image::registries::Registries;

type Pull = Shared<BoxFuture<'static, Result<Image, Arc<PullError>>>>;

/// Pulls under way.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    running: Mutex<HashMap<String, Pull>>,
}

impl Inner {
    pub(super) async fn pull(
        self: &Arc<Self>,
        reference: &str,
        auth: Option<RegistryAuth>,
    ) -> Result<Image, PullError> {
        let parsed = Reference::parse(reference).map_err(|error| {
            PullError::InvalidName(format!("couldn't parse image reference {reference:?}: {error}"))
        })?;
        let credentials = auth.as_ref().map(|auth| (&auth.username, &auth.password));
        let key = format!("{parsed} {credentials:?}");
        let pull = {
            let mut running = lock(&self.pulls.running);
            running.entry(key.clone()).or_insert_with(|| self.clone().start_pull(parsed, auth)).clone()
        };
        let result = pull.clone().await;
        let mut running = lock(&self.pulls.running);
        if running.get(&key).is_some_and(|known| known.ptr_eq(&pull)) {
            running.remove(&key);
        }
        result.map_err(|error| match &*error {
            PullError::InvalidName(text) => PullError::InvalidName(text.clone()),
            PullError::NotFound(text) => PullError::NotFound(text.clone()),
            PullError::Unauthorized(text) => PullError::Unauthorized(text.clone()),
            PullError::Failed(text) => PullError::Failed(text.clone()),
        })
    }

    fn start_pull(self: Arc<Self>, reference: Reference, auth: Option<RegistryAuth>) -> Pull {
        async move {
            let registries = match &self.options.registries {
                Some(path) => Registries::read(path).map_err(PullError::Failed)?,
                None => Registries::default(),
            };
            let image = self.images.pull(&registries, &reference, auth.as_ref()).await?;
            self.settle_images();
            Ok(image.public())
        }
        .map(|result: Result<Image, PullError>| result.map_err(Arc::new))
        .boxed()
        .shared()
    }
}
