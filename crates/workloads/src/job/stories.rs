//! Stories of Jobs: what happens | what is done | the status.
//!
//! In the last column: active, succeeded/failed (waiting to be counted), indexes, and the conditions that are true.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{Observed, Plan, make, new_pod, plan};

struct World {
    job: Job,
    pods: Vec<Pod>,
    made: usize,
    now: i64,
}

impl World {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.now).expect("in range")
    }

    fn happen(&mut self, event: &str) {
        let (verb, arg) = event.split_once(' ').unwrap_or((event, ""));
        let now = self.now();
        match verb {
            "tick" => {}
            "wait" => self.now += arg.parse::<i64>().expect("seconds"),
            "suspend" => self.job.spec.as_mut().expect("spec").suspend = Some(arg == "on"),
            "parallel" => self.job.spec.as_mut().expect("spec").parallelism = arg.parse().ok(),
            "run" | "succeed" | "fail" => {
                let phase = match verb {
                    "run" => "Running",
                    "succeed" => "Succeeded",
                    _ => "Failed",
                };
                let pod = self.pods.iter_mut().find(|pod| pod.metadata.name.as_deref() == Some(arg)).expect("exists");
                let status = json!({"phase": phase, "conditions": [
                    {"type": "Ready", "status": if verb == "run" { "True" } else { "False" }, "lastTransitionTime": now.to_string()},
                ]});
                pod.status = serde_json::from_value(status).expect("a status");
            }
            other => panic!("unknown event {other}"),
        }
    }

    fn obey(&mut self, plan: &Plan) {
        for index in &plan.create {
            let mut pod = new_pod(&self.job, *index);
            let name = format!("p{}", self.made);
            self.made += 1;
            pod.metadata.uid = Some(name.clone());
            pod.metadata.name = Some(name);
            pod.metadata.creation_timestamp = Some(Time(self.now()));
            self.pods.push(pod);
        }
        self.pods.retain(|pod| !plan.delete.iter().any(|gone| gone.metadata.uid == pod.metadata.uid));
        for pod in &mut self.pods {
            if plan.count.iter().any(|counted| counted.metadata.uid == pod.metadata.uid) {
                pod.metadata.finalizers = None;
            }
        }
        self.job.status = Some(plan.status.clone());
    }
}

fn words(plan: &Plan) -> String {
    let name = |pod: &Arc<Pod>| pod.metadata.name.clone().unwrap_or_default();
    let mut words: Vec<String> = plan
        .create
        .iter()
        .map(|index| {
            index.map_or_else(|| "create".to_owned(), |(index, failures)| format!("create #{index} f{failures}"))
        })
        .collect();
    words.extend(plan.delete.iter().map(|pod| format!("delete {}", name(pod))));
    words.extend(plan.count.iter().map(|pod| format!("count {}", name(pod))));
    words.extend(plan.happenings.iter().map(|happening| format!("tell {}", happening.reason)));
    words.extend(plan.expired.then(|| "expire".to_owned()));
    words.join(", ")
}

fn draw(plan: &Plan) -> String {
    let status = &plan.status;
    let waiting = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let length = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
    let conditions = status.conditions.iter().flatten().filter(|condition| condition.status == "True");
    let mut text = format!(
        "a{} {}/{} (+{}/{})",
        status.active.unwrap_or(0),
        status.succeeded.unwrap_or(0),
        status.failed.unwrap_or(0),
        length(&waiting.succeeded),
        length(&waiting.failed)
    );
    for indexes in [&status.completed_indexes, &status.failed_indexes].into_iter().flatten() {
        text += &format!(" [{indexes}]");
    }
    for condition in conditions {
        text += &format!(" {}", condition.type_);
    }
    text
}

#[track_caller]
fn check(spec: Value, table: &str) {
    let mut fields = json!({"template": {"spec": {"containers": [], "restartPolicy": "Never"}}});
    for (key, value) in spec.as_object().expect("fields") {
        fields[key] = value.clone();
    }
    let job = json!({"metadata": {"name": "job", "uid": "j"}, "spec": fields});
    let mut world = World { job: serde_json::from_value(job).expect("a job"), pods: vec![], made: 0, now: 1_000_000 };
    let (mut actual, mut expected) = (String::new(), String::new());
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for event in cells[0].split(", ") {
            world.happen(event);
        }
        let pods: Vec<_> = world.pods.iter().cloned().map(Arc::new).collect();
        let plan = plan(&Observed { job: &world.job, pods: &pods, now: world.now() });
        actual += &format!("{:<20}| {:<36}| {}\n", cells[0], words(&plan), draw(&plan));
        expected += &format!("{:<20}| {:<36}| {}\n", cells[0], cells[1], cells[2]);
        world.obey(&plan);
    }
    assert!(actual == expected, "\n--- expected ---\n{expected}\n--- actual ---\n{actual}");
    assert!(world.pods.iter().filter(|pod| make::is_tracked(pod)).all(|pod| !crate::pod::is_finished(pod)));
}

#[test]
fn runs_to_completion_and_counts_each_pod_once() {
    check(
        json!({"completions": 2, "parallelism": 1}),
        "tick            | create           | a1 0/0 (+0/0)
         run p0          |                  | a1 0/0 (+0/0)
         succeed p0      | create, count p0 | a1 0/0 (+1/0)
         tick            |                  | a1 1/0 (+0/0)
         succeed p1      | count p1         | a0 1/0 (+1/0) SuccessCriteriaMet
         tick            | tell Completed   | a0 2/0 (+0/0) SuccessCriteriaMet Complete
         tick            |                  | a0 2/0 (+0/0) SuccessCriteriaMet Complete",
    );
}

