//! The status of an autoscaler: its conditions, and numbers in the form in which they are published.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The conditions as they come to be.
pub(super) struct Conditions {
    list: Vec<HorizontalPodAutoscalerCondition>,
    now: Timestamp,
}

impl Conditions {
    pub(super) fn of(status: &HorizontalPodAutoscalerStatus, now: Timestamp) -> Self {
        Self { list: status.conditions.clone().unwrap_or_default(), now: whole(now) }
    }

    /// Sets one; its time is that of the last change between true and false.
    pub(super) fn set(&mut self, kind: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let status = if holds { "True" } else { "False" };
        let at = self.list.iter().position(|condition| condition.type_ == kind).unwrap_or_else(|| {
            self.list.push(HorizontalPodAutoscalerCondition { type_: kind.to_owned(), ..Default::default() });
            self.list.len() - 1
        });
        let condition = &mut self.list[at];
        if condition.status != status {
            condition.last_transition_time = Some(Time(self.now));
        }
        status.clone_into(&mut condition.status);
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message.into());
    }

    pub(super) fn done(self) -> Option<Vec<HorizontalPodAutoscalerCondition>> {
        Some(self.list).filter(|list| !list.is_empty())
    }
}

/// Times are published in whole seconds.
pub(super) fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Zero is left out, as upstream leaves it out.
pub(super) fn count(replicas: i32) -> Option<i32> {
    Some(replicas).filter(|replicas| *replicas != 0)
}

pub(super) fn metrics(list: Vec<MetricStatus>) -> Option<Vec<MetricStatus>> {
    Some(list).filter(|list| !list.is_empty())
}
