//! What a diagnosis consists of.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// On its normal way; nobody has to do anything.
    Waiting,
    /// It stays so until somebody does something.
    Fault,
}

/// What was seen, word for word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// `event FailedScheduling`, `spec.serviceName`, `log`.
    pub source: String,
    pub text: String,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mend {
    pub text: String,
    /// For a shell. A word in capitals such as `IMAGE` has to be filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// One thing that is not as it should be, with what it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the rule, which stays the same when its words change: `ImagePull`.
    pub rule: &'static str,
    pub severity: Severity,
    /// `pod/web-0`.
    pub object: String,
    /// The state and, where nothing is below it, its cause.
    pub what: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// To be done in this order, where there are several commands, unless a text says "or".
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mend: Vec<Mend>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Finding>,
}

/// The diagnosis of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `statefulset/web`.
    pub object: String,
    /// `2 of 3 pods are Ready`.
    pub headline: String,
    pub findings: Vec<Finding>,
}

impl Finding {
    pub(crate) fn new(rule: &'static str, object: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            rule,
            severity: Severity::Fault,
            object: object.into(),
            what: what.into(),
            evidence: Vec::new(),
            mend: Vec::new(),
            causes: Vec::new(),
        }
    }

    #[must_use]
    pub(crate) fn waiting(mut self) -> Self {
        self.severity = Severity::Waiting;
        self
    }

    #[must_use]
    pub(crate) fn note(mut self) -> Self {
        self.severity = Severity::Note;
        self
    }

    #[must_use]
    pub(crate) fn seen(mut self, source: impl Into<String>, text: impl Into<String>) -> Self {
        self.evidence.push(Evidence { source: source.into(), text: text.into() });
        self
    }

    #[must_use]
    pub(crate) fn with(mut self, evidence: impl IntoIterator<Item = Evidence>) -> Self {
        for one in evidence {
            if !self.evidence.iter().any(|known| known.text == one.text) {
                self.evidence.push(one);
            }
        }
        self
    }

    /// A mend by a command.
    #[must_use]
    pub(crate) fn mended_by(mut self, text: impl Into<String>, command: impl Into<String>) -> Self {
        self.mend.push(Mend { text: text.into(), command: Some(command.into()) });
        self
    }

    /// A mend that is no command.
    #[must_use]
    pub(crate) fn advice(mut self, text: impl Into<String>) -> Self {
        self.mend.push(Mend { text: text.into(), command: None });
        self
    }

    #[must_use]
    pub(crate) fn because(mut self, cause: Option<Finding>) -> Self {
        self.causes.extend(cause);
        self
    }

    #[must_use]
    pub(crate) fn because_all(mut self, causes: Vec<Finding>) -> Self {
        self.causes.extend(causes);
        self
    }

    /// No worse than what it comes from: who waits for something that goes its normal way is on it as well.
    #[must_use]
    pub(crate) fn weighed(mut self) -> Self {
        if let Some(worst) = self.causes.iter().map(|cause| cause.severity).max() {
            self.severity = worst.max(Severity::Waiting);
        }
        self
    }

    /// This one and everything that it comes from, causes first.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Finding)) {
        for cause in &self.causes {
            cause.walk(visit);
        }
        visit(self);
    }
}

impl Report {
    /// The worst of the findings; `None` when there are none, or only notes.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).filter(|severity| *severity > Severity::Note).max()
    }
}
