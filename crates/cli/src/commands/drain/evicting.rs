//! Asks the pods of a node to go, all at once, each until it is gone or the time is over.
//!
//! Source of the rules and texts: `evictPods` and `deletePods` of `k8s.io/kubectl/pkg/drain`.

use std::time::Duration;

use futures::future::join_all;
use jiff::SignedDuration;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::commands::common::go_duration;
use crate::failure::{Failure, Result};

/// How long an eviction that a disruption budget refuses waits before it is tried again, as upstream has it.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A pod to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// What is done to pods and told of it.
pub(super) trait Hands {
    /// Whether pods are evicted; otherwise they are deleted, which no budget hinders.
    fn evicts(&self) -> bool;
    /// Asks for the end of a pod once.
    async fn ask(&self, place: usize) -> Result;
    /// Waits until the pod is gone; at once where that was only tried.
    async fn gone(&self, place: usize) -> Result;
    fn out(&self, text: &str) -> Result;
    fn err(&self, text: &str);
    /// Tells that a pod has gone.
    fn done(&self, place: usize) -> Result;
}

/// How long all of it may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    length: Duration,
    end: Option<Instant>,
}

impl Limit {
    /// From now on; zero is for ever.
    pub(super) fn from_now(length: Duration) -> Self {
        Self { length, end: (!length.is_zero()).then(|| Instant::now() + length) }
    }

    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| end <= Instant::now())
    }

    /// `None` when the time is over first; then nothing is begun any more.
    async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match self.end {
            _ if self.is_over() => None,
            Some(end) => timeout_at(end, work).await.ok(),
            None => Some(work.await),
        }
    }

    /// Rests so long, but not beyond the end.
    async fn rest(&self, pause: Duration) {
        match self.end {
            Some(end) => sleep_until(end.min(Instant::now() + pause)).await,
            None => sleep(pause).await,
        }
    }

    fn reached(&self) -> String {
        let length = SignedDuration::try_from(self.length).unwrap_or(SignedDuration::MAX);
        format!("global timeout reached: {}", go_duration(length))
    }
}

