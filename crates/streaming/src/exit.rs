//! How a remote command ended, in the words that clients expect on the error stream.
//!
//! Source: `k8s.io/apimachinery/pkg/util/remotecommand` and the kubelet's streaming server.

use std::fmt::Write as _;

/// The end of a remote command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ran and returned this code.
    Code(i32),
    /// It could not be run, or its end is unknown; the text says why.
    Failed(String),
}

impl Exit {
    /// The `Status` object of protocol v4 and later.
    pub(crate) fn to_status(&self) -> String {
        match self {
            Self::Code(0) => r#"{"metadata":{},"status":"Success"}"#.to_owned(),
            Self::Code(code) => format!(
                r#"{{"metadata":{{}},"status":"Failure","message":"command terminated with non-zero exit code: exit status {code}","reason":"NonZeroExitCode","details":{{"causes":[{{"reason":"ExitCode","message":"{code}"}}]}}}}"#
            ),
            Self::Failed(why) => format!(
                r#"{{"metadata":{{}},"status":"Failure","message":{message},"reason":"InternalError","details":{{"causes":[{{"message":{cause}}}]}},"code":500}}"#,
                message = json_string(&format!("Internal error occurred: {why}")),
                cause = json_string(why),
            ),
        }
    }

    /// The text of protocols before v4, which is empty on success.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Code(0) => String::new(),
            Self::Code(code) => {
                format!(
                    "error executing remote command: command terminated with non-zero exit code: exit status {code}"
                )
            }
            Self::Failed(why) => format!("error executing remote command: {why}"),
        }
    }
}

fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_status_cause() {
        assert!(Exit::Code(3).to_status().contains(r#""reason":"ExitCode","message":"3""#));
        assert_eq!(Exit::Code(0).to_text(), "");
    }

    #[test]
    fn a_failure_quotes_its_text() {
        let status = Exit::Failed("no \"sh\"\n".to_owned()).to_status();
        assert!(status.contains(r#""message":"no \"sh\"\n""#), "{status}");
    }
}
