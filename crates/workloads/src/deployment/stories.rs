//! Stories of roll-outs, told as tables.
//!
//! Left: what happens. Middle: each ReplicaSet, oldest template first, as `template:wanted/available`.
//! Right: the steps, and the reason of the condition Progressing.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{Action, Observed, REVISION_ANNOTATION, plan};

struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: i64,
    old_pods_run: bool,
}

impl World {
    fn new(strategy: serde_json::Value) -> Self {
        let deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "uid": "d", "generation": 1},
            "spec": {
                "replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
                "revisionHistoryLimit": 1, "progressDeadlineSeconds": 600,
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "0"}]}},
            },
        }));
        Self { deployment: deployment.expect("a deployment"), sets: vec![], now: 1_000_000, old_pods_run: false }
    }

    fn happen(&mut self, event: &str) {
        let (verb, arg) = event.split_once(' ').unwrap_or((event, "0"));
        let spec = &mut self.deployment.spec;
        match verb {
            "tick" => {}
            "scale" => spec.replicas = arg.parse().ok(),
            "image" => spec.template.spec.as_mut().expect("spec").containers[0].image = Some(arg.to_owned()),
            "pause" => spec.paused = Some(true),
            "resume" => spec.paused = None,
            "ready" => self.pods_follow(true),
            "stuck" => self.pods_follow(false),
            "old-pods" => self.old_pods_run = arg == "run",
            "wait" => self.now += arg.parse::<i64>().expect("seconds"),
            other => panic!("unknown event: {other}"),
        }
    }

    /// Pods are made and removed as wanted; with `ready` all of them become available.
    fn pods_follow(&mut self, ready: bool) {
        for set in &mut self.sets {
            let wanted = set.spec.replicas.unwrap_or(0);
            let before = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
            let available = if ready { wanted } else { before.min(wanted) };
            set.status = Some(ReplicaSetStatus {
                replicas: wanted,
                ready_replicas: Some(available),
                available_replicas: Some(available),
                ..ReplicaSetStatus::default()
            });
        }
    }

    fn obey(&mut self, action: &Action) {
        match action {
            Action::Create { set } => {
                let mut set = (**set).clone();
                let age =
                    Timestamp::from_second(1000 + i64::try_from(self.sets.len()).expect("few")).expect("in range");
                set.metadata.creation_timestamp = Some(Time(age));
                self.sets.push(set);
            }
            Action::Update { set, .. } => {
                let old = self.sets.iter_mut().find(|old| old.metadata.name == set.metadata.name).expect("exists");
                *old = (**set).clone();
            }
            Action::Delete { name } => self.sets.retain(|set| set.metadata.name.as_ref() != Some(name)),
            Action::Annotate { revision } => {
                let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                annotations.insert(REVISION_ANNOTATION.to_owned(), revision.clone());
            }
        }
    }

    fn draw(&self) -> String {
        let cell = |set: &ReplicaSet| {
            let available = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
            format!("{}:{}/{available}", image(set), set.spec.replicas.unwrap_or(0))
        };
        self.sets.iter().map(cell).collect::<Vec<_>>().join(" ")
    }
}

fn image(set: &ReplicaSet) -> &str {
    let spec = set.spec.template.as_ref().and_then(|template| template.spec.as_ref()).expect("a template");
    spec.containers[0].image.as_deref().expect("an image")
}

fn words(world: &World, action: &Action) -> String {
    match action {
        Action::Create { set } => format!("create {} x{}", image(set), set.spec.replicas.unwrap_or(0)),
        Action::Update { set, scaled: Some((from, to)) } => format!("{} {from}->{to}", image(set)),
        Action::Update { set, scaled: None } => format!("note {}", image(set)),
        Action::Delete { name } => {
            let set = world.sets.iter().find(|set| set.metadata.name.as_ref() == Some(name)).expect("exists");
            format!("delete {}", image(set))
        }
        Action::Annotate { revision } => format!("revision {revision}"),
    }
}

#[track_caller]
fn check(strategy: serde_json::Value, table: &str) {
    let mut world = World::new(strategy);
    let (mut actual, mut expected) = (String::new(), String::new());
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for event in cells[0].split(", ") {
            world.happen(event);
        }
        let sets: Vec<_> = world.sets.iter().cloned().map(Arc::new).collect();
        let now = Timestamp::from_second(world.now).expect("in range");
        let observed = Observed { deployment: &world.deployment, sets: &sets, old_pods_run: world.old_pods_run, now };
        let plan = plan(&observed);
        let steps: Vec<_> = plan.actions.iter().map(|action| words(&world, action)).collect();
        let progress = plan.status.conditions.iter().flatten().find(|c| c.type_.as_deref() == Some("Progressing"));
        let progress = progress.and_then(|condition| condition.reason.clone()).unwrap_or_default();
        actual += &format!("{:<22}| {:<16}| {:<38}| {progress}\n", cells[0], world.draw(), steps.join(", "));
        expected += &format!("{:<22}| {:<16}| {:<38}| {}\n", cells[0], cells[1], cells[2], cells[3]);
        for action in &plan.actions {
            world.obey(action);
        }
        world.deployment.status = Some(plan.status);
    }
    assert!(actual == expected, "\n--- expected ---\n{expected}\n--- actual ---\n{actual}");
}

fn rolling(surge: i32, unavailable: i32) -> serde_json::Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

