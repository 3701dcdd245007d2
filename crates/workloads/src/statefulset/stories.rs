//! Stories told as tables: what happens | the pods | what the plan answers.
//!
//! Pods, from the first wanted or existing ordinal on: `.` none, `p` pending, `s` starting, `r` ready but not yet
//! available, `R` available, `F` finished, `x` terminating; then the number of the template, and `'` when the volumes are
//! not those of the claim templates.

use super::world::{Miniature, World, words};
use super::{Claims, Deletion, GiveUp, HandOver, Plan, Policy, Strategy, Wait, plan};
use crate::pod::{Health, Record};

/// The one place that knows the types. Every test is a table: the left column is the story, the rest is expected.
#[track_caller]
fn check(policy: Policy, table: &str) {
    let mut world = World::new(policy);
    let (mut actual, mut expected) = (String::new(), String::new());
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for event in cells[0].split(", ") {
            happen(&mut world, event);
        }
        let plan = plan(&world.snapshot());
        actual += &format!("{:<24}| {:<20}| {}\n", cells[0], draw(&world), show(&plan));
        expected += &format!("{:<24}| {:<20}| {}\n", cells[0], cells[1], cells[2]);
        world.obey(&plan);
    }
    assert!(actual == expected, "\n--- expected ---\n{expected}\n--- actual ---\n{actual}");
}

pub(super) fn happen(world: &mut World, event: &str) {
    let (verb, arg) = event.split_once(' ').unwrap_or((event, "0"));
    let n: u32 = arg.parse().expect("a number");
    let (mut partition, mut max_unavailable) = (0, 1);
    if let Strategy::RollingUpdate { partition: p, max_unavailable: m } = world.strategy {
        (partition, max_unavailable) = (p, m);
    }
    let claims = |set: fn(&mut Claims)| {
        let mut claims = Claims::default();
        set(&mut claims);
        claims
    };
    match verb {
        "tick" => {}
        "scale" => world.replicas = n,
        "image" => world.update = u8::try_from(n).expect("small"),
        "partition" => world.strategy = Strategy::RollingUpdate { partition: n, max_unavailable },
        "max" => world.strategy = Strategy::RollingUpdate { partition, max_unavailable: n },
        "ondelete" => world.strategy = Strategy::OnDelete,
        "recreate" => world.strategy = Strategy::Recreate,
        "start" => world.start = n,
        "heal-off" => world.heals = false,
        "expire" => world.give_up = GiveUp::Now,
        "others-missing" => world.waits_for_others = true,
        "others-ready" => world.waits_for_others = false,
        "reserve" => world.reserved.push(n),
        "unreserve" => world.reserved.clear(),
        "hand-over" => world.hands_over = true,
        "handed-over" => drop(world.asked.insert(n, HandOver::Over)),
        "evicts" => world.evicts = true,
        "budget" => (world.budget, world.evicted) = (Some(n), 0),
        "stop" => world.stopped.push(n),
        "unstop" => world.stopped.clear(),
        "lead" => world.leader = Some(n),
        "pause" => world.paused = true,
        "resume" => world.paused = false,
        "delete-set" if world.held => world.deletion = Deletion::InOrder,
        "delete-set" | "orphan-set" => world.deletion = Deletion::ByOthers,
        "ordered-delete" => world.ordered_delete = true,
        "plain-delete" => world.ordered_delete = false,
        "start-from" => world.start = n,
        "run" => pod(world, n).health = Health::Starting,
        "warm" => has_been(pod(world, n), Health::Ready),
        "ready" => has_been(pod(world, n), Health::Available),
        "crash-loop" => {
            let pod = pod(world, n);
            (pod.health, pod.record) = (Health::Starting, Record::CrashLoops);
        }
        "unready" => pod(world, n).health = Health::Starting,
        "fail" => pod(world, n).health = Health::Finished,
        "evict" => pod(world, n).terminating = true,
        "gone" => {
            world.pods.remove(&n);
            world.asked.remove(&n);
        }
        // The set asks for other claims from now on.
        "other-claims" => world.pods.values_mut().for_each(|pod| pod.misfit = true),
        "adopt-misfit" => {
            let stranger = Miniature::new((Health::Available, Record::WasReady), u8::MAX);
            world.pods.insert(n, Miniature { misfit: true, ..stranger });
        }
        "all-ready" => world.nodes_behave(),
        "old-claim" => drop(world.claims.insert(n, claims(|c| c.stale = true))),
        "claim-going" => drop(world.claims.insert(n, claims(|c| c.deleting = true))),
        "claim-missing" => drop(world.claims.insert(n, claims(|c| c.missing = true))),
        "claim-owners" => drop(world.claims.insert(n, claims(|c| c.owners = true))),
        "claim-unlabelled" => drop(world.claims.insert(n, claims(|c| c.unlabelled = true))),
        "claim-small" => drop(world.claims.insert(n, claims(|c| c.small = true))),
        "claim-gone" => drop(world.claims.remove(&n)),
        other => panic!("unknown event: {other}"),
    }
}

fn pod(world: &mut World, ordinal: u32) -> &mut Miniature {
    world.pods.get_mut(&ordinal).unwrap_or_else(|| panic!("no pod {ordinal}"))
}

