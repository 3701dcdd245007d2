//! Gives every namespace its default service account. The decision is [`stead_workloads::serviceaccount`].

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Api;
use stead_client::create_if_absent;
use stead_informer::{Cache, Key, Next, Queue};
use stead_workloads::serviceaccount::{DEFAULT, plan};

use crate::{Context, Controller, Error, sources};

/// The controller; its keys are namespaces.
#[derive(Clone, Debug)]
pub struct ServiceAccounts {
    cx: Context,
    namespaces: Cache<Namespace>,
    accounts: Cache<ServiceAccount>,
}

impl Controller for ServiceAccounts {
    const NAME: &'static str = "service-account-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (namespaces, accounts) = (cx.caches.of::<Namespace>(), cx.caches.of::<ServiceAccount>());
        sources::wake_self(&namespaces, queue);
        sources::wake(&accounts, queue, |change| {
            let gone = change.new.is_none() && &*change.key.name == DEFAULT;
            gone.then(|| Key::new("", &change.key.namespace)).into_iter().collect()
        });
        Self { cx, namespaces, accounts }
    }

    async fn synced(&self) {
        tokio::join!(self.namespaces.synced(), self.accounts.synced());
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(namespace) = self.namespaces.by_key(key) else { return Ok(Next::Done) };
        let there = self.accounts.get(&key.name, DEFAULT).is_some();
        if let Some(account) = plan(&namespace, there) {
            let api: Api<ServiceAccount> = Api::namespaced(self.cx.client.clone(), &key.name);
            let what = format!("create ServiceAccount {DEFAULT:?} in namespace {:?}", key.name);
            create_if_absent(&api, &account).await.map_err(Error::doing(what))?;
        }
        Ok(Next::Done)
    }
}
