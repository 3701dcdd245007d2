//! Stories told as tables: what happens | the world after everything settled | events of the claim named first.

use serde_json::json;

use super::claim::{Act, User};
use super::world::{Life, World};
use super::{SELECTED_NODE, annotation};
use crate::provision::{FORM, LOCAL, SHARED};

fn world() -> World {
    let mut world = World { nodes: vec!["peer".to_owned()], local: true, ..World::default() };
    let class = |name: &str, provisioner: &str, mode: &str| json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode, "reclaimPolicy": "Delete"});
    world.class(class("standard", LOCAL, "WaitForFirstConsumer"));
    world.class(class("now", LOCAL, "Immediate"));
    let with = |mut class: serde_json::Value, parameters: serde_json::Value| {
        class["parameters"] = parameters;
        class
    };
    world.class(with(class("sized", LOCAL, "Immediate"), json!({"type": "image"})));
    world.class(with(class("odd", LOCAL, "Immediate"), json!({"size": "big"})));
    world.class(with(class("nfs-client", SHARED, "Immediate"), json!({"directory": "/srv/export"})));
    world.class(class("nowhere", SHARED, "Immediate"));
    world.class(class("far", "example.com/x", "Immediate"));
    world.class(class("hand", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"));
    world
}

/// A pod that mounts a claim, on a node or on none.
fn user(node: Option<&str>) -> User {
    let on_known_node = node == Some("peer");
    User { name: "p".to_owned(), node: node.map(str::to_owned), on_known_node }
}

/// The one place that knows the types.
#[track_caller]
fn check(mut world: World, table: &str) {
    let (mut actual, mut expected) = (String::new(), String::new());
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for event in cells[0].split(", ") {
            happen(&mut world, event);
        }
        let told: Vec<String> = world.claim_plan("a").events.iter().map(|e| e.reason.to_owned()).collect();
        world.settle();
        world.check();
        actual += &format!("{:<44}| {:<66}| {}\n", cells[0], world.draw(), told.join(","));
        expected += &format!("{:<44}| {:<66}| {}\n", cells[0], cells[1..3].join(" | "), cells[3]);
    }
    assert!(actual == expected, "\n--- expected ---\n{expected}\n--- actual ---\n{actual}");
}

fn happen(world: &mut World, event: &str) {
    let words: Vec<&str> = event.split_whitespace().collect();
    match words.as_slice() {
        ["claim", own, size, class] => world.claim(own, size, class),
        ["volume", own, size, class] => world.volume(own, size, class),
        ["choose", own, node] => world.annotate_claim(own, SELECTED_NODE, node),
        ["default", class] => world.default_class = Some((*class).to_owned()),
        ["delete", own] => world.delete_claim(own),
        ["delete-volume", own] => world.delete_volume(own),
        ["pod", of] => drop(world.users.insert((*of).to_owned(), vec![user(None)])),
        ["lost", of] => drop(world.users.insert((*of).to_owned(), vec![user(Some("gone"))])),
        ["placed", of] => drop(world.users.insert((*of).to_owned(), vec![user(Some("peer"))])),
        ["pod-gone", of] => drop(world.users.remove(*of)),
        ["no-volume", own] => drop(world.volumes.remove(*own)),
        ["name", own, volume] => {
            let claim = world.claims.get_mut(*own).expect("a claim");
            claim.spec.get_or_insert_default().volume_name = Some((*volume).to_owned());
        }
        ["reserve", volume, own] => {
            let reference = json!({"name": own, "namespace": "ns"});
            let volume = world.volumes.get_mut(*volume).expect("a volume");
            volume.spec.get_or_insert_default().claim_ref = serde_json::from_value(reference).ok();
        }
        ["no-node"] => world.nodes.clear(),
        ["tick"] => {}
        _ => panic!("unknown event {event:?}"),
    }
}

#[test]
fn by_hand() {
    check(
        world(),
        r#"
        claim a 1Gi ""                     | a:Pending                 |                                      | FailedBinding
        volume big 5Gi "", volume fit 1Gi "" | a:Bound>fit             | big:Available fit:Bound>a            | FailedBinding
        claim b 2Gi ""                     | a:Bound>fit b:Bound>big   | big:Bound>b fit:Bound>a              |
        claim c 1Gi ""                     | a:Bound>fit b:Bound>big c:Pending | big:Bound>b fit:Bound>a      |
        delete a                           | b:Bound>big c:Pending     | big:Bound>b fit:Released>a           |
        no-volume big                      | b:Lost>big c:Pending      | fit:Released>a                       |
        delete-volume fit                  | b:Lost>big c:Pending      |                                      |
    "#,
    );
}