/// A world with these pods, from ordinal 0 on, in the words of [`draw`].
pub(super) fn world(policy: Policy, pods: &str) -> World {
    let mut world = World::new(policy);
    for (ordinal, word) in (0..).zip(pods.split_whitespace()).filter(|(_, word)| *word != ".") {
        let (letter, template) = word.split_at(1);
        let (health, record) = match letter {
            "p" => (Health::Pending, Record::NeverReady),
            "s" | "x" => (Health::Starting, Record::WasReady),
            "r" => (Health::Ready, Record::WasReady),
            "R" => (Health::Available, Record::WasReady),
            "F" => (Health::Finished, Record::WasReady),
            other => panic!("unknown pod: {other}"),
        };
        let (template, misfit) = template.strip_suffix('\'').map_or((template, false), |template| (template, true));
        let template = template.parse().expect("a number");
        let terminating = letter == "x";
        world.pods.insert(ordinal, Miniature { terminating, misfit, ..Miniature::new((health, record), template) });
    }
    world
}

fn has_been(pod: &mut Miniature, health: Health) {
    (pod.health, pod.record) = (health, Record::WasReady);
}

pub(super) fn draw(world: &World) -> String {
    let first = world.pods.keys().next().map_or(world.start, |o| (*o).min(world.start));
    let end = world.pods.keys().next_back().map_or(0, |o| o + 1);
    let cell = |ordinal| match world.pods.get(&ordinal) {
        None => ".".to_owned(),
        Some(pod) if pod.terminating => format!("x{}{}", pod.template, misfit(pod)),
        Some(pod) => {
            let letter = match pod.health {
                Health::Pending => 'p',
                Health::Starting => 's',
                Health::Ready => 'r',
                Health::Available => 'R',
                Health::Finished => 'F',
            };
            format!("{letter}{}{}", pod.template, misfit(pod))
        }
    };
    (first..end).map(cell).collect::<Vec<_>>().join(" ")
}

fn misfit(pod: &Miniature) -> &'static str {
    if pod.misfit { "'" } else { "" }
}

pub(super) fn show(plan: &Plan) -> String {
    let wait = plan.wait.map(|wait| match wait {
        Wait::ToBeReady(n) => format!("wait ready {n}"),
        Wait::ToBeAvailable(n) => format!("wait available {n}"),
        Wait::ToBeGone(n) => format!("wait gone {n}"),
        Wait::ForOldClaim(n) => format!("wait claim {n}"),
        Wait::BeforeRemoving(n) => format!("hold {n}"),
        Wait::ForBudget => "wait budget".to_owned(),
        Wait::ForHandOver(n) => format!("wait hand-over {n}"),
        Wait::ForDisruption(n) => format!("wait disruption {n}"),
        Wait::ForOthers => "wait others".to_owned(),
    });
    let words: Vec<String> = plan.actions.iter().map(|action| words(*action)).chain(wait).collect();
    if words.is_empty() { "settled".to_owned() } else { words.join(", ") }
}

mod ordered {
    use super::*;

    #[track_caller]
    fn tell(table: &str) {
        check(Policy::OrderedReady, table);
    }

    #[test]
    fn comes_up_in_order() {
        tell(
            "scale 3 |          | create 0 new
             tick    | p0       | wait ready 0
             run 0   | s0       | wait ready 0
             ready 0 | R0       | create 1 new
             tick    | R0 p0    | wait ready 1
             ready 1 | R0 R0    | create 2 new
             ready 2 | R0 R0 R0 | settled",
        );
    }

    #[test]
    fn min_ready_seconds_count_before_the_next_pod_starts() {
        tell(
            "scale 2 |       | create 0 new
             warm 0  | r0    | wait available 0
             ready 0 | R0    | create 1 new",
        );
    }

    #[test]
    fn goes_down_from_the_highest_one_at_a_time_each_only_after_the_one_above_is_gone() {
        tell(
            "scale 1   |          | create 0 new
             ready 0, scale 2 | R0 | create 1 new
             ready 1, scale 3 | R0 R0 | create 2 new
             ready 2, scale 1 | R0 R0 R0 | delete 2 (scale)
             tick      | R0 R0 x0 | wait gone 2
             gone 2    | R0 R0    | delete 1 (scale)
             tick      | R0 x0    | wait gone 1
             gone 1    | R0       | settled",
        );
    }

    #[test]
    fn a_failing_pod_halts_growth_and_shrinking_until_it_is_back() {
        tell(
            "scale 2            |          | create 0 new
             ready 0            | R0       | create 1 new
             ready 1            | R0 R0    | settled
             unready 0, scale 3 | s0 R0    | wait ready 0
             scale 1            | s0 R0    | wait ready 0
             ready 0            | R0 R0    | delete 1 (scale)",
        );
    }

    #[test]
    fn never_replaces_a_pod_that_is_still_terminating() {
        tell(
            "scale 1 |    | create 0 new
             ready 0 | R0 | settled
             evict 0 | x0 | wait gone 0
             tick    | x0 | wait gone 0
             gone 0  |    | create 0 new
             ready 0 | R0 | settled",
        );
    }

    #[test]
    fn a_finished_pod_is_deleted_and_made_anew_and_nothing_else_happens_meanwhile() {
        tell(
            "scale 2 |       | create 0 new
             ready 0 | R0    | create 1 new
             fail 0  | F0 p0 | delete 0 (finished)
             tick    | x0 p0 | wait gone 0
             gone 0  | . p0  | create 0 new
             ready 0 | R0 p0 | wait ready 1",
        );
    }

    #[test]
    fn an_unhealthy_pod_in_the_way_goes_only_when_it_is_the_first_unhealthy_one() {
        tell(
            "scale 1            |          | create 0 new
             ready 0, scale 2   | R0       | create 1 new
             ready 1, scale 3   | R0 R0    | create 2 new
             scale 1            | R0 R0 p0 | delete 2 (scale)
             gone 2, scale 2    | R0 R0    | settled
             scale 3            | R0 R0    | create 2 new
             unready 1, scale 1 | R0 s0 p0 | hold 2
             ready 1            | R0 R0 p0 | delete 2 (scale)",
        );
    }

