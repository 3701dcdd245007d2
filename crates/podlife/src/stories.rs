//! What the node does with a pod, story by story.

use expect_test::{Expect, expect};

use crate::scenario::tell;

#[track_caller]
fn check(story: &str, expected: Expect) {
    expected.assert_eq(&tell(story));
}

#[test]
fn a_pod_without_probes_is_ready_as_soon_as_it_runs() {
    check(
        "main:a main:b",
        expect![[r#"
        bind | mount, sandbox, start a, start b | Running Ready a:up b:up
    "#]],
    );
}

#[test]
fn a_crashing_container_is_restarted_at_once_and_then_backs_off_from_10_s() {
    check(
        "main:a
         exit a 1
         +1s
         exit a 1
         +10s
         exit a 1
         +5s
         +15s
         exit a 1",
        expect![[r#"
            bind     | mount, sandbox, start a | Running Ready a:up
            exit a 1 | start a#1               | Running Ready a:up
            +1s      | -                       | Running Ready a:up
            exit a 1 | -                       | Running NotReady a:CrashLoopBackOff wake 11
            +10s     | start a#2               | Running Ready a:up
            exit a 1 | -                       | Running NotReady a:CrashLoopBackOff wake 31
            +5s      | -                       | Running NotReady a:CrashLoopBackOff wake 31
            +15s     | start a#3               | Running Ready a:up
            exit a 1 | -                       | Running NotReady a:CrashLoopBackOff wake 71
        "#]],
    );
}

#[test]
fn a_start_that_the_node_did_not_live_to_see_is_no_restart_and_never_makes_two() {
    check(
        "main:a
         killed after create a
         exit a 1
         killed after create a
         killed in start a
         +10s
         runs a
         exit a 1",
        expect![[r#"
            bind                  | mount, sandbox, start a | Running Ready a:up
            killed after create a | mount, start a          | Running Ready a:up
            exit a 1              | start a#1               | Running Ready a:up
            killed after create a | mount, start a#1        | Running Ready a:up
            killed in start a     | mount                   | Running NotReady a:ContainerCreating
            +10s                  | -                       | Running NotReady a:ContainerCreating
            runs a                | -                       | Running Ready a:up
            exit a 1              | start a#2               | Running Ready a:up
        "#]],
    );
}

#[test]
fn a_pod_that_is_asked_hands_over_once_and_answers_until_it_is_heard() {
    check(
        "main:a main:b
         ask 12:01
         unask
         command 3
         break answers
         ask 12:02
         mend
         +30s
         ask operator 12:03
         delete 30",
        expect![[r#"
            bind               | mount, sandbox, start a, start b | Running Ready a:up b:up
            ask 12:01          | hand over in a, answer 0         | Running Ready a:up b:up
            unask              | -                                | Running Ready a:up b:up
            command 3          | -                                | Running Ready a:up b:up
            break answers      | -                                | Running Ready a:up b:up
            ask 12:02          | hand over in a, answer 3         | Running Ready a:up b:up wake 1
            mend               | -                                | Running Ready a:up b:up wake 1
            +30s               | answer 3                         | Running Ready a:up b:up
            ask operator 12:03 | -                                | Running Ready a:up b:up
            delete 30          | stop a in 30s, stop b in 30s     | Running Ready a:up b:up
        "#]],
    );
}

#[test]
fn a_container_that_is_down_hands_over_when_it_is_back_and_a_node_that_forgets_does_it_again() {
    check(
        "main:a
         exit a 1
         exit a 1
         ask 12:01
         +10s
         break answers
         ask 12:02
         node restarts
         mend
         +60s",
        expect![[r#"
            bind          | mount, sandbox, start a             | Running Ready a:up
            exit a 1      | start a#1                           | Running Ready a:up
            exit a 1      | -                                   | Running NotReady a:CrashLoopBackOff wake 10
            ask 12:01     | -                                   | Running NotReady a:CrashLoopBackOff wake 10
            +10s          | start a#2, hand over in a, answer 0 | Running Ready a:up
            break answers | -                                   | Running Ready a:up
            ask 12:02     | hand over in a, answer 0            | Running Ready a:up wake 11
            node restarts | mount, hand over in a, answer 0     | Running Ready a:up wake 11
            mend          | -                                   | Running Ready a:up wake 11
            +60s          | answer 0                            | Running Ready a:up
        "#]],
    );
}

#[test]
fn ten_good_minutes_forget_the_back_off() {
    check(
        "main:a
         exit a 1
         +2s
         exit a 1
         +10s
         +700s
         exit a 1",
        expect![[r#"
            bind     | mount, sandbox, start a | Running Ready a:up
            exit a 1 | start a#1               | Running Ready a:up
            +2s      | -                       | Running Ready a:up
            exit a 1 | -                       | Running NotReady a:CrashLoopBackOff wake 12
            +10s     | start a#2               | Running Ready a:up
            +700s    | -                       | Running Ready a:up
            exit a 1 | start a#3               | Running Ready a:up
        "#]],
    );
}

#[test]
fn init_containers_run_in_order_and_are_retried() {
    check(
        "init:a init:b main:m
         exit a 1
         exit a 0
         exit b 0",
        expect![[r#"
            bind     | mount, sandbox, start a | Pending NotReady a:running b:PodInitializing m:PodInitializing
            exit a 1 | start a#1               | Pending NotReady a:running b:PodInitializing m:PodInitializing
            exit a 0 | start b                 | Pending NotReady a:Completed(0) b:running m:PodInitializing
            exit b 0 | start m                 | Running Ready a:Completed(0) b:Completed(0) m:up
        "#]],
    );
}

#[test]
fn a_sidecar_must_have_started_before_the_next_container() {
    check(
        "sidecar:s main:m startup:s
         probe startup s fail
         probe startup s ok
         exit s 1
         delete 30
         exit m 0
         exit s 0",
        expect![[r#"
            bind                 | mount, sandbox, start s                | Pending NotReady s:running m:PodInitializing wake 0
            probe startup s fail | -                                      | Pending NotReady s:running m:PodInitializing wake 0.025
            probe startup s ok   | start m                                | Running Ready s:up m:up
            exit s 1             | start s#1                              | Running NotReady s:running m:up wake 0.025
            delete 30            | stop m in 30s                          | Running NotReady s:running m:up
            exit m 0             | stop s in 30s                          | Running NotReady s:running m:Completed(0)
            exit s 0             | stop sandbox, teardown, delete, forget | forgotten
        "#]],
    );
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    check(
        "init:a main:m policy=Never
         exit a 3",
        expect![[r#"
            bind     | mount, sandbox, start a | Pending NotReady a:running m:PodInitializing
            exit a 3 | stop sandbox, teardown  | Failed NotReady a:Error(3) m:PodInitializing
        "#]],
    );
}

#[test]
fn a_job_succeeds_when_all_its_containers_have() {
    check(
        "sidecar:s main:a main:b policy=OnFailure
         exit a 0
         exit b 1
         exit b 0
         exit s 143",
        expect![[r#"
            bind       | mount, sandbox, start s, start a, start b | Running Ready s:up a:up b:up
            exit a 0   | -                                         | Running NotReady s:up a:Completed(0) b:up
            exit b 1   | start b#1                                 | Running NotReady s:up a:Completed(0) b:up
            exit b 0   | stop s in 30s                             | Running NotReady s:up a:Completed(0) b:Completed(0)
            exit s 143 | stop sandbox, teardown                    | Succeeded NotReady s:Error(143) a:Completed(0) b:Completed(0)
        "#]],
    );
}

#[test]
fn a_pod_that_never_restarts_fails_with_its_container() {
    check(
        "main:a main:b policy=Never
         oom a
         exit b 0
         delete 30",
        expect![[r#"
            bind      | mount, sandbox, start a, start b | Running Ready a:up b:up
            oom a     | -                                | Running NotReady a:OOMKilled(137) b:up
            exit b 0  | stop sandbox, teardown           | Failed NotReady a:OOMKilled(137) b:Completed(0)
            delete 30 | delete, forget                   | forgotten
        "#]],
    );
}

#[test]
fn readiness_comes_with_the_first_good_answer_and_goes_after_three_bad_ones() {
    check(
        "main:a readiness:a
         probe readiness a fail x5
         probe readiness a ok
         probe readiness a fail
         probe readiness a fail
         probe readiness a fail
         probe readiness a ok",
        expect![[r#"
            bind                      | mount, sandbox, start a | Running NotReady a:running wake 0
            probe readiness a fail x5 | -                       | Running NotReady a:running wake 0.775
            probe readiness a ok      | -                       | Running Ready a:up wake 10
            probe readiness a fail    | -                       | Running Ready a:up wake 20
            probe readiness a fail    | -                       | Running Ready a:up wake 30
            probe readiness a fail    | -                       | Running NotReady a:running wake 40
            probe readiness a ok      | -                       | Running Ready a:up wake 50
        "#]],
    );
}

#[test]
fn three_failed_liveness_probes_restart_the_container() {
    check(
        "main:a liveness:a grace=20
         probe liveness a fail x2
         probe liveness a fail
         exit a 137",
        expect![[r#"
            bind                     | mount, sandbox, start a  | Running Ready a:up wake 0
            probe liveness a fail x2 | -                        | Running Ready a:up wake 20
            probe liveness a fail    | stop a in 20s (liveness) | Running Ready a:up
            exit a 137               | start a#1                | Running Ready a:up wake 20
        "#]],
    );
}

#[test]
fn liveness_waits_for_startup() {
    check(
        "main:a liveness:a startup:a
         probe startup a fail
         probe startup a ok
         probe liveness a fail x3
         exit a 137",
        expect![[r#"
            bind                     | mount, sandbox, start a  | Running NotReady a:running wake 0
            probe startup a fail     | -                        | Running NotReady a:running wake 0.025
            probe startup a ok       | -                        | Running Ready a:up wake 0
            probe liveness a fail x3 | stop a in 30s (liveness) | Running Ready a:up
            exit a 137               | start a#1                | Running NotReady a:running wake 20.025
        "#]],
    );
}

#[test]
fn deletion_stops_containers_within_the_grace_and_then_the_object_goes() {
    check(
        "main:a main:b
         delete 30
         exit a 0
         exit b 137",
        expect![[r#"
            bind       | mount, sandbox, start a, start b       | Running Ready a:up b:up
            delete 30  | stop a in 30s, stop b in 30s           | Running Ready a:up b:up
            exit a 0   | -                                      | Running NotReady a:Completed(0) b:up
            exit b 137 | stop sandbox, teardown, delete, forget | forgotten
        "#]],
    );
}

#[test]
fn a_second_deletion_shortens_the_grace() {
    check(
        "main:a
         delete 30
         +5s
         delete 1
         exit a 137",
        expect![[r#"
            bind       | mount, sandbox, start a                | Running Ready a:up
            delete 30  | stop a in 30s                          | Running Ready a:up
            +5s        | -                                      | Running Ready a:up
            delete 1   | stop a in 2s                           | Running Ready a:up
            exit a 137 | stop sandbox, teardown, delete, forget | forgotten
        "#]],
    );
}

#[test]
fn an_object_deleted_by_force_is_still_taken_down() {
    check(
        "main:a grace=30
         gone
         exit a 0",
        expect![[r#"
            bind     | mount, sandbox, start a        | Running Ready a:up
            gone     | stop a in 30s                  | Running Ready a:up
            exit a 0 | stop sandbox, teardown, forget | forgotten
        "#]],
    );
}

#[test]
fn an_image_that_cannot_be_pulled_backs_off() {
    check(
        "init:i main:a
         break a ErrImagePull not found
         exit i 0
         +1s
         +9s
         +1s
         mend
         +19s",
        expect![[r#"
            bind                           | mount, sandbox, start i | Pending NotReady i:running a:PodInitializing
            break a ErrImagePull not found | -                       | Pending NotReady i:running a:PodInitializing
            exit i 0                       | start a fails           | Pending NotReady i:Completed(0) a:ErrImagePull wake 1
            +1s                            | -                       | Pending NotReady i:Completed(0) a:ImagePullBackOff wake 10
            +9s                            | start a fails           | Pending NotReady i:Completed(0) a:ErrImagePull wake 11
            +1s                            | -                       | Pending NotReady i:Completed(0) a:ImagePullBackOff wake 30
            mend                           | -                       | Pending NotReady i:Completed(0) a:ImagePullBackOff wake 30
            +19s                           | start a                 | Running Ready i:Completed(0) a:up
        "#]],
    );
}

#[test]
fn a_dead_sandbox_is_replaced_with_all_its_containers() {
    check(
        "init:i main:a
         exit i 0
         sandbox dies
         exit i 0",
        expect![[r#"
            bind         | mount, sandbox, start i | Pending NotReady i:running a:PodInitializing
            exit i 0     | start a                 | Running Ready i:Completed(0) a:up
            sandbox dies | sandbox, start i#1      | Running NotReady i:running a:Error(137)
            exit i 0     | start a#1               | Running Ready i:Completed(0) a:up
        "#]],
    );
}

#[test]
fn a_missing_config_map_is_looked_for_again_when_it_appears() {
    check(
        "init:i main:a
         break a CreateContainerConfigError configmap x not found
         exit i 0
         +1s
         mend
         changed",
        expect![[r#"
            bind                                                     | mount, sandbox, start i | Pending NotReady i:running a:PodInitializing
            break a CreateContainerConfigError configmap x not found | -                       | Pending NotReady i:running a:PodInitializing
            exit i 0                                                 | start a fails           | Pending NotReady i:Completed(0) a:CreateContainerConfigError wake 10
            +1s                                                      | -                       | Pending NotReady i:Completed(0) a:CreateContainerConfigError wake 10
            mend                                                     | -                       | Pending NotReady i:Completed(0) a:CreateContainerConfigError wake 10
            changed                                                  | start a                 | Running Ready i:Completed(0) a:up
        "#]],
    );
}

#[test]
fn old_sandboxes_are_removed() {
    check(
        "main:a
         sandbox dies
         sandbox dies
         +10s
         sandbox dies",
        expect![[r#"
            bind         | mount, sandbox, start a       | Running Ready a:up
            sandbox dies | sandbox, start a#1            | Running Ready a:up
            sandbox dies | sandbox, remove s1, start a#2 | Running Ready a:up
            +10s         | -                             | Running Ready a:up
            sandbox dies | sandbox, remove s3, start a#3 | Running Ready a:up
        "#]],
    );
}

#[test]
fn the_deadline_fails_the_pod() {
    check(
        "main:a deadline=60
         +30s
         +30s
         exit a 143",
        expect![[r#"
            bind       | mount, sandbox, start a | Running Ready a:up wake 60
            +30s       | -                       | Running Ready a:up wake 60
            +30s       | stop a in 30s           | Running Ready a:up
            exit a 143 | stop sandbox, teardown  | Failed NotReady a:Error(143) DeadlineExceeded
        "#]],
    );
}

#[test]
fn a_changed_image_restarts_the_container() {
    check(
        "main:a
         image a i:2
         exit a 0",
        expect![[r#"
            bind        | mount, sandbox, start a | Running Ready a:up
            image a i:2 | stop a in 30s (changed) | Running Ready a:up
            exit a 0    | start a#1               | Running Ready a:up
        "#]],
    );
}

#[test]
fn a_restarted_node_takes_a_running_pod_up_again() {
    check(
        "main:a readiness:a
         probe readiness a ok
         node restarts
         +3s",
        expect![[r#"
            bind                 | mount, sandbox, start a | Running NotReady a:running wake 0
            probe readiness a ok | -                       | Running Ready a:up wake 10
            node restarts        | mount                   | Running Ready a:up wake 0
            +3s                  | -                       | Running Ready a:up wake 0
        "#]],
    );
}