/// Empties a node of these pods. Why some are still there: each once, in the order of the pods.
pub(super) async fn all<H: Hands>(hands: &H, pods: &[Name<'_>], limit: Limit) -> Vec<Failure> {
    let outcomes = join_all(pods.iter().enumerate().map(|(place, pod)| one(hands, place, *pod, limit))).await;
    let mut failures: Vec<Failure> = Vec::new();
    for failure in outcomes.into_iter().filter_map(Result::err) {
        if failures.iter().all(|other| other.message() != failure.message()) {
            failures.push(failure);
        }
    }
    failures
}

async fn one<H: Hands>(hands: &H, place: usize, pod: Name<'_>, limit: Limit) -> Result {
    let Name { namespace, name } = pod;
    let verb = if hands.evicts() { "evicting" } else { "deleting" };
    let failed = |why: String| Failure::Bare(format!("error when evicting pods/{name:?} -n {namespace:?}: {why}"));
    loop {
        // Said at each try, also at the one that the end forbids.
        hands.out(&format!("{verb} pod {namespace}/{name}\n"))?;
        let Some(asked) = limit.within(hands.ask(place)).await else { return Err(failed(limit.reached())) };
        match asked {
            Ok(()) => break,
            Err(failure) if failure.is_not_found() => return hands.done(place),
            Err(failure) if failure.reason() == "TooManyRequests" => {
                let why = failure.message();
                hands
                    .err(&format!("error when evicting pods/{name:?} -n {namespace:?} (will retry after 5s): {why}\n"));
                limit.rest(RETRY_AFTER).await;
            }
            Err(failure) => return Err(if hands.evicts() { failed(failure.message()) } else { failure }),
        }
    }
    match limit.within(hands.gone(place)).await {
        Some(gone) => gone?,
        None if hands.evicts() => {
            let why = limit.reached();
            let text = format!("error when waiting for pod {name:?} in namespace {namespace:?} to terminate: {why}");
            return Err(Failure::Bare(text));
        }
        None => return Err(Failure::Bare("timed out waiting for the condition".to_owned())),
    }
    hands.done(place)
}

#[cfg(test)]
mod stories {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;

    /// How a pod behaves.
    #[derive(Clone, Copy)]
    enum Pod {
        /// Goes so many seconds after it was asked.
        Goes(u64),
        /// A budget refuses so often, then it goes at once.
        Refused(usize),
        /// It is gone when it is asked.
        Missing,
        /// The server does not let it be evicted.
        Forbidden,
    }

    const NEVER: u64 = 1_000_000;
    const ALWAYS: usize = usize::MAX;

    /// Pods `web-0`, `web-1` and so on, and what was said and asked at which second.
    struct World {
        pods: Vec<Pod>,
        evicts: bool,
        began: Instant,
        asked: RefCell<Vec<(usize, u64)>>,
        said: RefCell<Vec<String>>,
    }

    impl World {
        fn say(&self, text: &str) {
            self.said.borrow_mut().push(format!("{} {}", self.began.elapsed().as_secs(), text.trim_end()));
        }

        fn times_of(&self, place: usize) -> Vec<u64> {
            self.asked.borrow().iter().filter(|(pod, _)| *pod == place).map(|(_, second)| *second).collect()
        }
    }

    impl Hands for World {
        fn evicts(&self) -> bool {
            self.evicts
        }

        async fn ask(&self, place: usize) -> Result {
            self.asked.borrow_mut().push((place, self.began.elapsed().as_secs()));
            let refused = |reason: &str, message: &str| {
                Err(Failure::api(json!({"kind": "Status", "reason": reason, "message": message})))
            };
            match self.pods[place] {
                Pod::Refused(times) if self.times_of(place).len() <= times => {
                    refused("TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.")
                }
                Pod::Missing => refused("NotFound", "not found"),
                Pod::Forbidden => refused("Forbidden", "no"),
                Pod::Goes(_) | Pod::Refused(_) => Ok(()),
            }
        }

        async fn gone(&self, place: usize) -> Result {
            if let Pod::Goes(seconds) = self.pods[place] {
                sleep(Duration::from_secs(seconds)).await;
            }
            Ok(())
        }

        fn out(&self, text: &str) -> Result {
            self.say(text);
            Ok(())
        }

        fn err(&self, text: &str) {
            self.say(text);
        }

        fn done(&self, place: usize) -> Result {
            self.say(&format!("gone web-{place}"));
            Ok(())
        }
    }

    /// What is said when these pods are to go within so many seconds, and why some did not.
    async fn drained(evicts: bool, pods: &[Pod], seconds: u64) -> (World, Vec<String>) {
        let world = World {
            pods: pods.to_vec(),
            evicts,
            began: Instant::now(),
            asked: RefCell::default(),
            said: RefCell::default(),
        };
        let names: Vec<String> = (0..pods.len()).map(|place| format!("web-{place}")).collect();
        let names: Vec<Name<'_>> = names.iter().map(|name| Name { namespace: "err", name }).collect();
        let failures = all(&world, &names, Limit::from_now(Duration::from_secs(seconds))).await;
        let failures = failures.iter().map(Failure::message).collect();
        (world, failures)
    }

    #[tokio::test(start_paused = true)]
    async fn each_pod_that_a_budget_keeps_is_named_when_the_time_is_over() {
        let (world, failures) = drained(true, &[Pod::Refused(ALWAYS), Pod::Refused(ALWAYS)], 3).await;
        let refused = "(will retry after 5s): Cannot evict pod as it would violate the pod's disruption budget.";
        assert_eq!(
            *world.said.borrow(),
            [
                "0 evicting pod err/web-0".to_owned(),
                format!("0 error when evicting pods/\"web-0\" -n \"err\" {refused}"),
                "0 evicting pod err/web-1".to_owned(),
                format!("0 error when evicting pods/\"web-1\" -n \"err\" {refused}"),
                "3 evicting pod err/web-0".to_owned(),
                "3 evicting pod err/web-1".to_owned(),
            ]
        );
        assert_eq!(
            failures,
            [
                "error when evicting pods/\"web-0\" -n \"err\": global timeout reached: 3s",
                "error when evicting pods/\"web-1\" -n \"err\": global timeout reached: 3s",
            ]
        );
        assert_eq!((world.times_of(0), world.times_of(1)), (vec![0], vec![0]), "nothing is asked after the end");
    }

    #[tokio::test(start_paused = true)]
    async fn one_pod_that_stays_hides_no_other() {
        let (world, failures) =
            drained(true, &[Pod::Goes(2), Pod::Goes(NEVER), Pod::Forbidden, Pod::Missing, Pod::Refused(1)], 90).await;
        assert_eq!(
            failures,
            [
                "error when waiting for pod \"web-1\" in namespace \"err\" to terminate: global timeout reached: 1m30s",
                "error when evicting pods/\"web-2\" -n \"err\": no",
            ]
        );
        let said = world.said.borrow();
        for gone in ["2 gone web-0", "0 gone web-3", "5 gone web-4"] {
            assert!(said.iter().any(|line| line == gone), "{gone}: {said:#?}");
        }
        assert_eq!(world.times_of(4), [0, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_a_budget_is_waited_for() {
        let (world, failures) = drained(true, &[Pod::Refused(100)], 0).await;
        assert_eq!((failures, world.times_of(0).len()), (Vec::<String>::new(), 101));
        assert_eq!(world.said.borrow().last().map(String::as_str), Some("500 gone web-0"));
    }

    #[tokio::test(start_paused = true)]
    async fn pods_that_are_deleted_time_out_in_one_sentence() {
        let (_, failures) = drained(false, &[Pod::Goes(NEVER), Pod::Goes(NEVER)], 3).await;
        assert_eq!(failures, ["timed out waiting for the condition"]);
    }
}