    #[test]
    fn finished_pods_never_block_the_way_down() {
        tell(
            "scale 1                  |          | create 0 new
             ready 0, scale 2         | R0       | create 1 new
             ready 1, scale 3         | R0 R0    | create 2 new
             fail 2, fail 1, scale 1  | R0 F0 F0 | delete 2 (scale)
             gone 2                   | R0 F0    | delete 1 (scale)
             gone 1                   | R0       | settled",
        );
    }

    #[test]
    fn broken_pods_never_block_the_way_down_either() {
        tell(
            "scale 1               |          | create 0 new
             ready 0, scale 2      | R0       | create 1 new
             ready 1, scale 3      | R0 R0    | create 2 new
             ready 2, max 2, image 1 | R0 R0 R0 | delete 2 (outdated), delete 1 (outdated)
             gone 1, gone 2        | R0       | create 1 new
             scale 1, image 2      | R0 p1    | delete 1 (scale)",
        );
    }

    #[test]
    fn a_pod_that_may_come_back_holds_the_way_down() {
        tell(
            "scale 1               |          | create 0 new
             ready 0, scale 2      | R0       | create 1 new
             ready 1, scale 3      | R0 R0    | create 2 new
             unready 1, scale 1    | R0 s0 p0 | hold 2
             heal-off, image 1     | R0 s0 p0 | hold 2
             ready 2               | R0 s0 R0 | delete 2 (scale)
             gone 2                | R0 s0    | delete 1 (scale)",
        );
    }

    #[test]
    fn rolls_out_from_the_highest_ordinal_down() {
        tell(
            "scale 1          |          | create 0 new
             ready 0, scale 2 | R0       | create 1 new
             ready 1          | R0 R0    | settled
             image 1          | R0 R0    | delete 1 (outdated)
             tick             | R0 x0    | wait gone 1
             gone 1           | R0       | create 1 new
             ready 1          | R0 R1    | delete 0 (outdated)
             gone 0           | . R1     | create 0 new
             ready 0          | R1 R1    | settled",
        );
    }

    #[test]
    fn a_partition_holds_the_lower_ordinals_and_replaces_them_at_the_old_revision() {
        tell(
            "scale 1          |          | create 0 new
             ready 0, scale 2 | R0       | create 1 new
             ready 1          | R0 R0    | settled
             partition 1, image 1 | R0 R0 | delete 1 (outdated)
             gone 1           | R0       | create 1 new
             ready 1          | R0 R1    | settled
             evict 0, gone 0  | . R1     | create 0 old
             ready 0          | R0 R1    | settled
             partition 0      | R0 R1    | delete 0 (outdated)
             gone 0           | . R1     | create 0 new
             ready 0          | R1 R1    | settled",
        );
    }

    #[test]
    fn the_partition_counts_from_the_first_ordinal() {
        tell(
            "start 5, scale 2 |       | create 5 new
             ready 5          | R0    | create 6 new
             ready 6          | R0 R0 | settled
             partition 1, image 1 | R0 R0 | delete 6 (outdated)
             gone 6           | R0    | create 6 new
             ready 6          | R0 R1 | settled
             evict 5, gone 5  | . R1  | create 5 old",
        );
    }

    #[test]
    fn max_unavailable_replaces_several_at_once_and_brings_them_back_in_order() {
        tell(
            "scale 1          |             | create 0 new
             ready 0, scale 2 | R0          | create 1 new
             ready 1, scale 3 | R0 R0       | create 2 new
             ready 2, max 2, image 1 | R0 R0 R0 | delete 2 (outdated), delete 1 (outdated)
             gone 2           | R0 x0       | wait gone 1
             gone 1           | R0          | create 1 new
             ready 1          | R0 R1       | create 2 new
             ready 2          | R0 R1 R1    | delete 0 (outdated)",
        );
    }

    #[test]
    fn on_delete_updates_only_what_is_deleted_by_hand() {
        tell(
            "scale 1, ondelete |    | create 0 new
             ready 0           | R0 | settled
             image 1           | R0 | settled
             evict 0           | x0 | wait gone 0
             gone 0            |    | create 0 new
             ready 0           | R1 | settled",
        );
    }

    #[test]
    fn moving_the_first_ordinal_makes_the_new_ones_before_it_removes_the_old_ones() {
        tell(
            "scale 2        |             | create 0 new
             ready 0        | R0          | create 1 new
             ready 1        | R0 R0       | settled
             start 2        | R0 R0       | create 2 new
             ready 2        | R0 R0 R0    | create 3 new
             ready 3        | R0 R0 R0 R0 | delete 1 (scale)
             gone 1         | R0 . R0 R0  | delete 0 (scale)",
        );
    }

    #[test]
    fn without_healing_a_broken_roll_out_stays_at_the_broken_pod() {
        tell(
            "heal-off, scale 1 |      | create 0 new
             ready 0, scale 2 | R0    | create 1 new
             ready 1, image 1 | R0 R0 | delete 1 (outdated)
             gone 1           | R0    | create 1 new
             image 2          | R0 p1 | wait ready 1
             evict 1, gone 1  | R0    | create 1 new
             ready 1          | R0 R2 | delete 0 (outdated)",
        );
    }

