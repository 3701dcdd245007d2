//! Pods' namespaces in the real kernel: traffic, cleanliness, taking up again.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Instant;

use common::*;
use stead_wire::kernel::open;

#[test]
fn pods_reach_each_other_and_the_host() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = network("a", 42, dir.path()).await;
        let a = attach(&network, "pod-a", "10.42.0.5").await;
        let b = attach(&network, "pod-b", "10.42.0.6").await;
        serve(&a.netns, "0.0.0.0:80", "a");
        serve(&b.netns, "10.42.0.6:80", "b");
        assert_eq!(inside(&b.netns, || call("10.42.0.5:80")).unwrap(), "a 10.42.0.6");
        assert_eq!(inside(&a.netns, || call("10.42.0.6:80")).unwrap(), "b 10.42.0.5");
        assert_eq!(inside(&a.netns, || call("127.0.0.1:80")).unwrap(), "a 127.0.0.1");
        assert_eq!(call("10.42.0.5:80").unwrap(), "a 10.42.0.1", "the host calls as the pods' gateway");
        serve_on(std::net::TcpListener::bind("10.43.0.10:53").unwrap(), "dns");
        assert_eq!(inside(&a.netns, || call("10.43.0.10:53")).unwrap(), "dns 10.42.0.5");
        assert_eq!(call("10.43.0.10:53").unwrap().split(' ').next(), Some("dns"));
        network.remove_all().await.unwrap();
    });
}

#[test]
fn attaching_again_changes_nothing_and_detaching_leaves_nothing() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = network("a", 42, dir.path()).await;
        let first = attach(&network, "pod-a", "10.42.0.5").await;
        let index = sh("ip route get 10.42.0.5");
        let again = attach(&network, "pod-a", "10.42.0.5").await;
        assert_eq!(first, again);
        assert_eq!(sh("ip route get 10.42.0.5"), index);
        network.detach("pod-a").await.unwrap();
        network.detach("pod-a").await.unwrap();
        assert!(!first.netns.exists());
        assert_eq!(sh("ip route show 10.42.0.5"), "");
        // The same address serves the next pod at once.
        let next = attach(&network, "pod-b", "10.42.0.5").await;
        serve(&next.netns, "0.0.0.0:80", "b");
        assert_eq!(call("10.42.0.5:80").unwrap(), "b 10.42.0.1");
        network.remove_all().await.unwrap();
    });
}

#[test]
fn a_later_process_takes_up_what_is_there() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let before = network("a", 42, dir.path()).await;
        let link = attach(&before, "pod-a", "10.42.0.5").await;
        serve(&link.netns, "0.0.0.0:80", "a");
        drop(before);
        let after = open(config("a", 42, dir.path())).unwrap();
        assert_eq!(after.attached().await.unwrap(), vec![link.clone()]);
        assert_eq!(attach(&after, "pod-a", "10.42.0.5").await, link);
        assert_eq!(call("10.42.0.5:80").unwrap(), "a 10.42.0.1");
        after.detach("pod-a").await.unwrap();
        assert_eq!(after.attached().await.unwrap(), vec![]);
        after.remove_all().await.unwrap();
    });
}

#[test]
fn removing_all_leaves_nothing_and_spares_the_neighbour() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let clean = state();
        let a = network("a", 42, dir.path()).await;
        let b = network("b", 52, dir.path()).await;
        for i in 5..10 {
            attach(&a, &format!("pod-{i}"), &format!("10.42.0.{i}")).await;
        }
        let kept = attach(&b, "pod-b", "10.52.0.5").await;
        a.remove_all().await.unwrap();
        assert!(!state().contains("va"), "{}", state());
        assert!(!state().contains("10.42."), "{}", state());
        serve(&kept.netns, "0.0.0.0:80", "b");
        assert_eq!(call("10.52.0.5:80").unwrap(), "b 10.52.0.1");
        b.remove_all().await.unwrap();
        assert_eq!(state(), clean);
        assert_eq!(sh(&format!("grep -c {} /proc/self/mounts || true", dir.path().display())).trim(), "0");
    });
}

fn state() -> String {
    sh("ip -o link | cut -d' ' -f2; ip -o addr | cut -d' ' -f2-7; ip route")
}

#[test]
fn refuses_what_cannot_work() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = network("a", 42, dir.path()).await;
        for (pod, says) in [
            (pod("", "10.42.0.5"), "pod id \"\" must be"),
            (pod("../x", "10.42.0.5"), "pod id \"../x\" must be"),
            (pod("x", "10.42.0.1"), "is the node's own address"),
            (pod("x", "fd00::1"), "is not of the pod range's family"),
        ] {
            let error = network.attach(&pod).await.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let mut wrong = config("toolong", 42, dir.path());
        assert!(open(wrong.clone()).unwrap_err().to_string().contains("instance mark"));
        wrong = config("a", 42, dir.path());
        wrong.cluster_dns = ip("10.42.0.10");
        assert!(open(wrong).unwrap_err().to_string().contains("not within the service range"));
        network.remove_all().await.unwrap();
    });
}

#[test]
fn prints_how_long_an_attach_takes() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = network("a", 42, dir.path()).await;
        let mut times = Vec::new();
        for i in 0..12u8 {
            let start = Instant::now();
            attach(&network, &format!("pod-{i}"), &format!("10.42.0.{}", i + 5)).await;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            if i < 6 {
                // Lets the next one find a spare: the refill has nothing else to tell that it is done.
                while sh("ip -o link | grep -c ': va' || true").trim().parse::<u8>().unwrap() < i + 1 + 4 {}
            }
        }
        println!("attach with spares ms: {:.2?}; in a burst: {:.2?}", &times[1..7], &times[7..]);
        let mut times = Vec::new();
        for i in 0..12u8 {
            let start = Instant::now();
            network.detach(&format!("pod-{i}")).await.unwrap();
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        println!("detach ms: {times:.2?}");
        let start = Instant::now();
        network.remove_all().await.unwrap();
        println!("remove_all ms: {:.2}", start.elapsed().as_secs_f64() * 1e3);
    });
}
