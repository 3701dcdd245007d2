//! What can go wrong with a command, and kubectl's words for it.
//!
//! Source of the texts: `k8s.io/kubectl/pkg/cmd/util` (helpers).

use serde_json::Value;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server refused; its Status.
    Api(Box<Refusal>),
    /// `error: TEXT`.
    Plain(String),
    /// The text as it is, with nothing in front.
    Bare(String),
    /// Several things went wrong; each is told.
    Many(Vec<Failure>),
    /// The text as it is, and the exit code of a container.
    Ended(String, u8),
    /// All is said; only the exit code is left.
    Code(u8),
    /// Nobody reads the output any more.
    Closed,
}

/// A Status that the server answered, and what was being done with what.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: Value,
    /// For example `error when creating "web.yaml"`.
    pub(crate) during: Option<String>,
}

/// The outcome of a command or a step of it.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

/// An `error: ...` with the given text.
pub(crate) fn plain<T>(text: impl Into<String>) -> Result<T> {
    Err(Failure::Plain(text.into()))
}

/// The error of a wrongly used command, with the hint where its help is.
pub(crate) fn usage<T>(command: &str, text: &str) -> Result<T> {
    Err(Failure::Plain(format!("{text}\nSee 'kubectl {command} -h' for help and examples")))
}

impl Failure {
    /// Of a Status object.
    pub(crate) fn api(status: Value) -> Self {
        Self::Api(Box::new(Refusal { status, during: None }))
    }

    /// The Status' reason, when the server refused.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Api(refusal) => refusal.status["reason"].as_str().unwrap_or_default(),
            _ => "",
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    /// Adds what was being done with which file or object: `error when VERB "SOURCE": ...`.
    #[must_use]
    pub(crate) fn when(self, verb: &str, source: &str) -> Self {
        match self {
            Self::Api(mut refusal) => {
                refusal.during = Some(format!("error when {verb} {source:?}"));
                Self::Api(refusal)
            }
            Self::Plain(text) => Self::Plain(format!("error when {verb} {source:?}: {text}")),
            other => other,
        }
    }

    /// The message alone, as kubectl puts it inside other sentences.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Api(refusal) => refusal.message(),
            Self::Plain(text) | Self::Bare(text) | Self::Ended(text, _) => text.clone(),
            Self::Many(all) => {
                let all: Vec<String> = all.iter().map(Self::message).collect();
                if all.len() == 1 { all.concat() } else { format!("[{}]", all.join(", ")) }
            }
            Self::Code(code) => format!("exit code {code}"),
            Self::Closed => "the output is closed".to_owned(),
        }
    }

    /// What is printed to standard error; may be empty.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Api(refusal) => refusal.text(),
            Self::Many(all) => match &all[..] {
                [one] => one.text(),
                all => all.iter().map(Self::among).collect(),
            },
            Self::Code(_) | Self::Closed => String::new(),
            Self::Plain(_) | Self::Bare(_) | Self::Ended(..) => self.line(),
        }
    }

    /// As one of several errors.
    fn among(&self) -> String {
        match self {
            Self::Plain(text) => format!("{text}\n"),
            other => other.line(),
        }
    }

    /// By itself.
    fn line(&self) -> String {
        match self {
            Self::Api(refusal) => refusal.standard(),
            Self::Plain(text) => format!("error: {text}\n"),
            Self::Bare(text) | Self::Ended(text, _) => format!("{text}\n"),
            other => other.text(),
        }
    }

    /// The exit code of a command that ends with this.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Code(code) | Self::Ended(_, code) => *code,
            _ => 1,
        }
    }
}

impl Refusal {
    fn message(&self) -> String {
        let message = self.status["message"].as_str().unwrap_or_default();
        self.during.as_ref().map_or_else(|| message.to_owned(), |during| format!("{during}: {message}"))
    }

    fn standard(&self) -> String {
        match self.status["reason"].as_str().unwrap_or_default() {
            "" => format!("Error from server: {}\n", self.message()),
            "Unauthorized" => format!("error: You must be logged in to the server ({})\n", self.message()),
            reason => format!("Error from server ({reason}): {}\n", self.message()),
        }
    }

    fn text(&self) -> String {
        if self.status["reason"] == "Invalid" { self.invalid() } else { self.standard() }
    }

    /// `The Pod "x" is invalid: ...`: one line for one cause, a list for several.
    fn invalid(&self) -> String {
        let details = &self.status["details"];
        if !details.is_object() {
            return format!("The request is invalid: {}\n", self.message());
        }
        let (kind, name) = (details["kind"].as_str().unwrap_or_default(), details["name"].as_str().unwrap_or_default());
        let what = match (kind, name) {
            ("", "") => "The request is invalid".to_owned(),
            _ => format!("The {kind} {name:?} is invalid"),
        };
        let mut causes: Vec<String> = Vec::new();
        for cause in details["causes"].as_array().into_iter().flatten() {
            let (field, message) =
                (cause["field"].as_str().unwrap_or_default(), cause["message"].as_str().unwrap_or_default());
            let text = format!("{field}: {message}");
            if !causes.contains(&text) {
                causes.push(text);
            }
        }
        match &causes[..] {
            [] if kind.is_empty() && name.is_empty() => format!("{what}: {}\n", self.message()),
            [] => format!("{what}\n"),
            [one] => format!("{what}: {one}\n"),
            all => format!("{what}: \n{}", all.iter().map(|cause| format!("* {cause}\n")).collect::<String>()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Plain(error.to_string()),
        }
    }
}

/// Everything that went wrong, or success when nothing did.
pub(crate) fn all(mut failures: Vec<Failure>) -> Result {
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        _ => Err(Failure::Many(failures)),
    }
}

/// The system's words for a file that cannot be used, without Rust's error number: `no such file or directory`.
pub(crate) fn system(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(reason: &str, message: &str, details: Value) -> Failure {
        Failure::api(json!({"reason": reason, "message": message, "details": details}))
    }

    #[test]
    fn the_servers_refusals_are_told_as_kubectl_tells_them() {
        let cause = |field: &str, message: &str| json!({"field": field, "message": message});
        let invalid =
            |causes: Vec<Value>| status("Invalid", "long", json!({"kind": "Pod", "name": "web", "causes": causes}));
        for (failure, wanted) in [
            (
                status("NotFound", "pods \"x\" not found", json!({})),
                "Error from server (NotFound): pods \"x\" not found\n",
            ),
            (status("", "odd", json!({})), "Error from server: odd\n"),
            (invalid(vec![cause("spec.a", "Required value")]), "The Pod \"web\" is invalid: spec.a: Required value\n"),
            (
                invalid(vec![cause("a", "bad"), cause("b", "worse"), cause("a", "bad")]),
                "The Pod \"web\" is invalid: \n* a: bad\n* b: worse\n",
            ),
            (status("Invalid", "no", Value::Null), "The request is invalid: no\n"),
            (
                status("Forbidden", "no", json!({})).when("creating", "a.yaml"),
                "Error from server (Forbidden): error when creating \"a.yaml\": no\n",
            ),
            (Failure::Plain("x".into()), "error: x\n"),
        ] {
            assert_eq!(failure.text(), wanted);
        }
    }
}