    #[test]
    fn a_broken_roll_out_heals_with_the_next_template() {
        tell(
            "scale 1          |       | create 0 new
             ready 0, scale 2 | R0    | create 1 new
             ready 1, image 1 | R0 R0 | delete 1 (outdated)
             gone 1           | R0    | create 1 new
             run 1            | R0 s1 | wait ready 1
             image 2          | R0 s1 | delete 1 (broken)
             tick             | R0 x1 | wait gone 1
             gone 1           | R0    | create 1 new
             ready 1          | R0 R2 | delete 0 (outdated)
             gone 0           | . R2  | create 0 new
             ready 0          | R2 R2 | settled",
        );
    }

    #[test]
    fn a_broken_roll_out_heals_when_it_is_rolled_back() {
        tell(
            "scale 1          |       | create 0 new
             ready 0, scale 2 | R0    | create 1 new
             ready 1, image 1 | R0 R0 | delete 1 (outdated)
             gone 1           | R0    | create 1 new
             image 0          | R0 p1 | delete 1 (broken)
             gone 1           | R0    | create 1 new
             ready 1          | R0 R0 | settled",
        );
    }

    #[test]
    fn a_set_that_never_came_up_heals_with_the_next_template() {
        tell(
            "scale 2 |       | create 0 new
             run 0   | s0    | wait ready 0
             image 1 | s0    | delete 0 (broken)
             gone 0  |       | create 0 new
             ready 0 | R1    | create 1 new
             ready 1 | R1 R1 | settled",
        );
    }

    #[test]
    fn the_broken_pod_goes_first_also_where_a_higher_one_is_outdated() {
        tell(
            "scale 1          |          | create 0 new
             ready 0, scale 2 | R0       | create 1 new
             ready 1, scale 3 | R0 R0    | create 2 new
             ready 2, image 1 | R0 R0 R0 | delete 2 (outdated)
             gone 2           | R0 R0    | create 2 new
             ready 2          | R0 R0 R1 | delete 1 (outdated)
             gone 1           | R0 . R1  | create 1 new
             image 2          | R0 p1 R1 | delete 1 (broken)
             gone 1           | R0 . R1  | create 1 new
             ready 1          | R0 R2 R1 | delete 2 (outdated)
             gone 2           | R0 R2    | create 2 new
             ready 2          | R0 R2 R2 | delete 0 (outdated)",
        );
    }

    #[test]
    fn a_pod_that_was_ready_once_is_given_the_time_to_be_so_again() {
        tell(
            "scale 1            |       | create 0 new
             ready 0, scale 2   | R0    | create 1 new
             ready 1, image 1   | R0 R0 | delete 1 (outdated)
             gone 1             | R0    | create 1 new
             ready 1, unready 1, image 2 | R0 s1 | wait ready 1
             crash-loop 1       | R0 s1 | delete 1 (broken)",
        );
    }

    #[test]
    fn crashing_at_the_revision_that_worked_is_no_reason_to_jump_the_queue() {
        tell(
            "scale 1               |       | create 0 new
             ready 0, scale 2      | R0    | create 1 new
             ready 1, crash-loop 0, image 1 | s0 R0 | wait ready 0",
        );
    }

    #[test]
    fn a_set_that_crashes_altogether_takes_the_next_template_at_once() {
        // Without a readiness probe a revision that crashes is Ready for a moment, and so rolls out completely.
        tell(
            "scale 1          |       | create 0 new
             ready 0, scale 2 | R0    | create 1 new
             ready 1          | R0 R0 | settled
             crash-loop 0, crash-loop 1, image 1 | s0 s0 | delete 0 (broken)
             gone 0           | . s0  | create 0 new
             ready 0          | R1 s0 | delete 1 (broken)
             gone 1           | R1    | create 1 new
             ready 1          | R1 R1 | settled",
        );
    }

    #[test]
    fn a_broken_canary_heals_when_the_partition_is_raised_above_it() {
        tell(
            "scale 1          |       | create 0 new
             ready 0, scale 2 | R0    | create 1 new
             ready 1, partition 1, image 1 | R0 R0 | delete 1 (outdated)
             gone 1           | R0    | create 1 new
             partition 2      | R0 p1 | delete 1 (broken)
             gone 1           | R0    | create 1 old
             ready 1          | R0 R0 | settled",
        );
    }

    #[test]
    fn nothing_is_healed_while_roll_outs_are_paused_or_done_by_hand() {
        tell(
            "scale 1        |    | create 0 new
             image 1, pause | p0 | wait ready 0
             resume         | p0 | delete 0 (broken)",
        );
        tell(
            "scale 1           |    | create 0 new
             image 1, ondelete | p0 | wait ready 0",
        );
    }

    #[test]
    fn a_roll_out_that_runs_out_of_time_goes_back_to_what_worked() {
        tell(
            "scale 1          |       | create 0 new
             ready 0, scale 2 | R0    | create 1 new
             ready 1, image 1 | R0 R0 | delete 1 (outdated)
             gone 1           | R0    | create 1 new
             expire           | R0 p1 | roll back
             tick             | R0 p1 | delete 1 (broken)
             gone 1           | R0    | create 1 new
             ready 1          | R0 R0 | settled",
        );
    }

    #[test]
    fn a_first_roll_out_has_nothing_to_go_back_to() {
        tell(
            "scale 1 |    | create 0 new
             expire  | p0 | wait ready 0",
        );
    }

    #[test]
    fn the_first_pod_waits_for_the_sets_that_this_one_depends_on_and_no_later_one_does() {
        tell(
            "others-missing, scale 2 |       | wait others
             others-ready            |       | create 0 new
             others-missing, ready 0 | R0    | create 1 new
             evict 0, gone 0         | . p0  | create 0 new
             ready 0, ready 1, scale 0 | R0 R0 | delete 1 (scale)
             gone 1                  | R0    | delete 0 (scale)
             gone 0                  |       | settled",
        );
    }