#[test]
fn chosen_by_the_user() {
    check(
        world(),
        r#"
        volume small 1Gi "", claim a 2Gi "", name a small | a:Pending>small | small:Available                  | VolumeMismatch
        claim b 1Gi "", name b small       | a:Pending>small b:Bound>small | small:Bound>b                   | VolumeMismatch
        tick                               | a:Pending>small b:Bound>small | small:Bound>b                   | FailedBinding
        volume kept 1Gi "", reserve kept c | a:Pending>small b:Bound>small | kept:Available>c small:Bound>b  | FailedBinding
        claim d 1Gi ""                     | a:Pending>small b:Bound>small d:Pending | kept:Available>c small:Bound>b | FailedBinding
        claim c 1Gi ""                     | a:Pending>small b:Bound>small c:Bound>kept d:Pending | kept:Bound>c small:Bound>b | FailedBinding
    "#,
    );
}

#[test]
fn by_class() {
    check(
        world(),
        r#"
        claim a 1Gi none                   | a:Pending                 |                                      | ProvisioningFailed
        claim b 1Gi now                    | a:Pending b:Bound>pvc-c2  | pvc-c2:Bound>b                       | ProvisioningFailed
        delete b                           | a:Pending                 | pvc-c2:Released>b                    | ProvisioningFailed
    "#,
    );
    check(
        world(),
        r#"
        claim a 1Gi standard               | a:Pending                 |                                      | WaitForFirstConsumer
        pod a                              | a:Pending                 |                                      | WaitForPodScheduled
        choose a peer                      | a:Bound>pvc-c1            | pvc-c1:Bound>a                       | ProvisioningSucceeded
        placed a, delete a                 | a:Bound>pvc-c1            | pvc-c1:Bound>a                       |
        pod-gone a                         |                           | pvc-c1:Released>a                    |
    "#,
    );
    // A pod that came past the scheduler, and one on a node that is gone.
    check(
        world(),
        r#"
        claim a 1Gi standard, lost a       | a:Pending                 |                                      | WaitForFirstConsumer
        placed a                           | a:Bound>pvc-c1            | pvc-c1:Bound>a                       |
    "#,
    );
    check(
        world(),
        r#"
        claim a 1Gi far                    | a:Pending                 |                                      | ExternalProvisioning
        claim b 1Gi hand, choose b peer    | a:Pending b:Pending       |                                      | ExternalProvisioning
        volume v 3Gi hand                  | a:Pending b:Bound>v       | v:Bound>b                            | ExternalProvisioning
    "#,
    );
    check(
        world(),
        r#"
        claim a 1Gi -                      | a:Pending                 |                                      | FailedBinding
        default now                        | a:Bound>pvc-c1            | pvc-c1:Bound>a                       |
    "#,
    );
    check(
        world(),
        r#"
        no-node, claim a 1Gi now           | a:Pending                 |                                      | ProvisioningFailed
    "#,
    );
}

#[test]
fn texts() {
    let mut world = world();
    let mut told = |size: &str, class: &str| {
        world.claim("a", size, class);
        let events = world.claim_plan("a").events;
        events.iter().map(|e| (e.warning, e.message.clone())).next().expect("an event")
    };
    assert_eq!(
        told("1Gi", "\"\""),
        (false, "no persistent volumes available for this claim and no storage class is set".to_owned())
    );
    assert_eq!(told("1Gi", "odd"), (true, "invalid option \"size\" for provisioner stead.dev/local".to_owned()));
    assert_eq!(
        told("1Gi", "nowhere"),
        (
            true,
            "provisioner stead.dev/shared needs the parameter \"directory\", the path that all nodes share".to_owned()
        )
    );
    assert_eq!(told("1Gi", "x"), (true, "storageclass.storage.k8s.io \"x\" not found".to_owned()));
    assert_eq!(told("1Gi", "standard"), (false, "waiting for first consumer to be created before binding".to_owned()));
}

#[test]
fn a_local_volume() {
    let mut world = world();
    world.claim("www-web-0", "1Gi", "standard");
    world.annotate_claim("www-web-0", SELECTED_NODE, "peer");
    let plan = world.claim_plan("www-web-0");
    let [Act::Provision { volume, .. }] = plan.acts.as_slice() else { panic!("{plan:?}") };
    let volume = serde_json::to_value(volume).expect("JSON");
    assert_eq!(volume["metadata"]["name"], "pvc-c1");
    assert_eq!(
        volume["spec"]["hostPath"],
        json!({"path": "/data/storage/pvc-c1_ns_www-web-0", "type": "DirectoryOrCreate"})
    );
    assert_eq!(volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"], "stead.dev/local");
    let term = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
    assert_eq!(term, &json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["peer.lan"]}));
    assert_eq!(
        (&volume["spec"]["persistentVolumeReclaimPolicy"], &volume["spec"]["storageClassName"]),
        (&json!("Delete"), &json!("standard"))
    );
    world.settle();
    let claim = &world.claims["www-web-0"];
    assert_eq!(annotation(&claim.metadata, "volume.kubernetes.io/storage-provisioner"), Some("stead.dev/local"));
    let status = serde_json::to_value(&claim.status).expect("JSON");
    assert_eq!(status, json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}));
}

