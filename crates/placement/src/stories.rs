//! What a placement decides, told as tables (see `story`). `~` stands for `no new claims to deallocate, preemption:`.

use expect_test::expect;

use crate::story::check;

#[test]
fn a_pod_goes_where_there_is_room_and_every_short_resource_is_told() {
    check(&expect![[r#"
        node n1 cpu=2 mem=1Gi
        node n2 cpu=4 mem=8Gi gpu=1
        put a cpu=3            | n2
        put b cpu=2            | n1
        place c cpu=2          | 0/2 nodes are available: 2 Insufficient cpu. ~ 0/2 nodes are available: 2 No preemption victims found for incoming pod.
        place d cpu=2 mem=9Gi  | 0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient memory. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place e cpu=9 mem=20Gi | 0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient memory. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place f gpu=1          | n2
        place g gpu=2          | 0/2 nodes are available: 2 Insufficient example.com/gpu. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place h                | n2
    "#]]);
}

#[test]
fn init_containers_sidecars_and_overhead_count_at_the_largest_moment() {
    check(&expect![[r#"
        node n1 cpu=4
        place init-is-larger cpu=1 init.cpu=4                    | n1
        place init-is-too-large cpu=1 init.cpu=5                 | 0/1 nodes are available: 1 Insufficient cpu. ~ 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
        place sidecar-beside cpu=2 sidecar.cpu=2                 | n1
        place sidecar-too-much cpu=3 sidecar.cpu=2               | 0/1 nodes are available: 1 Insufficient cpu. ~ 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
        place init-beside-sidecar cpu=1 sidecar.cpu=2 init.cpu=3 | 0/1 nodes are available: 1 Insufficient cpu. ~ 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
        place overhead cpu=4 overhead.cpu=1                      | 0/1 nodes are available: 1 Insufficient cpu. ~ 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
    "#]]);
}

#[test]
fn a_node_takes_only_so_many_pods() {
    check(&expect![[r#"
        node n1 pods=2
        put a         | n1
        put b         | n1
        place c       | 0/1 nodes are available: 1 Too many pods. ~ 0/1 nodes are available: 1 No preemption victims found for incoming pod.
        place d cpu=9 | 0/1 nodes are available: 1 Insufficient cpu, 1 Too many pods. ~ 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
    "#]]);
}

#[test]
fn cordons_taints_and_names_keep_pods_away() {
    check(&expect![[r#"
        node n1 cordoned
        node n2 taint=gpu=yes:NoSchedule
        node n3 taint=old=:NoExecute
        place a                                                       | 0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) had untolerated taint(s). ~ 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
        place b tolerate=gpu=yes:NoSchedule                           | n2
        place c tolerate=gpu=no:NoSchedule                            | 0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) had untolerated taint(s). ~ 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
        place d tolerate=old=:                                        | n3
        place e tolerate=node.kubernetes.io/unschedulable=:NoSchedule | n1
        place f at=n9                                                 | 0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match the requested node name. ~ 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
    "#]]);
}

#[test]
fn a_taint_of_preference_is_avoided_where_it_can_be() {
    check(&expect![[r#"
        node n1 taint=busy=:PreferNoSchedule
        node n2 cpu=3
        put a cpu=1                                   | n2
        put b cpu=2                                   | n2
        put c cpu=1                                   | n1
        place d cpu=1 tolerate=busy=:PreferNoSchedule | n1
    "#]]);
}

#[test]
fn node_selectors_and_affinity() {
    check(&expect![[r#"
        node n1 zone=a disk=ssd
        node n2 zone=b
        place a select=disk=ssd           | n1
        place b select=disk=hdd           | 0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place c want=zone=b               | n2
        place d want=zone=c want=zone=b   | n2
        place e want=zone=c               | 0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place f wish=zone=b               | n2
        place g want=zone=a,b wish=zone=a | n1
        place h named=n2                  | n2
        place i named=n3                  | 0/2 nodes are available: 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place j named=n1 cpu=9            | 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity]. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
    "#]]);
}

#[test]
fn host_ports_are_taken_once_per_address() {
    check(&expect![[r#"
        node n1
        put a port=80             | n1
        place b port=80           | 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. ~ 0/1 nodes are available: 1 No preemption victims found for incoming pod.
        place c port=81           | n1
        place d port=127.0.0.1:80 | 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. ~ 0/1 nodes are available: 1 No preemption victims found for incoming pod.
        put e port=127.0.0.1:90   | n1
        place f port=127.0.0.2:90 | n1
        place g port=90           | 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. ~ 0/1 nodes are available: 1 No preemption victims found for incoming pod.
    "#]]);
}

#[test]
fn anti_affinity_keeps_two_pods_of_a_set_off_one_node() {
    check(&expect![[r#"
        node n1
        node n2
        put web-0 app=web away=app=web@host           | n1
        put web-1 app=web away=app=web@host           | n2
        place web-2 app=web away=app=web@host         | 0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules. ~ 0/2 nodes are available: 2 No preemption victims found for incoming pod.
        place other away=app=web@host                 | 0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules. ~ 0/2 nodes are available: 2 No preemption victims found for incoming pod.
        place web-3 app=web                           | 0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules. ~ 0/2 nodes are available: 2 No preemption victims found for incoming pod.
        place other-ns app=web ns=x away=app=web@host | n1
    "#]]);
}

#[test]
fn namespaces_of_a_term() {
    check(&expect![[r#"
        node n1
        namespace x team=a
        pod x1 on n1 ns=x app=web
        place own away=app=web@host                 | n1
        place all away=app=web@host@all             | 0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. ~ 0/1 nodes are available: 1 No preemption victims found for incoming pod.
        place selected away=app=web@host@team=a     | 0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. ~ 0/1 nodes are available: 1 No preemption victims found for incoming pod.
        place not-selected away=app=web@host@team=b | n1
    "#]]);
}

#[test]
fn affinity_goes_to_the_others_and_the_first_may_begin_anywhere() {
    check(&expect![[r#"
        node n1 zone=a
        node n2 zone=b
        node n3
        place first app=db near=app=db@zone | n1
        place lonely near=app=db@zone       | 0/3 nodes are available: 3 node(s) didn't match pod affinity rules. ~ 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
        pod db-0 on n2 app=db
        place db-1 app=db near=app=db@zone  | n2
        place lonely near=app=db@zone       | n2
        place beside near=app=db@host       | n2
        place wish nearish=app=db@host      | n2
        place shy awayish=app=db@zone       | n1
    "#]]);
}

#[test]
fn pods_spread_over_zones_within_the_skew() {
    check(&expect![[r#"
        node n1 zone=a
        node n2 zone=b
        node n3
        put w0 app=w spread=app=w@zone/1                                    | n1
        put w1 app=w spread=app=w@zone/1                                    | n2
        put w2 app=w spread=app=w@zone/1                                    | n1
        place w3 app=w spread=app=w@zone/1 want=host=n1                     | n1
        place w3 app=w spread=app=w@zone/1                                  | n2
        place w3 app=w spread=app=w@zone/1/3                                | 0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label), 2 node(s) didn't match pod topology spread constraints. ~ 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod.
        place w3 app=w spread=app=w@zone/2 select=kubernetes.io/hostname=n1 | n1
        place w4 app=w spread=app=w@rack/1                                  | 0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints (missing required label). ~ 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
        place w5 app=w spreadish=app=w@zone/1                               | n2
    "#]]);
}

#[test]
fn siblings_spread_over_nodes_even_if_nobody_says_so() {
    check(&expect![[r#"
        node n1 cpu=64
        node n2 cpu=4
        put a cpu=1 owner=set | n1
        put b cpu=1 owner=set | n2
        put c cpu=1 owner=set | n1
        put d cpu=1 owner=set | n2
    "#]]);
}

#[test]
fn bound_claims_keep_the_pod_at_their_volume() {
    check(&expect![[r#"
        node n1
        node n2
        class local wait
        volume v1 class=local on=n2 claim=data
        claim data class=local volume=v1
        claim lost class=local lost volume=v9
        claim gone class=local volume=v9
        claim dying class=local deleting
        place a claim=data                                  | n2
        place b claim=data select=kubernetes.io/hostname=n1 | 0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, 1 node(s) didn't match Pod's node affinity/selector. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place c claim=missing                               | 0/2 nodes are available: persistentvolumeclaim "missing" not found. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place d claim=lost                                  | 0/2 nodes are available: persistentvolumeclaim "lost" bound to non-existent persistentvolume "v9". ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place e claim=gone                                  | 0/2 nodes are available: 2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s). ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place f claim=dying                                 | 0/2 nodes are available: persistentvolumeclaim "dying" is being deleted. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place g ephemeral=tmp                               | 0/2 nodes are available: waiting for ephemeral volume controller to create the persistentvolumeclaim "g-tmp". ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
    "#]]);
}

#[test]
fn a_waiting_claim_gets_the_smallest_volume_that_fits_or_is_provisioned_there() {
    check(&expect![[r#"
        node n1
        node n2
        class local wait
        class manual wait kubernetes.io/no-provisioner
        class now now
        claim data class=local
        claim hand class=manual size=2Gi
        claim hand2 class=manual size=2Gi
        claim soon class=now
        claim odd class=nosuch
        claim chosen class=local selected=n2
        place a claim=data                | n1, provision default/data
        place b claim=hand                | 0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        volume small class=manual size=1Gi on=n1
        volume large class=manual size=9Gi on=n2
        volume mid class=manual size=3Gi on=n2
        place b claim=hand                | n2, bind default/hand to mid
        place c claim=hand claim=hand2    | n2, bind default/hand to mid, bind default/hand2 to large
        place d claim=soon                | 0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place e claim=odd                 | 0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place f claim=chosen              | n2, provision default/chosen
        place g claim=chosen want=host=n1 | 0/2 nodes are available: 1 node(s) didn't find available persistent volumes to bind, 1 node(s) didn't match Pod's node affinity/selector. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
    "#]]);
}

#[test]
fn a_claim_for_one_pod_is_for_one_pod() {
    check(&expect![[r#"
        node n1
        class local wait
        volume v1 class=local claim=data
        claim data class=local volume=v1 mode=ReadWriteOncePod
        put a claim=data   | n1
        place b claim=data | 0/1 nodes are available: 1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod. ~ 0/1 nodes are available: 1 No preemption victims found for incoming pod.
    "#]]);
}

#[test]
fn more_important_pods_push_out_as_few_as_possible() {
    check(&expect![[r#"
        node n1 cpu=4
        node n2 cpu=4
        pod a on n1 cpu=2 prio=1
        pod b on n1 cpu=2 prio=2
        pod c on n2 cpu=1 prio=1
        pod d on n2 cpu=3 prio=3
        place important cpu=2 prio=9        | 0/2 nodes are available: 2 Insufficient cpu. evict a from n1
        place large cpu=4 prio=9            | 0/2 nodes are available: 2 Insufficient cpu. evict b a from n1
        place equal cpu=2 prio=1            | 0/2 nodes are available: 2 Insufficient cpu. ~ 0/2 nodes are available: 2 No preemption victims found for incoming pod.
        place better cpu=2 prio=2           | 0/2 nodes are available: 2 Insufficient cpu. evict a from n1
        place polite cpu=2 prio=9 never     | 0/2 nodes are available: 2 Insufficient cpu. ~ not eligible due to preemptionPolicy=Never.
        place too-large cpu=5 prio=9        | 0/2 nodes are available: 2 Insufficient cpu. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        place picky cpu=2 prio=9 select=x=y | 0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. ~ 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
    "#]]);
}

#[test]
fn preemption_spares_pods_with_a_budget() {
    check(&expect![[r#"
        node n1 cpu=2
        node n2 cpu=2
        budget app=db allowed=0
        pod a on n1 cpu=2 prio=1 app=db
        pod b on n2 cpu=2 prio=2
        place important cpu=2 prio=9            | 0/2 nodes are available: 2 Insufficient cpu. evict b from n2
        place only-n1 cpu=2 prio=9 want=host=n1 | 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector. evict a from n1
    "#]]);
}

#[test]
fn preemption_does_not_begin_again_while_victims_are_leaving_and_room_is_kept() {
    check(&expect![[r#"
        node n1 cpu=2
        pod a on n1 cpu=2 prio=1 terminating
        nominate vip on n1 cpu=2 prio=9
        place vip cpu=2 prio=9 nominated=n1 | 0/1 nodes are available: 1 Insufficient cpu. ~ not eligible due to terminating pod on the nominated node.
        node n2 cpu=2
        nominate other on n2 cpu=2 prio=5
        place small cpu=1 prio=5            | 0/2 nodes are available: 2 Insufficient cpu. ~ 0/2 nodes are available: 1 Insufficient cpu, 1 No preemption victims found for incoming pod.
        place more cpu=1 prio=6             | n2
    "#]]);
}

#[test]
fn anti_affinity_can_be_solved_by_preemption() {
    check(&expect![[r#"
        node n1
        pod a on n1 app=web prio=1
        place b prio=5 away=app=web@host | 0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. evict a from n1
        place c prio=1 away=app=web@host | 0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. ~ 0/1 nodes are available: 1 No preemption victims found for incoming pod.
        place d prio=5 near=app=x@host   | 0/1 nodes are available: 1 node(s) didn't match pod affinity rules. ~ 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
    "#]]);
}

#[test]
fn images_that_are_there_weigh() {
    check(&expect![[r#"
        node n1
        node n2 image=docker.io/library/big:latest@900000000
        place a image=big   | n2
        place b image=other | n1
    "#]]);
}

#[test]
fn no_nodes_at_all() {
    check(&expect![[r#"
        place a | no nodes available to schedule pods
    "#]]);
}

#[test]
fn reasons_are_counted_and_sorted_as_texts() {
    check(&expect![[r#"
        node n1 cpu=1
        node n2 cpu=1 cordoned
        node n3 taint=a=b:NoSchedule
        node n4 taint=c=d:NoSchedule
        place a cpu=2 | 0/4 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable, 2 node(s) had untolerated taint(s). ~ 0/4 nodes are available: 4 Preemption is not helpful for scheduling.
    "#]]);
}

mod random {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use crate::{Placement, PodInfo, View, place};

    fn pod(at: usize, cpu: u8, apart: bool, group: u8) -> Arc<PodInfo> {
        let term = json!({"labelSelector": {"matchLabels": {"g": group.to_string()}}, "topologyKey": "host"});
        let terms = if apart { vec![term] } else { Vec::new() };
        let pod = json!({
            "metadata": {"name": format!("p{at}"), "uid": format!("p{at}"), "labels": {"g": group.to_string()}},
            "spec": {
                "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu.to_string()}}}],
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
            }
        });
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
    }

    fn view(sizes: &[u8]) -> View {
        let mut view = View::default();
        for (at, cpu) in sizes.iter().enumerate() {
            let node = json!({
                "metadata": {"name": format!("n{at}"), "labels": {"host": at.to_string()}},
                "status": {"allocatable": {"cpu": cpu.to_string(), "pods": "5"}}
            });
            view.set_node(Arc::new(serde_json::from_value(node).unwrap()));
        }
        view
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// However pods come: no node is overfull, pods that want to be apart are, and who is refused really fits nowhere.
        #[test]
        fn what_is_placed_fits_and_what_is_refused_does_not(
            sizes in proptest::collection::vec(1u8..9, 1..6),
            pods in proptest::collection::vec((0u8..4, any::<bool>(), 0u8..3), 1..25),
        ) {
            let mut view = view(&sizes);
            for (at, (cpu, apart, group)) in pods.iter().enumerate() {
                let pod = pod(at, *cpu, *apart, *group);
                let fits = |name: &str| {
                    let info = view.node(name).unwrap();
                    let same = |other: &PodInfo| other.pod.metadata.labels == pod.pod.metadata.labels;
                    let wants = |p: &PodInfo| !p.anti_affinity.is_empty();
                    info.requested.get("cpu") + i64::from(*cpu) * 1000 <= info.allocatable.get("cpu")
                        && info.pods.len() < 5
                        && info.pods.values().all(|o| !(same(o) && (wants(o) || *apart)))
                };
                match place(&pod, &view) {
                    Placement::On { node, .. } => {
                        prop_assert!(fits(&node), "{node}");
                        view.add_pod(&node, pod);
                    }
                    Placement::Nowhere(refused) => {
                        prop_assert_eq!(refused.nodes.len(), sizes.len());
                        let somewhere = (0..sizes.len()).any(|n| fits(&format!("n{n}")));
                        prop_assert!(!somewhere);
                    }
                }
            }
        }
    }
}