    #[test]
    fn reserved_ordinals_have_no_pod_and_their_neighbours_take_over() {
        tell(
            "reserve 1, scale 1 |          | create 0 new
             ready 0, scale 2   | R0       | create 2 new
             ready 2            | R0 . R0  | settled
             unreserve          | R0 . R0  | create 1 new
             ready 1            | R0 R0 R0 | delete 2 (scale)
             gone 2             | R0 R0    | settled
             reserve 0          | R0 R0    | create 2 new
             ready 2            | R0 R0 R0 | delete 0 (scale)
             gone 0             | . R0 R0  | settled",
        );
    }

    #[test]
    fn a_stopped_pod_goes_and_stays_away_while_everything_else_goes_on_past_it() {
        tell(
            "scale 1          |          | create 0 new
             ready 0, scale 2 | R0       | create 1 new
             ready 1, scale 3 | R0 R0    | create 2 new
             ready 2, stop 1  | R0 R0 R0 | delete 1 (stopped)
             tick             | R0 x0 R0 | wait gone 1
             gone 1           | R0 . R0  | settled
             scale 4          | R0 . R0  | create 3 new
             ready 3, image 1 | R0 . R0 R0 | delete 3 (outdated)
             gone 3           | R0 . R0  | create 3 new
             ready 3          | R0 . R0 R1 | delete 2 (outdated)
             gone 2           | R0 . . R1 | create 2 new
             ready 2          | R0 . R1 R1 | delete 0 (outdated)
             gone 0           | . . R1 R1 | create 0 new
             ready 0          | R1 . R1 R1 | settled
             unstop           | R1 . R1 R1 | create 1 new
             ready 1          | R1 R1 R1 R1 | settled",
        );
    }

    #[test]
    fn a_roll_out_that_evicts_waits_for_the_disruption_budget_and_deletes_what_does_not_work() {
        tell(
            "scale 1           |          | create 0 new
             ready 0, scale 2  | R0       | create 1 new
             ready 1, evicts, budget 0, image 1 | R0 R0 | wait disruption 1
             budget 1          | R0 R0    | evict 1
             tick              | R0 x0    | wait gone 1
             gone 1            | R0       | create 1 new
             image 2           | R0 p1    | delete 1 (broken)
             gone 1            | R0       | create 1 new
             ready 1           | R0 R2    | wait disruption 0
             budget 1          | R0 R2    | evict 0
             gone 0            | . R2     | create 0 new
             ready 0, scale 1  | R2 R2    | delete 1 (scale)",
        );
    }

    #[test]
    fn a_pod_that_works_hands_over_before_a_roll_out_takes_it() {
        tell(
            "scale 1           |          | create 0 new
             ready 0, scale 2  | R0       | create 1 new
             ready 1, hand-over, image 1 | R0 R0 | ask 1
             tick              | R0 R0    | wait hand-over 1
             handed-over 1     | R0 R0    | delete 1 (outdated)
             gone 1            | R0       | create 1 new
             image 2           | R0 p1    | delete 1 (broken)
             gone 1            | R0       | create 1 new
             ready 1           | R0 R2    | ask 0
             image 0           | R0 R2    | ask 1, withdraw 0
             pause             | R0 R2    | withdraw 1
             resume            | R0 R2    | ask 1
             handed-over 1     | R0 R2    | delete 1 (outdated)",
        );
    }

    #[test]
    fn a_pod_that_works_hands_over_before_it_is_scaled_away_or_stopped() {
        tell(
            "scale 1           |          | create 0 new
             ready 0, scale 2  | R0       | create 1 new
             ready 1, hand-over, scale 1 | R0 R0 | ask 1
             scale 2           | R0 R0    | withdraw 1
             stop 1            | R0 R0    | ask 1
             unready 1         | R0 s0    | wait hand-over 1
             handed-over 1     | R0 s0    | delete 1 (stopped)
             gone 1, unstop    | R0       | create 1 new
             scale 1           | R0 p0    | delete 1 (scale)",
        );
    }

    #[test]
    fn what_stops_being_ready_because_it_hands_over_holds_nothing_up() {
        tell(
            "scale 1           |          | create 0 new
             ready 0, scale 2  | R0       | create 1 new
             ready 1, hand-over, image 1 | R0 R0 | ask 1
             unready 1         | R0 s0    | wait hand-over 1
             handed-over 1     | R0 s0    | delete 1 (outdated)
             gone 1            | R0       | create 1 new",
        );
    }

    #[test]
    fn what_was_asked_goes_before_what_leads_by_then() {
        tell(
            "scale 1           |          | create 0 new
             ready 0, scale 2  | R0       | create 1 new
             ready 1, lead 0, hand-over, image 1 | R0 R0 | ask 1
             lead 1, handed-over 1 | R0 R0 | delete 1 (outdated)",
        );
    }

    #[test]
    fn nobody_is_asked_before_the_budgets_allow_it() {
        tell(
            "scale 1           |          | create 0 new
             ready 0, hand-over, evicts, budget 0, image 1 | R0 | wait disruption 0
             budget 1          | R0       | ask 0
             handed-over 0, budget 0 | R0 | wait disruption 0
             budget 1          | R0       | evict 0",
        );
    }

    #[test]
    fn stopped_pods_go_as_in_scaling_down_and_together_with_it() {
        tell(
            "scale 1          |          | create 0 new
             ready 0, scale 2 | R0       | create 1 new
             ready 1, scale 3 | R0 R0    | create 2 new
             ready 2, stop 0, stop 1, scale 2 | R0 R0 R0 | delete 2 (scale)
             gone 2           | R0 R0    | delete 1 (stopped)
             gone 1           | R0       | delete 0 (stopped)
             gone 0           |          | settled",
        );
        tell(
            "scale 1          |          | create 0 new
             ready 0, scale 2 | R0       | create 1 new
             ready 1, unready 0, stop 1 | s0 R0 | wait ready 0
             stop 0           | s0 R0    | delete 1 (stopped)",
        );
    }