#[test]
fn rolls_out_within_surge_and_unavailability() {
    check(
        rolling(1, 1),
        "scale 3        |             | create 0 x3, revision 1  | NewReplicaSetCreated
         ready          | 0:3/3       |                          | NewReplicaSetAvailable
         image 1        | 0:3/3       | create 1 x1, 0 3->2, revision 2 | NewReplicaSetCreated
         stuck          | 0:2/2 1:1/0 | 1 1->2                   | ReplicaSetUpdated
         stuck          | 0:2/2 1:2/0 |                          | ReplicaSetUpdated
         ready          | 0:2/2 1:2/2 | 0 2->0                   | ReplicaSetUpdated
         ready          | 0:0/0 1:2/2 | 1 2->3                   | ReplicaSetUpdated
         ready          | 0:0/0 1:3/3 |                          | NewReplicaSetAvailable",
    );
}

#[test]
fn without_surge_it_makes_room_first() {
    check(
        rolling(0, 1),
        "scale 2        |             | create 0 x2, revision 1  | NewReplicaSetCreated
         ready          | 0:2/2       |                          | NewReplicaSetAvailable
         image 1        | 0:2/2       | create 1 x0, 0 2->1, revision 2 | NewReplicaSetCreated
         ready          | 0:1/1 1:0/0 | 1 0->1                   | ReplicaSetUpdated
         stuck          | 0:1/1 1:1/0 |                          | ReplicaSetUpdated
         ready          | 0:1/1 1:1/1 | 0 1->0                   | ReplicaSetUpdated
         ready          | 0:0/0 1:1/1 | 1 1->2                   | ReplicaSetUpdated",
    );
}

#[test]
fn a_broken_roll_out_takes_nothing_down_that_is_needed_and_runs_into_its_deadline() {
    check(
        rolling(1, 0),
        "scale 2   |             | create 0 x2, revision 1         | NewReplicaSetCreated
         ready     | 0:2/2       |                                 | NewReplicaSetAvailable
         image 1   | 0:2/2       | create 1 x1, revision 2         | NewReplicaSetCreated
         stuck     | 0:2/2 1:1/0 |                                 | ReplicaSetUpdated
         wait 600  | 0:2/2 1:1/0 |                                 | ReplicaSetUpdated
         wait 1    | 0:2/2 1:1/0 |                                 | ProgressDeadlineExceeded
         image 0   | 0:2/2 1:1/0 | note 0, 1 1->0, revision 3      | ReplicaSetUpdated
         ready     | 0:2/2 1:0/0 |                                 | NewReplicaSetAvailable",
    );
}

#[test]
fn recreate_waits_until_every_old_pod_is_gone() {
    check(
        json!({"type": "Recreate"}),
        "scale 2                |             | create 0 x2, revision 1 | NewReplicaSetCreated
         ready                  | 0:2/2       |                         | NewReplicaSetAvailable
         image 1                | 0:2/2       | 0 2->0                  | NewReplicaSetAvailable
         old-pods run, ready    | 0:0/0       |                         | NewReplicaSetAvailable
         old-pods gone          | 0:0/0       | create 1 x2, revision 2 | NewReplicaSetCreated
         ready                  | 0:0/0 1:2/2 |                         | NewReplicaSetAvailable",
    );
}

#[test]
fn a_paused_deployment_is_scaled_but_not_rolled_out() {
    check(
        rolling(1, 1),
        "scale 2         |       | create 0 x2, revision 1         | NewReplicaSetCreated
         ready           | 0:2/2 |                                 | NewReplicaSetAvailable
         pause, image 1  | 0:2/2 |                                 | DeploymentPaused
         scale 4         | 0:2/2 | 0 2->4                          | DeploymentPaused
         resume          | 0:4/2 | create 1 x1, 0 4->3, revision 2         | NewReplicaSetCreated",
    );
}

#[test]
fn scaling_in_the_middle_of_a_roll_out_is_shared_in_proportion() {
    check(
        rolling(3, 2),
        "scale 10  |              | create 0 x10, revision 1         | NewReplicaSetCreated
         ready     | 0:10/10      |                                  | NewReplicaSetAvailable
         image 1   | 0:10/10      | create 1 x3, 0 10->8, revision 2 | NewReplicaSetCreated
         stuck     | 0:8/8 1:3/0  | 1 3->5                           | ReplicaSetUpdated
         stuck     | 0:8/8 1:5/0  |                                  | ReplicaSetUpdated
         scale 15  | 0:8/8 1:5/0  | 1 5->7, 0 8->11                  | ReplicaSetUpdated",
    );
}

#[test]
fn old_replica_sets_are_kept_up_to_the_limit() {
    check(
        rolling(1, 1),
        "scale 1        |                   | create 0 x1, revision 1         | NewReplicaSetCreated
         ready          | 0:1/1             |                                 | NewReplicaSetAvailable
         image 1        | 0:1/1             | create 1 x1, 0 1->0, revision 2 | NewReplicaSetCreated
         ready          | 0:0/0 1:1/1       |                                 | NewReplicaSetAvailable
         image 2        | 0:0/0 1:1/1       | create 2 x1, 1 1->0, revision 3 | NewReplicaSetCreated
         ready          | 0:0/0 1:0/0 2:1/1 | delete 0                        | NewReplicaSetAvailable
         tick           | 1:0/0 2:1/1       |                                 | NewReplicaSetAvailable",
    );
}
