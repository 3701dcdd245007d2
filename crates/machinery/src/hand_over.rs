//! Handing over before a pod is taken down: the annotations by which it is asked for, done and told.
//!
//! The set says how; its controller writes the request with that on the pod; the pod's node, or an operator, does it and
//! writes the answer.

/// On the set, and with a request on the pod: a command as a JSON list, or `wait` when somebody else hands over and answers.
pub const HAND_OVER: &str = "stead.dev/hand-over";
/// How long that may take.
pub const SECONDS: &str = "stead.dev/hand-over-seconds";
/// The container in which the command runs; the first one by default.
pub const CONTAINER: &str = "stead.dev/hand-over-container";
/// On the pod: when it was asked.
pub const REQUESTED: &str = "stead.dev/hand-over-requested";
/// On the pod: the exit code of the command.
pub const DONE: &str = "stead.dev/hand-over-done";

/// When [`SECONDS`] does not say otherwise.
pub const SECONDS_DEFAULT: u32 = 30;
/// Longest time that can be asked for.
pub const SECONDS_MAX: u32 = 3600;

/// How a pod hands over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Somebody else does it and answers.
    Wait,
    /// This command does, in one of the pod's containers.
    Run(Vec<String>),
}

/// Reads [`HAND_OVER`]; `None` when it cannot be understood.
#[must_use]
pub fn how(text: &str) -> Option<How> {
    match text.trim() {
        "wait" => Some(How::Wait),
        text => serde_json::from_str(text).ok().filter(|command: &Vec<String>| !command.is_empty()).map(How::Run),
    }
}

/// Reads [`SECONDS`]; `None` when it is not a number from 1 to [`SECONDS_MAX`].
#[must_use]
pub fn seconds(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|seconds| (1..=SECONDS_MAX).contains(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_list_of_words() {
        for (text, expected) in [
            ("wait", Some(How::Wait)),
            (r#"["redis-cli", "failover"]"#, Some(How::Run(vec!["redis-cli".to_owned(), "failover".to_owned()]))),
            ("redis-cli failover", None),
            ("[]", None),
            ("[1]", None),
            ("", None),
        ] {
            assert_eq!(how(text), expected, "{text:?}");
        }
        for (text, expected) in [("5", Some(5)), (" 3600 ", Some(3600)), ("0", None), ("3601", None), ("soon", None)] {
            assert_eq!(seconds(text), expected, "{text:?}");
        }
    }
}