    #[test]
    fn a_stopped_pod_is_neither_waited_for_nor_healed_nor_replaced_when_it_ends() {
        tell(
            "scale 1            |          | create 0 new
             ready 0, scale 2   | R0       | create 1 new
             stop 1, fail 1     | R0 F0    | delete 1 (stopped)
             gone 1             | R0       | settled
             claim-owners 1     | R0       | owners 1
             tick               | R0       | settled",
        );
    }

    #[test]
    fn removing_a_chosen_pod_is_one_replica_less_and_its_ordinal_reserved() {
        tell(
            "scale 1              |          | create 0 new
             ready 0, scale 2     | R0       | create 1 new
             ready 1, scale 3     | R0 R0    | create 2 new
             ready 2              | R0 R0 R0 | settled
             scale 2, reserve 1   | R0 R0 R0 | delete 1 (scale)
             gone 1               | R0 . R0  | settled",
        );
    }

    #[test]
    fn the_partition_counts_pods_where_ordinals_are_reserved() {
        tell(
            "reserve 1, scale 1   |         | create 0 new
             ready 0, scale 2     | R0      | create 2 new
             ready 2, partition 1, image 1 | R0 . R0 | delete 2 (outdated)
             gone 2               | R0      | create 2 new
             ready 2              | R0 . R1 | settled
             evict 0, gone 0      | . . R1  | create 0 old",
        );
    }

    #[test]
    fn claims_grow_last_and_whatever_the_pods_do() {
        tell(
            "scale 1              |    | create 0 new
             claim-small 0        | p0 | grow 0, wait ready 0
             ready 0, claim-small 0 | R0 | grow 0
             tick                 | R0 | settled
             claim-unlabelled 0   | R0 | label 0
             tick                 | R0 | settled",
        );
    }

    #[test]
    fn a_paused_roll_out_goes_no_further_and_lost_pods_come_back_as_they_were() {
        tell(
            "scale 1          |          | create 0 new
             ready 0, scale 2 | R0       | create 1 new
             ready 1, scale 3 | R0 R0    | create 2 new
             ready 2, image 1 | R0 R0 R0 | delete 2 (outdated)
             gone 2           | R0 R0    | create 2 new
             ready 2          | R0 R0 R1 | delete 1 (outdated)
             gone 1           | R0 . R1  | create 1 new
             ready 1, pause   | R0 R1 R1 | settled
             evict 0, gone 0  | . R1 R1  | create 0 old
             ready 0          | R0 R1 R1 | settled
             evict 2, gone 2  | R0 R1    | create 2 new
             ready 2, resume  | R0 R1 R1 | delete 0 (outdated)",
        );
    }

    #[test]
    fn the_pod_that_is_to_be_last_is_updated_after_all_others_wherever_it_is() {
        tell(
            "scale 1          |          | create 0 new
             ready 0, scale 2 | R0       | create 1 new
             ready 1, scale 3 | R0 R0    | create 2 new
             ready 2          | R0 R0 R0 | settled
             lead 2, image 1  | R0 R0 R0 | delete 1 (outdated)
             gone 1           | R0 . R0  | create 1 new
             ready 1          | R0 R1 R0 | delete 0 (outdated)
             gone 0           | . R1 R0  | create 0 new
             ready 0, lead 0  | R1 R1 R0 | delete 2 (outdated)
             gone 2           | R1 R1    | create 2 new
             ready 2          | R1 R1 R1 | settled",
        );
    }

    #[test]
    fn pods_with_other_volumes_than_the_set_asks_for_are_rolled_in_order_and_waited_for() {
        tell(
            "scale 1          |          | create 0 new
             ready 0, scale 2 | R0       | create 1 new
             ready 1, scale 3 | R0 R0    | create 2 new
             ready 2, other-claims | R0' R0' R0' | delete 2 (outdated)
             tick             | R0' R0' x0' | wait gone 2
             gone 2           | R0' R0'  | create 2 new
             ready 2          | R0' R0' R0 | delete 1 (outdated)
             gone 1           | R0' . R0 | create 1 new
             tick             | R0' p0 R0 | wait ready 1
             ready 1          | R0' R0 R0 | delete 0 (outdated)
             gone 0           | . R0 R0  | create 0 new
             ready 0          | R0 R0 R0 | settled",
        );
    }

    #[test]
    fn other_volumes_respect_partition_budget_pause_and_on_delete() {
        tell(
            "scale 1          |       | create 0 new
             ready 0, scale 2 | R0    | create 1 new
             ready 1, scale 3 | R0 R0 | create 2 new
             ready 2, pause, other-claims | R0' R0' R0' | settled
             resume, partition 2 | R0' R0' R0' | delete 2 (outdated)
             gone 2           | R0' R0' | create 2 new
             ready 2          | R0' R0' R0 | settled
             evict 0, gone 0  | . R0' R0 | create 0 new
             ready 0, ondelete | R0 R0' R0 | settled
             evict 1, gone 1  | R0 . R0 | create 1 new
             ready 1, max 2, other-claims | R0' R0' R0' | delete 2 (outdated), delete 1 (outdated)",
        );
    }

