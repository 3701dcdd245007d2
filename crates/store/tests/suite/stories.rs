//! What a store does, told as tables.

use expect_test::expect;

use crate::story::check;

#[test]
fn a_key_is_written_only_where_the_expectation_holds() {
    check(&expect![[r#"
        create a 1    | @1
        create a 2    | unmet: a=1@1
        update a 2 @1 | @2
        update a 3 @1 | unmet: a=2@1-2
        replace b 1   | unmet: nothing
        put b 1       | @3
        replace b 2   | @4
        get a         | a=2@1-2
        get b         | b=2@3-4
        get c         | nothing
    "#]]);
}

#[test]
fn deleting_needs_a_key_and_makes_room_for_a_new_one() {
    check(&expect![[r#"
        delete a      | unmet: nothing
        create a 1    | @1
        delete a @9   | unmet: a=1@1
        delete a @1   | @2
        delete a      | unmet: nothing
        update a 2 @1 | unmet: nothing
        get a         | nothing
        create a 2    | @3
        get a         | a=2@3
    "#]]);
}

#[test]
fn a_range_is_in_key_order_with_a_limit_and_a_start() {
    check(&expect![[r#"
        put p/b 1                  | @1
        put p/a 1                  | @2
        put q/a 1                  | @3
        put p/c 1                  | @4
        put p 1                    | @5
        range p/                   | @5: p/a=1@2 p/b=1@1 p/c=1@4, 0 more
        range p/ limit 2           | @5: p/a=1@2 p/b=1@1, 1 more
        range p/ from p/b          | @5: p/b=1@1 p/c=1@4, 0 more
        range p/ from p/bb limit 1 | @5: p/c=1@4, 0 more
        range p/ from a            | @5: p/a=1@2 p/b=1@1 p/c=1@4, 0 more
        range p/ from q            | @5: , 0 more
        range *                    | @5: p=1@5 p/a=1@2 p/b=1@1 p/c=1@4 q/a=1@3, 0 more
        range x                    | @5: , 0 more
    "#]]);
}

#[test]
fn a_range_at_an_old_revision_is_what_it_was_then() {
    check(&expect![[r#"
        put a 1                     | @1
        put b 1                     | @2
        put a 2                     | @3
        delete b                    | @4
        put c 1                     | @5
        put b 2                     | @6
        range * at 0                | @0: , 0 more
        range * at 1                | @1: a=1@1, 0 more
        range * at 2                | @2: a=1@1 b=1@2, 0 more
        range * at 3                | @3: a=2@1-3 b=1@2, 0 more
        range * at 4                | @4: a=2@1-3, 0 more
        range * at 5                | @5: a=2@1-3 c=1@5, 0 more
        range * limit 1 at 3        | @3: a=2@1-3, 1 more
        range * from b limit 1 at 3 | @3: b=1@2, 0 more
        range * at 6                | @6: a=2@1-3 b=2@6 c=1@5, 0 more
        range * at 7                | revision 7 has not happened yet; the newest is 6
    "#]]);
}

#[test]
fn a_watch_tells_everything_after_a_revision_once_and_in_order() {
    check(&expect![[r#"
        put p/a 1               | @1
        put p/a 2               | @2
        watch early p/ after 0  | ok
        watch late p/ after 1   | ok
        watch future p/ after 3 | ok
        watch all * after 0     | ok
        watch other q after 0   | ok
        put p/b 1               | @3
        delete p/a              | @4
        put q 1                 | @5
        read early              | p/a=1@1 (was -), p/a=2@1-2 (was 1), p/b=1@3 (was -), p/a deleted@4 (was 2)
        read late               | p/a=2@1-2 (was 1), p/b=1@3 (was -), p/a deleted@4 (was 2)
        read future             | p/a deleted@4 (was 2)
        read all                | p/a=1@1 (was -), p/a=2@1-2 (was 1), p/b=1@3 (was -), p/a deleted@4 (was 2), q=1@5 (was -)
        read other              | q=1@5 (was -)
        put p/c 1               | @6
        read early              | p/c=1@6 (was -)
        read other              | nothing
    "#]]);
}

#[test]
fn compacted_history_is_refused_and_what_is_still_valid_stays() {
    check(&expect![[r#"
        put a 1           | @1
        put b 1           | @2
        put a 2           | @3
        delete b          | @4
        put c 1           | @5
        compact 4         | ok
        range * at 2      | revision 2 has been compacted; the oldest kept is 3
        range * at 3      | @3: a=2@1-3 b=1@2, 0 more
        range * at 4      | @4: a=2@1-3, 0 more
        watch w * after 2 | revision 2 has been compacted; the oldest kept is 3
        watch w * after 3 | ok
        read w            | b deleted@4 (was 1), c=1@5 (was -)
        history *         | b deleted@4 (was 1), c=1@5 (was -)
        compact 2         | ok
        history b         | b deleted@4 (was 1)
        compact 100       | ok
        history *         | c=1@5 (was -)
        range *           | @5: a=2@1-3 c=1@5, 0 more
    "#]]);
}

#[test]
fn a_restart_changes_nothing() {
    check(&expect![[r#"
        put a 1           | @1
        put b 1           | @2
        put a 2 lazy      | @3
        delete b          | @4
        compact 2         | ok
        reopen            | @4
        get a             | a=2@1-3
        history *         | b=1@2 (was -), a=2@1-3 (was 1), b deleted@4 (was 1)
        range * at 1      | @1: a=1@1, 0 more
        range * at 0      | revision 0 has been compacted; the oldest kept is 1
        watch w * after 2 | ok
        read w            | a=2@1-3 (was 1), b deleted@4 (was 1)
        create b 2        | @5
        read w            | b=2@5 (was -)
        delete b          | @6
        compact 100       | ok
        reopen            | @6
        range *           | @6: a=2@1-3, 0 more
        history *         | b deleted@6 (was 2)
        create b 3        | @7
    "#]]);
}

#[test]
fn a_restart_of_a_store_in_which_everything_was_deleted_goes_on_counting() {
    check(&expect![[r#"
        put a 1           | @1
        delete a          | @2
        compact 100       | ok
        reopen            | @2
        range *           | @2: , 0 more
        watch w * after 0 | revision 0 has been compacted; the oldest kept is 1
        create a 2        | @3
        reopen            | @3
        get a             | a=2@3
        history a         | a deleted@2 (was 1), a=2@3 (was -)
    "#]]);
}

#[test]
fn lazy_writes_are_seen_at_once() {
    check(&expect![[r#"
        watch w * after 0 | ok
        put a 1 lazy      | @1
        put a 2 lazy      | @2
        get a             | a=2@1-2
        read w            | a=1@1 (was -), a=2@1-2 (was 1)
        delete a lazy     | @3
        read w            | a deleted@3 (was 2)
    "#]]);
}

#[test]
fn a_closed_store_answers_reads_and_nothing_else() {
    check(&expect![[r#"
        put a 1           | @1
        watch w * after 0 | ok
        close             | ok
        put a 2           | the store is closed
        compact 1         | the store is closed
        close             | ok
        get a             | a=1@1
        read w            | a=1@1 (was -), closed
        watch v * after 0 | ok
        read v            | a=1@1 (was -), closed
    "#]]);
}
