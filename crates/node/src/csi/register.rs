//! Which drivers there are: each is found by its socket, asked what it is and can do, and told to the API.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node as NodeObject;
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSIDriverSpec, CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use stead_client::{Class, classify, create_if_absent, message};
use stead_csi::messages::{
    ControllerGetCapabilitiesRequest, GetPluginCapabilitiesRequest, GetPluginInfoRequest, NodeGetCapabilitiesRequest,
    NodeGetInfoRequest,
};
use stead_csi::registration::{CSI_PLUGIN, InfoRequest, RegistrationStatus};
use stead_csi::{ControllerAbilities, Endpoint, NodeAbilities, Services, Socket, Sockets};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Driver;
use crate::Node;

/// Annotation of a CSINode: the drivers whose controllers are called from that node.
const CONTROLLERS: &str = "stead.dev/csi-controllers";
/// How long a driver may take to say what it is.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Tries to write an object that others write too.
const WRITE_TRIES: usize = 10;

/// How a driver makes itself known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Its registrar speaks for it, and side-cars of its own do the controller's part.
    Registrar,
    /// Its socket lies in our directory: all else is done here.
    Alone,
}

impl Node {
    /// Follows the sockets of drivers for ever.
    pub(crate) async fn follow_drivers(self: Arc<Self>) {
        let first = self.write_csi_node(&[], None).await;
        first.unwrap_or_else(|cause| tracing::debug!(cause, "cannot write the CSINode object yet"));
        let (registrars, alone) = (self.config.data_dir.join("plugins_registry"), self.config.data_dir.join("csi"));
        futures::join!(
            self.follow_sockets(&registrars, Way::Registrar),
            self.follow_sockets(&alone, Way::Alone),
            self.clone().sweep_stages(),
        );
    }

    async fn follow_sockets(self: &Arc<Self>, dir: &std::path::Path, way: Way) {
        let sockets = match Sockets::watch(dir) {
            Ok(sockets) => sockets,
            Err(error) => return tracing::error!(dir = %dir.display(), %error, "cannot watch for storage drivers"),
        };
        let mut known: BTreeMap<Socket, DropGuard> = BTreeMap::new();
        loop {
            let there = sockets.list().unwrap_or_default();
            let gone: Vec<Socket> = known.keys().filter(|socket| !there.contains(socket)).cloned().collect();
            for socket in gone {
                known.remove(&socket);
                self.lose_driver(&socket).await;
            }
            for socket in there {
                known.entry(socket.clone()).or_insert_with(|| {
                    let here = CancellationToken::new();
                    let (node, token) = (self.clone(), here.clone());
                    tokio::spawn(async move { token.run_until_cancelled(node.take_driver(socket, way)).await });
                    here.drop_guard()
                });
            }
            sockets.changed().await;
        }
    }