    #[test]
    fn a_stranger_that_is_adopted_without_the_volumes_is_replaced() {
        tell(
            "scale 1                  |       | create 0 new
             ready 0, adopt-misfit 1  | R0 R255' | delete 1 (scale)
             scale 2, gone 1, adopt-misfit 1 | R0 R255' | delete 1 (outdated)
             gone 1                   | R0    | create 1 new",
        );
    }

    #[test]
    fn a_pod_that_never_worked_with_the_wrong_volumes_is_replaced_at_once() {
        tell(
            "scale 2               |        | create 0 new
             run 0, other-claims   | s0'    | delete 0 (broken)
             gone 0                |        | create 0 new
             ready 0               | R0     | create 1 new
             ready 1, other-claims, unready 0 | s0' R0' | wait ready 0
             crash-loop 0          | s0' R0' | wait ready 0
             gone 1                | s0'    | delete 0 (broken)",
        );
        tell(
            "heal-off, scale 1     |        | create 0 new
             run 0, other-claims   | s0'    | wait ready 0",
        );
    }

    #[test]
    fn recreate_takes_all_pods_down_at_once_and_makes_none_before_all_are_gone() {
        tell(
            "recreate, scale 1 |          | create 0 new
             ready 0, scale 2  | R0       | create 1 new
             ready 1, scale 3  | R0 R0    | create 2 new
             ready 2           | R0 R0 R0 | settled
             image 1           | R0 R0 R0 | delete 2 (recreate), delete 1 (recreate), delete 0 (recreate)
             gone 1            | x0 . x0  | wait gone 2
             gone 2, gone 0    |          | create 0 new
             tick              | p1       | wait ready 0
             ready 0           | R1       | create 1 new
             ready 1           | R1 R1    | create 2 new
             ready 2           | R1 R1 R1 | settled",
        );
    }

    #[test]
    fn recreate_gets_past_broken_pods_finished_ones_and_those_that_are_no_longer_wanted() {
        tell(
            "recreate, scale 1 |          | create 0 new
             ready 0, scale 2  | R0       | create 1 new
             run 1, image 1    | R0 s0    | delete 1 (recreate), delete 0 (recreate)
             gone 0, gone 1    |          | create 0 new
             run 0, image 2    | s1       | delete 0 (recreate)
             gone 0            |          | create 0 new
             ready 0           | R2       | create 1 new
             ready 1           | R2 R2    | settled
             fail 1, scale 1, image 3 | R2 F2 | delete 1 (recreate), delete 0 (recreate)",
        );
    }

    #[test]
    fn changing_to_recreate_alone_touches_nothing_but_ends_a_roll_out_that_is_under_way() {
        tell(
            "scale 1          |       | create 0 new
             ready 0, scale 2 | R0    | create 1 new
             ready 1, recreate | R0 R0 | settled
             max 1, image 1   | R0 R0 | delete 1 (outdated)
             gone 1           | R0    | create 1 new
             recreate         | R0 p1 | delete 0 (recreate)
             tick             | x0 p1 | wait gone 0
             gone 0           | . p1  | create 0 new
             ready 0, ready 1 | R1 R1 | settled",
        );
    }

    #[test]
    fn recreate_can_be_paused_and_undone() {
        tell(
            "recreate, scale 1 |       | create 0 new
             ready 0, scale 2  | R0    | create 1 new
             ready 1, pause, image 1 | R0 R0 | settled
             evict 1, gone 1   | R0    | create 1 old
             ready 1, resume   | R0 R0 | delete 1 (recreate), delete 0 (recreate)
             gone 0, gone 1    |       | create 0 new
             ready 0, pause    | R1    | create 1 new
             resume, image 0   | R1 p1 | delete 1 (recreate), delete 0 (recreate)",
        );
    }

    #[test]
    fn recreate_gives_condemned_claims_their_owner_before_their_pod_goes() {
        tell(
            "recreate, scale 1 |       | create 0 new
             ready 0, scale 2  | R0    | create 1 new
             ready 1, scale 1, claim-owners 1, image 1 | R0 R0 | owners 1, delete 1 (recreate), delete 0 (recreate)",
        );
    }

    #[test]
    fn a_set_that_is_being_deleted_makes_and_removes_nothing() {
        tell(
            "scale 3             |    | create 0 new
             ready 0, delete-set | R0 | settled",
        );
    }

    #[test]
    fn an_ordered_deletion_takes_the_pods_down_in_reverse_whatever_their_health() {
        tell(
            "ordered-delete, scale 1 |          | hold deletion, create 0 new
             ready 0, scale 2        | R0       | create 1 new
             ready 1, scale 3        | R0 R0    | create 2 new
             unready 0, delete-set   | s0 R0 p0 | delete 2 (set deleted)
             tick                    | s0 R0 x0 | wait gone 2
             gone 2                  | s0 R0    | delete 1 (set deleted)
             gone 1                  | s0       | delete 0 (set deleted)
             gone 0                  |          | release deletion",
        );
    }

    #[test]
    fn an_orphaning_deletion_leaves_the_pods_alone_also_where_order_was_asked_for() {
        tell(
            "ordered-delete, scale 1 |    | hold deletion, create 0 new
             ready 0, orphan-set     | R0 | release deletion
             tick                    | R0 | settled",
        );
        tell(
            "ordered-delete, scale 1 |    | hold deletion, create 0 new
             ready 0, plain-delete   | R0 | release deletion",
        );
    }

    #[test]
    fn a_claim_that_is_going_stands_in_the_way() {
        tell(
            "claim-going 0, scale 1 |    | refuse 0
             claim-gone 0           |    | create 0 new",
        );
    }

