//! Publishes the server's certificate in every namespace. The decision is [`stead_workloads::rootca`].

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::PostParams;
use stead_client::create_if_absent;
use stead_informer::{Cache, Key, Next, Queue};
use stead_workloads::rootca::{NAME, Plan, plan};

use crate::{Context, Controller, Error, sources};

/// The controller; its keys are namespaces.
#[derive(Clone, Debug)]
pub struct RootCertificates {
    cx: Context,
    namespaces: Cache<Namespace>,
    maps: Cache<ConfigMap>,
}

impl Controller for RootCertificates {
    const NAME: &'static str = "root-ca-cert-publisher";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (namespaces, maps) = (cx.caches.of::<Namespace>(), cx.caches.of::<ConfigMap>());
        sources::wake_self(&namespaces, queue);
        sources::wake(&maps, queue, |change| {
            let ours = &*change.key.name == NAME;
            ours.then(|| Key::new("", &change.key.namespace)).into_iter().collect()
        });
        Self { cx, namespaces, maps }
    }

    async fn synced(&self) {
        tokio::join!(self.namespaces.synced(), self.maps.synced());
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(pem) = &self.cx.config.root_ca else { return Ok(Next::Done) };
        let Some(namespace) = self.namespaces.by_key(key) else { return Ok(Next::Done) };
        let api: Api<ConfigMap> = Api::namespaced(self.cx.client.clone(), &key.name);
        let what = |verb: &str| format!("{verb} ConfigMap {NAME:?} in namespace {:?}", key.name);
        match plan(&namespace, self.maps.get(&key.name, NAME).as_deref(), pem) {
            Plan::Nothing => {}
            Plan::Create(map) => {
                create_if_absent(&api, &map).await.map_err(Error::doing(what("create")))?;
            }
            Plan::Replace(map) => {
                api.replace(NAME, &PostParams::default(), &map).await.map_err(Error::doing(what("replace")))?;
            }
        }
        Ok(Next::Done)
    }
}