    /// Asks and tells until it has worked, or nobody wants it any more.
    async fn take_driver(self: Arc<Self>, socket: Socket, way: Way) {
        let mut pause = PAUSE_FIRST;
        loop {
            let path = socket.path.display();
            match self.try_driver(&socket, way).await {
                Ok(name) => return tracing::info!(driver = name, socket = %path, "storage driver"),
                Err(cause) => tracing::info!(socket = %path, cause, "storage driver not taken yet"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn try_driver(&self, socket: &Socket, way: Way) -> Result<String, String> {
        let own = Endpoint::new(&socket.path);
        let text = |status: stead_csi::Status| status.to_string();
        let name = match way {
            Way::Registrar => {
                let told = self.asked_registrar(&own).await?;
                let taken = self.meet(socket, told.1, None).await;
                let taken = match taken {
                    Ok(driver) => self.make_known(&told.0, driver).await,
                    Err(cause) => Err(cause),
                };
                let error = taken.as_ref().err().cloned().unwrap_or_default();
                let status = RegistrationStatus { plugin_registered: taken.is_ok(), error };
                let answered = own.call(&status, ANSWER_MAX).await;
                taken?;
                answered.map_err(text)?;
                told.0
            }
            Way::Alone => {
                let name = own.call(&GetPluginInfoRequest {}, ANSWER_MAX).await.map_err(text)?.name;
                let services = own.call(&GetPluginCapabilitiesRequest {}, ANSWER_MAX).await.map_err(text)?;
                let controller = if Services::from(&services).controller {
                    let able = own.call(&ControllerGetCapabilitiesRequest {}, ANSWER_MAX).await.map_err(text)?;
                    Some(ControllerAbilities::from(&able))
                } else {
                    None
                };
                let driver = self.meet(socket, own, controller).await?;
                self.make_driver_object(&name, controller).await?;
                self.make_known(&name, driver).await?;
                name
            }
        };
        Ok(name)
    }

    /// The driver's name and its own socket, as its registrar says.
    async fn asked_registrar(&self, registrar: &Endpoint) -> Result<(String, Endpoint), String> {
        let info = registrar.call(&InfoRequest {}, ANSWER_MAX).await.map_err(|status| status.to_string())?;
        let wrong = if info.r#type != CSI_PLUGIN {
            Some(format!("plugins of type {:?} are not offered by this node", info.r#type))
        } else if !info.supported_versions.iter().any(|version| version.trim_start_matches('v').starts_with("1.")) {
            Some(format!("no version of {:?} is offered by this node: version 1 is", info.supported_versions))
        } else {
            None
        };
        if let Some(error) = wrong {
            let status = RegistrationStatus { plugin_registered: false, error: error.clone() };
            let _ = registrar.call(&status, ANSWER_MAX).await;
            return Err(error);
        }
        let endpoint = if info.endpoint.is_empty() { registrar.clone() } else { Endpoint::new(&info.endpoint) };
        Ok((info.name, endpoint))
    }

    async fn meet(
        &self,
        socket: &Socket,
        endpoint: Endpoint,
        controller: Option<ControllerAbilities>,
    ) -> Result<Driver, String> {
        let text = |status: stead_csi::Status| status.to_string();
        let info = endpoint.call(&NodeGetInfoRequest {}, ANSWER_MAX).await.map_err(text)?;
        let able = endpoint.call(&NodeGetCapabilitiesRequest {}, ANSWER_MAX).await.map_err(text)?;
        if info.node_id.is_empty() {
            return Err("the driver has no name for this node".to_owned());
        }
        Ok(Driver {
            socket: socket.clone(),
            endpoint,
            node_id: info.node_id,
            abilities: NodeAbilities::from(&able),
            topology: info.accessible_topology.map(|topology| topology.segments).unwrap_or_default(),
            volumes_max: info.max_volumes_per_node,
            controller: controller.is_some(),
        })
    }

    /// The object that says how the driver wants to be called, unless somebody has made it.
    async fn make_driver_object(&self, name: &str, controller: Option<ControllerAbilities>) -> Result<(), String> {
        let object = CSIDriver {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            spec: CSIDriverSpec {
                attach_required: Some(controller.is_some_and(|able| able.attaches)),
                ..CSIDriverSpec::default()
            },
        };
        let api: Api<CSIDriver> = Api::all(self.storage.client().clone());
        let made = create_if_absent(&api, &object).await;
        made.map(drop).map_err(|error| format!("cannot create CSIDriver {name:?}: {}", message(&error)))
    }

    async fn make_known(&self, name: &str, driver: Driver) -> Result<(), String> {
        let labels = driver.topology.clone();
        self.drivers.known.send_modify(|known| drop(known.insert(name.to_owned(), driver)));
        if !labels.is_empty() {
            let api: Api<NodeObject> = Api::all(self.client.clone());
            let patch = json!({"metadata": {"labels": labels}});
            let patched = api.patch(&self.config.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            patched.map_err(|error| format!("cannot label the node: {}", message(&error)))?;
        }
        self.write_csi_node(&[name.to_owned()], None).await
    }

    async fn lose_driver(&self, socket: &Socket) {
        let mut lost = None;
        self.drivers.known.send_modify(|known| {
            lost = known.iter().find(|(_, driver)| driver.socket == *socket).map(|(name, _)| name.clone());
            if let Some(name) = &lost {
                known.remove(name);
            }
        });
        let Some(name) = lost else { return };
        tracing::info!(driver = name, "storage driver gone");
        if let Err(cause) = self.write_csi_node(&[], Some(&name)).await {
            tracing::warn!(driver = name, cause, "cannot take a driver out of the CSINode object");
        }
    }

    /// Brings the entries of the drivers `changed` up to date in this node's CSINode object, and takes `gone` out.
    async fn write_csi_node(&self, changed: &[String], gone: Option<&str>) -> Result<(), String> {
        let api: Api<CSINode> = Api::all(self.client.clone());
        let name = &self.config.name;
        let text = |error: kube::Error| format!("cannot write CSINode {name:?}: {}", message(&error));
        for _ in 0..WRITE_TRIES {
            let found = api.get_opt(name).await.map_err(text)?;
            let is_new = found.is_none();
            let before = match found {
                Some(object) => object,
                None => CSINode {
                    metadata: self.owned_by_node().await.map_err(text)?,
                    spec: CSINodeSpec::default(),
                    status: None,
                },
            };
            let after = self.with_drivers(before.clone(), changed, gone);
            let written = if is_new {
                api.create(&PostParams::default(), &after).await
            } else if after == before {
                return Ok(());
            } else {
                api.replace(name, &PostParams::default(), &after).await
            };
            match written {
                Ok(_) => return Ok(()),
                Err(error) if matches!(classify(&error), Class::Conflict | Class::AlreadyExists) => {}
                Err(error) => return Err(text(error)),
            }
        }
        Err(format!("CSINode {name:?} is changed by others all the time"))
    }

    fn with_drivers(&self, mut object: CSINode, changed: &[String], gone: Option<&str>) -> CSINode {
        let known = self.drivers.known.borrow();
        for name in changed {
            let Some(driver) = known.get(name) else { continue };
            let keys: BTreeSet<String> = driver.topology.keys().cloned().collect();
            let count = i32::try_from(driver.volumes_max).ok().filter(|count| *count > 0);
            let entry = CSINodeDriver {
                name: name.clone(),
                node_id: driver.node_id.clone(),
                topology_keys: (!keys.is_empty()).then(|| keys.into_iter().collect()),
                allocatable: count.map(|count| VolumeNodeResources { count: Some(count) }),
            };
            object.spec.drivers.retain(|one| one.name != *name);
            object.spec.drivers.push(entry);
        }
        object.spec.drivers.retain(|one| Some(one.name.as_str()) != gone || known.contains_key(&one.name));
        let controllers: Vec<&str> =
            known.iter().filter(|(_, driver)| driver.controller).map(|(name, _)| name.as_str()).collect();
        let annotations = object.metadata.annotations.get_or_insert_default();
        if controllers.is_empty() {
            annotations.remove(CONTROLLERS);
        } else {
            annotations.insert(CONTROLLERS.to_owned(), controllers.join(","));
        }
        if annotations.is_empty() {
            object.metadata.annotations = None;
        }
        object
    }
}