    #[test]
    fn a_claim_of_an_earlier_pod_has_to_go_first() {
        tell(
            "old-claim 0, scale 1 |    | wait claim 0
             claim-gone 0         |    | create 0 new",
        );
    }

    #[test]
    fn a_pending_pod_gets_back_the_claim_that_it_lacks() {
        tell(
            "scale 1         |    | create 0 new
             claim-missing 0 | p0 | claims 0, wait ready 0
             claim-going 0   | p0 | refuse 0
             claim-gone 0, ready 0, claim-missing 0 | R0 | settled",
        );
    }

    #[test]
    fn owners_of_claims_are_put_right_before_their_pod_goes() {
        tell(
            "scale 1          |       | create 0 new
             ready 0, scale 2 | R0    | create 1 new
             ready 1, claim-owners 0 | R0 R0 | repair 0
             scale 1, claim-owners 1 | R0 R0 | owners 1, delete 1 (scale)",
        );
    }
}

mod parallel {
    use super::*;

    #[test]
    fn evictions_keep_to_both_budgets_and_to_the_order() {
        tell(
            "scale 3   |          | create 0 new, create 1 new, create 2 new
             all-ready, evicts, max 3, budget 2, image 1 | R0 R0 R0 | evict 2, evict 1, wait disruption 0
             gone 1, gone 2 | R0 | create 1 new, create 2 new, wait disruption 0
             ready 1, ready 2, budget 1 | R0 R1 R1 | evict 0",
        );
    }

    #[track_caller]
    fn tell(table: &str) {
        check(Policy::Parallel, table);
    }

    #[test]
    fn starts_and_stops_all_at_once() {
        tell(
            "scale 3      |          | create 0 new, create 1 new, create 2 new
             ready 1      | p0 R0 p0 | wait ready 0
             scale 1      | p0 R0 p0 | delete 2 (scale), delete 1 (scale), wait ready 0
             gone 1, gone 2, ready 0 | R0 | settled",
        );
    }

    #[test]
    fn rolls_out_one_by_one_all_the_same() {
        tell(
            "scale 3   |          | create 0 new, create 1 new, create 2 new
             all-ready | R0 R0 R0 | settled
             image 1   | R0 R0 R0 | delete 2 (outdated)
             tick      | R0 R0 x0 | wait gone 2
             gone 2    | R0 R0    | create 2 new
             tick      | R0 R0 p1 | wait ready 2
             ready 2   | R0 R0 R1 | delete 1 (outdated)",
        );
    }

    #[test]
    fn a_broken_roll_out_heals_with_the_next_template() {
        tell(
            "scale 3   |          | create 0 new, create 1 new, create 2 new
             all-ready | R0 R0 R0 | settled
             image 1   | R0 R0 R0 | delete 2 (outdated)
             gone 2    | R0 R0    | create 2 new
             image 2   | R0 R0 p1 | delete 2 (broken)
             gone 2    | R0 R0    | create 2 new
             ready 2   | R0 R0 R2 | delete 1 (outdated)",
        );
    }

    #[test]
    fn without_healing_what_is_outdated_and_unavailable_is_replaced_all_the_same() {
        tell(
            "scale 3, heal-off |  | create 0 new, create 1 new, create 2 new
             all-ready | R0 R0 R0 | settled
             image 1   | R0 R0 R0 | delete 2 (outdated)
             gone 2    | R0 R0    | create 2 new
             image 2   | R0 R0 p1 | delete 2 (outdated), wait ready 2",
        );
    }

    #[test]
    fn what_is_unavailable_anyway_is_replaced_for_free_and_counts_against_the_rest() {
        tell(
            "scale 4                     |             | create 0 new, create 1 new, create 2 new, create 3 new
             all-ready, max 2            | R0 R0 R0 R0 | settled
             unready 0, image 1          | s0 R0 R0 R0 | delete 0 (outdated), delete 3 (outdated), wait ready 0
             tick                        | x0 R0 R0 x0 | wait gone 0",
        );
    }

    #[test]
    fn what_is_ready_and_not_available_yet_is_waited_for() {
        tell(
            "scale 3             |          | create 0 new, create 1 new, create 2 new
             warm 0, warm 1, warm 2, image 1 | r0 r0 r0 | wait available 0
             ready 0, ready 1    | R0 R0 r0 | wait available 2
             ready 2             | R0 R0 R0 | delete 2 (outdated)",
        );
    }

    #[test]
    fn pods_with_other_volumes_go_within_the_budget_and_for_free_when_they_are_unavailable_anyway() {
        tell(
            "scale 3                 |          | create 0 new, create 1 new, create 2 new
             all-ready, unready 0, other-claims | s0' R0' R0' | delete 0 (outdated), wait ready 0
             gone 0                  | . R0' R0' | create 0 new
             ready 0                 | R0 R0' R0' | delete 2 (outdated)",
        );
    }

    #[test]
    fn recreate_makes_all_pods_at_once_where_order_does_not_matter() {
        tell(
            "recreate, scale 3 |          | create 0 new, create 1 new, create 2 new
             all-ready, image 1 | R0 R0 R0 | delete 2 (recreate), delete 1 (recreate), delete 0 (recreate)
             gone 0, gone 1    | . . x0   | wait gone 2
             gone 2            |          | create 0 new, create 1 new, create 2 new
             evict 0, gone 0, pause | . p1 p1 | create 0 new, wait ready 1",
        );
    }

    #[test]
    fn a_finished_pod_is_deleted_once_even_when_it_is_also_outdated() {
        tell(
            "scale 2         |       | create 0 new, create 1 new
             all-ready       | R0 R0 | settled
             fail 1, image 1 | R0 F0 | delete 1 (finished)",
        );
    }
}
