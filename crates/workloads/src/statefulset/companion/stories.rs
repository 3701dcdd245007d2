//! Stories of two controllers: what happens | the pods | what the built-in one does | what the companion does.
//!
//! The pods are written as in the stories of one controller. Both act on the state that the row shows.

use super::{Share, built_in, plan};
use crate::statefulset::stories::{draw, happen, show};
use crate::statefulset::world::World;
use crate::statefulset::{Plan, Policy};

#[track_caller]
fn check(policy: Policy, share: Share, table: &str) {
    let mut world = World::new(policy);
    let (mut actual, mut expected) = (String::new(), String::new());
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for event in cells[0].split(", ") {
            happen(&mut world, event);
        }
        let set = world.snapshot();
        let (other, ours) = (acts(built_in(&set, share)), acts(plan(&set, share)));
        actual += &format!("{} | {} | {} | {}\n", cells[0], draw(&world), told(&other), told(&ours));
        expected += &format!("{} | {} | {} | {}\n", cells[0], cells[1], cells[2], cells[3]);
        world.obey(&other);
        world.obey(&ours);
    }
    assert!(actual == expected, "\n--- expected ---\n{expected}\n--- actual ---\n{actual}");
}

/// Only what is done: who waits for what is the plan's own story.
fn acts(plan: Plan) -> Plan {
    Plan { wait: None, ..plan }
}

fn told(plan: &Plan) -> String {
    if plan.actions.is_empty() { "-".to_owned() } else { show(plan) }
}

#[track_caller]
fn rolls(table: &str) {
    check(Policy::OrderedReady, Share::RollOuts, table);
}

#[test]
fn the_companion_deletes_and_the_built_in_controller_makes() {
    rolls(
        "scale 3            | | create 0 new | -
         ready 0            | R0 | create 1 new | -
         ready 1            | R0 R0 | create 2 new | -
         ready 2            | R0 R0 R0 | - | -
         image 1            | R0 R0 R0 | - | delete 2 (outdated)
         tick               | R0 R0 x0 | - | -
         gone 2             | R0 R0 | create 2 new | -
         tick               | R0 R0 p1 | - | -
         ready 2            | R0 R0 R1 | - | delete 1 (outdated)
         gone 1             | R0 . R1 | create 1 new | -
         ready 1            | R0 R1 R1 | - | delete 0 (outdated)
         gone 0             | . R1 R1 | create 0 new | -
         ready 0            | R1 R1 R1 | - | -",
    );
}

#[test]
fn a_broken_image_is_taken_back_by_mending_the_template() {
    rolls(
        "scale 2            | | create 0 new | -
         ready 0            | R0 | create 1 new | -
         ready 1            | R0 R0 | - | -
         image 1            | R0 R0 | - | delete 1 (outdated)
         gone 1             | R0 | create 1 new | -
         run 1              | R0 s1 | - | -
         image 0            | R0 s1 | - | delete 1 (broken)
         gone 1             | R0 | create 1 new | -
         ready 1            | R0 R0 | - | -",
    );
}

#[test]
fn a_roll_out_whose_time_is_over_is_undone_and_healed() {
    rolls(
        "scale 2            | | create 0 new | -
         ready 0            | R0 | create 1 new | -
         ready 1            | R0 R0 | - | -
         image 1            | R0 R0 | - | delete 1 (outdated)
         gone 1             | R0 | create 1 new | -
         run 1, expire      | R0 s1 | - | roll back
         tick               | R0 s1 | - | delete 1 (broken)
         gone 1             | R0 | create 1 new | -",
    );
}

#[test]
fn partition_pause_and_the_leader_are_kept() {
    rolls(
        "scale 3            | | create 0 new | -
         ready 0            | R0 | create 1 new | -
         ready 1            | R0 R0 | create 2 new | -
         ready 2            | R0 R0 R0 | - | -
         partition 1, lead 2, image 1 | R0 R0 R0 | - | delete 1 (outdated)
         gone 1             | R0 . R0 | create 1 new | -
         ready 1, pause     | R0 R1 R0 | - | -
         resume             | R0 R1 R0 | - | delete 2 (outdated)
         gone 2             | R0 R1 | create 2 new | -
         ready 2            | R0 R1 R1 | - | -
         partition 0        | R0 R1 R1 | - | delete 0 (outdated)",
    );
}