#[test]
fn a_shared_volume_is_tied_to_no_node() {
    let mut world = world();
    world.nodes.clear();
    world.claim("a", "1Gi", "nfs-client");
    world.settle();
    let volume = serde_json::to_value(&world.volumes["pvc-c1"]).expect("JSON");
    assert_eq!(volume["spec"]["hostPath"]["path"], "/srv/export/ns-a-pvc-c1");
    assert_eq!(volume["spec"]["nodeAffinity"], json!(null));
    assert_eq!(volume["metadata"]["annotations"], json!({"pv.kubernetes.io/provisioned-by": "stead.dev/shared"}));
}

#[test]
fn an_image_grows_on_its_node() {
    let mut world = world();
    world.claim("a", "1Gi", "sized");
    world.settle();
    assert_eq!(annotation(&world.volumes["pvc-c1"].metadata, FORM), Some("image"));
    let spec = world.claims.get_mut("a").expect("a claim").spec.get_or_insert_default();
    let requests = spec.resources.get_or_insert_default().requests.get_or_insert_default();
    requests.insert("storage".to_owned(), k8s_openapi::apimachinery::pkg::api::resource::Quantity("3Gi".to_owned()));
    world.settle();
    let volume = serde_json::to_value(&world.volumes["pvc-c1"].spec).expect("JSON");
    assert_eq!(volume["capacity"]["storage"], "3Gi");
    let status = serde_json::to_value(&world.claims["a"].status).expect("JSON");
    assert_eq!(status["capacity"]["storage"], "1Gi", "the node has not grown it yet");
    assert_eq!(status["conditions"][0]["type"], "FileSystemResizePending");
}

#[test]
fn a_node_that_is_gone_is_chosen_again() {
    let mut world = world();
    world.claim("a", "1Gi", "standard");
    world.annotate_claim("a", SELECTED_NODE, "lost");
    world.sync_claim("a", &mut Life(None));
    assert_eq!(annotation(&world.claims["a"].metadata, SELECTED_NODE), None);
}

#[test]
fn a_claim_grows_with_its_volume() {
    let mut world = world();
    world.claim("a", "1Gi", "now");
    world.settle();
    let spec = world.claims.get_mut("a").expect("a claim").spec.get_or_insert_default();
    let requests = spec.resources.get_or_insert_default().requests.get_or_insert_default();
    requests.insert("storage".to_owned(), k8s_openapi::apimachinery::pkg::api::resource::Quantity("3Gi".to_owned()));
    world.settle();
    let size = |value: serde_json::Value| value["capacity"]["storage"].clone();
    let claim = size(serde_json::to_value(&world.claims["a"].status).expect("JSON"));
    let volume = size(serde_json::to_value(&world.volumes["pvc-c1"].spec).expect("JSON"));
    assert_eq!((claim, volume), (json!("3Gi"), json!("3Gi")));
}

#[test]
fn a_volume_is_given_up_only_on_the_servers_word() {
    use super::volume;
    let mut world = world();
    world.claim("a", "1Gi", "now");
    world.settle();
    let volume = std::sync::Arc::new(world.volumes["pvc-c1"].clone());
    // The cache may still have an older claim of that name, or none.
    world.claim("a", "1Gi", "now");
    let older = Some(std::sync::Arc::new(world.claims["a"].clone()));
    for claim in [None, older] {
        let snapshot = volume::Snapshot { volume: volume.clone(), claim };
        assert_eq!(volume::plan(&snapshot, false).acts, [volume::Act::AskClaim]);
        let asked = volume::plan(&snapshot, true);
        assert!(matches!(asked.acts.as_slice(), [volume::Act::Status(v)] if super::volume_phase(v) == "Released"));
    }
}

#[test]
fn a_claim_is_let_go_only_on_the_servers_word() {
    use super::claim;
    let mut world = world();
    world.claim("a", "1Gi", "now");
    world.settle();
    let mut deleted = world.claims["a"].clone();
    deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-20T14:00:00Z")).expect("a time");
    let mut snapshot = claim::Snapshot { claim: std::sync::Arc::new(deleted), ..claim::Snapshot::default() };
    assert_eq!(claim::plan(&snapshot, false).acts, [Act::AskPods]);
    let let_go = claim::plan(&snapshot, true).acts;
    let gone =
        |act: &Act| matches!(act, Act::Update(claim) if !super::has_finalizer(&claim.metadata, super::CLAIM_FINALIZER));
    assert!(matches!(let_go.as_slice(), [act] if gone(act)), "{let_go:?}");
    // The server knows of a pod that the cache had not seen.
    snapshot.users.push(user(Some("peer")));
    let kept = claim::plan(&snapshot, true).acts;
    assert!(!kept.iter().any(gone), "{kept:?}");
}