#[test]
fn failures_are_retried_ever_more_slowly_up_to_the_limit() {
    check(
        json!({"completions": 1, "parallelism": 1, "backoffLimit": 2}),
        "tick      | create                    | a1 0/0 (+0/0)
         fail p0   | count p0                  | a0 0/0 (+0/1)
         wait 9    |                           | a0 0/1 (+0/0)
         wait 1    | create                    | a1 0/1 (+0/0)
         fail p1   | count p1                  | a0 0/1 (+0/1)
         wait 19   |                           | a0 0/2 (+0/0)
         wait 1    | create                    | a1 0/2 (+0/0)
         fail p2   | count p2                  | a0 0/2 (+0/1) FailureTarget
         tick      | tell BackoffLimitExceeded | a0 0/3 (+0/0) FailureTarget Failed",
    );
}

#[test]
fn a_failed_job_ends_the_pods_that_still_run() {
    check(
        json!({"completions": 3, "parallelism": 2, "backoffLimit": 0}),
        "tick      | create, create            | a2 0/0 (+0/0)
         fail p0   | delete p1, count p0       | a0 0/0 (+0/1) FailureTarget
         tick      | tell BackoffLimitExceeded | a0 0/1 (+0/0) FailureTarget Failed",
    );
}

#[test]
fn an_indexed_job_runs_each_index_once() {
    check(
        json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed"}),
        "tick          | create #0 f0, create #1 f0 | a2 0/0 (+0/0)
         succeed p1    | create #2 f0, count p1     | a2 1/0 (+0/0) [1]
         succeed p0    | count p0                   | a1 2/0 (+0/0) [0,1]
         succeed p2    | count p2                   | a0 3/0 (+0/0) [0-2] SuccessCriteriaMet
         tick          | tell Completed             | a0 3/0 (+0/0) [0-2] SuccessCriteriaMet Complete",
    );
}

#[test]
fn with_a_limit_per_index_the_others_go_on() {
    check(
        json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1}),
        "tick        | create #0 f0, create #1 f0   | a2 0/0 (+0/0)
         fail p0     | create #0 f1, count p0       | a2 0/0 (+0/1)
         fail p2     | count p2                     | a1 0/1 (+0/1) [0]
         succeed p1  | count p1                     | a0 1/2 (+0/0) [1] [0] FailureTarget
         tick        | tell FailedIndexes           | a0 1/2 (+0/0) [1] [0] FailureTarget Failed",
    );
}

#[test]
fn a_success_policy_ends_the_job_early() {
    check(
        json!({
            "completions": 3, "parallelism": 3, "completionMode": "Indexed",
            "successPolicy": {"rules": [{"succeededIndexes": "1,2", "succeededCount": 1}]},
        }),
        "tick       | create #0 f0, create #1 f0, create #2 f0 | a3 0/0 (+0/0)
         succeed p0 | count p0                                 | a2 1/0 (+0/0) [0]
         succeed p2 | delete p1, count p2                      | a0 2/0 (+0/0) [0,2] SuccessCriteriaMet
         tick       | tell Completed                           | a0 2/0 (+0/0) [0,2] SuccessCriteriaMet Complete",
    );
}

#[test]
fn suspending_ends_the_pods_and_resuming_starts_anew() {
    check(
        json!({"completions": 1, "parallelism": 1, "activeDeadlineSeconds": 60}),
        "tick                 | create                    | a1 0/0 (+0/0)
         wait 50, suspend on  | delete p0, tell Suspended | a0 0/0 (+0/0) Suspended
         wait 50              |                           | a0 0/0 (+0/0) Suspended
         suspend off          | create, tell Resumed      | a1 0/0 (+0/0)
         wait 59              |                           | a1 0/0 (+0/0)
         wait 1               | delete p1                 | a0 0/0 (+0/0) FailureTarget
         tick                 | tell DeadlineExceeded     | a0 0/0 (+0/0) FailureTarget Failed",
    );
}

#[test]
fn a_work_queue_ends_with_the_first_success_and_the_last_pod() {
    check(
        json!({"parallelism": 2}),
        "tick        | create, create | a2 0/0 (+0/0)
         succeed p0  | count p0       | a1 0/0 (+1/0)
         tick        |                | a1 1/0 (+0/0)
         succeed p1  | count p1       | a0 1/0 (+1/0) SuccessCriteriaMet
         tick        | tell Completed | a0 2/0 (+0/0) SuccessCriteriaMet Complete",
    );
}

#[test]
fn fewer_are_run_when_parallelism_shrinks_and_a_finished_job_expires() {
    check(
        json!({"completions": 2, "parallelism": 2, "ttlSecondsAfterFinished": 30}),
        "tick                    | create, create | a2 0/0 (+0/0)
         run p0, parallel 1      | delete p1      | a1 0/0 (+0/0)
         succeed p0              | create, count p0 | a1 0/0 (+1/0)
         succeed p2              | count p2       | a0 1/0 (+1/0) SuccessCriteriaMet
         tick                    | tell Completed | a0 2/0 (+0/0) SuccessCriteriaMet Complete
         wait 29                 |                | a0 2/0 (+0/0) SuccessCriteriaMet Complete
         wait 1                  | expire         | a0 2/0 (+0/0) SuccessCriteriaMet Complete",
    );
}