#[test]
fn a_pod_that_is_lost_below_the_partition_comes_back_new_and_is_not_fought_over() {
    rolls(
        "scale 2            | | create 0 new | -
         ready 0            | R0 | create 1 new | -
         ready 1            | R0 R0 | - | -
         partition 2, image 1 | R0 R0 | - | -
         gone 1             | R0 | create 1 new | -
         run 1              | R0 s1 | - | -
         image 2            | R0 s1 | - | delete 1 (broken)",
    );
}

#[test]
fn what_scales_is_not_rolled_and_what_ended_is_the_built_in_controllers() {
    rolls(
        "scale 2            | | create 0 new | -
         ready 0            | R0 | create 1 new | -
         ready 1            | R0 R0 | - | -
         image 1, scale 3   | R0 R0 | create 2 new | -
         fail 1             | R0 F0 p1 | delete 1 (finished) | -
         gone 1             | R0 . p1 | create 1 new | -
         ready 1            | R0 R1 p1 | - | -
         ready 2, scale 2   | R0 R1 R1 | delete 2 (scale) | -
         gone 2             | R0 R1 | - | delete 0 (outdated)",
    );
}

#[test]
fn at_most_as_many_as_the_annotation_says_are_down() {
    check(
        Policy::Parallel,
        Share::RollOuts,
        "scale 4            | | create 0 new, create 1 new, create 2 new, create 3 new | -
         all-ready          | R0 R0 R0 R0 | - | -
         max 2, image 1     | R0 R0 R0 R0 | - | delete 3 (outdated), delete 2 (outdated)
         gone 3             | R0 R0 x0 | create 3 new | -
         ready 3            | R0 R0 x0 R1 | - | delete 1 (outdated)
         gone 2             | R0 x0 . R1 | create 2 new | -
         unready 0          | s0 x0 p1 R1 | - | delete 0 (outdated)",
    );
}

#[test]
fn where_the_built_in_controller_rolls_out_the_companion_heals() {
    check(
        Policy::OrderedReady,
        Share::Healing,
        "scale 2            | | create 0 new | -
         ready 0            | R0 | create 1 new | -
         ready 1            | R0 R0 | - | -
         image 1            | R0 R0 | delete 1 (outdated) | -
         gone 1             | R0 | create 1 new | -
         run 1              | R0 s1 | - | -
         image 2            | R0 s1 | - | delete 1 (broken)
         gone 1             | R0 | create 1 new | -
         ready 1            | R0 R2 | delete 0 (outdated) | -",
    );
}

#[test]
fn a_broken_pod_on_the_way_down_does_not_hold_the_built_in_controller_up() {
    rolls(
        "scale 1            | | create 0 new | -
         ready 0, scale 3   | R0 | create 1 new | -
         run 1, image 1     | R0 s0 | - | delete 1 (broken)
         gone 1             | R0 | create 1 new | -
         ready 1            | R0 R1 | create 2 new | -
         run 2, image 2, scale 1 | R0 R1 s1 | delete 2 (scale) | delete 2 (scale)",
    );
}

#[test]
fn a_deleted_set_is_taken_down_in_order() {
    rolls(
        "scale 2, ordered-delete | | create 0 new | hold deletion
         ready 0            | R0 | create 1 new | -
         ready 1            | R0 R0 | - | -
         delete-set         | R0 R0 | - | delete 1 (set deleted)
         tick               | R0 x0 | - | -
         gone 1             | R0 | - | delete 0 (set deleted)
         gone 0             | | - | release deletion",
    );
}

#[test]
fn a_set_that_is_managed_no_longer_is_only_let_go() {
    check(
        Policy::OrderedReady,
        Share::Rest,
        "scale 1, ondelete, ordered-delete | | create 0 new | hold deletion
         ready 0, image 1, plain-delete | R0 | - | release deletion",
    );
}
