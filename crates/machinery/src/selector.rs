//! Label selectors, as text and as objects, and field selectors.
//!
//! Source of the grammar and texts: `k8s.io/apimachinery/pkg/labels`, `pkg/fields`, `pkg/apis/meta/v1` (`LabelSelector`).

mod parse;

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;
use stead_api::{Kind, convert};

use crate::field::go_quote;
use crate::names;

/// What a requirement asks of a label's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    /// Checks key, values and their number; the errors are upstream's, joined as upstream joins them.
    ///
    /// # Errors
    /// For example `values[0]: Invalid value: "x": for 'Gt', 'Lt' operators, the value must be an integer`.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, String> {
        use Operator::{DoesNotExist, DoubleEquals, Equals, Exists, GreaterThan, In, LessThan, NotEquals, NotIn};
        let mut errors = Vec::new();
        let wrong_key = names::label_key(key);
        if !wrong_key.is_empty() {
            errors.push(format!("key: Invalid value: {}: {}", go_quote(key), wrong_key.join("; ")));
        }
        let shown = if values.is_empty() { "null".to_owned() } else { Value::from(values.clone()).to_string() };
        let mut wrong_count = |why: &str| errors.push(format!("values: Invalid value: {shown}: {why}"));
        match operator {
            In | NotIn if values.is_empty() => wrong_count("for 'in', 'notin' operators, values set can't be empty"),
            Equals | DoubleEquals | NotEquals if values.len() != 1 => {
                wrong_count("exact-match compatibility requires one single value");
            }
            Exists | DoesNotExist if !values.is_empty() => {
                wrong_count("values set must be empty for exists and does not exist");
            }
            GreaterThan | LessThan => {
                if values.len() != 1 {
                    wrong_count("for 'Gt', 'Lt' operators, exactly one value is required");
                }
                for (index, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                    let shown = go_quote(value);
                    errors.push(format!("values[{index}]: Invalid value: {shown}: for 'Gt', 'Lt' operators, the value must be an integer"));
                }
            }
            _ => {}
        }
        for (index, value) in values.iter().enumerate() {
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                errors.push(format!(
                    "values[{index}][{key}]: Invalid value: {}: {}",
                    go_quote(value),
                    wrong.join("; ")
                ));
            }
        }
        match errors.len() {
            0 => {
                values.sort_unstable();
                values.dedup();
                Ok(Self { key: key.to_owned(), operator, values })
            }
            1 => Err(errors.remove(0)),
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }

    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// In alphabetical order, each once.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether a label of this value, or its absence, meets the requirement.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        use Operator::{DoesNotExist, DoubleEquals, Equals, Exists, GreaterThan, In, LessThan, NotEquals, NotIn};
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        let number = |text: Option<&str>| text.and_then(|t| t.parse::<i64>().ok());
        let wanted = || number(self.values.first().map(String::as_str));
        match self.operator {
            Equals | DoubleEquals | In => value.is_some_and(listed),
            NotEquals | NotIn => !value.is_some_and(listed),
            Exists => value.is_some(),
            DoesNotExist => value.is_none(),
            GreaterThan => number(value).zip(wanted()).is_some_and(|(have, want)| have > want),
            LessThan => number(value).zip(wanted()).is_some_and(|(have, want)| have < want),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// A label selector: all requirements have to be met. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Selects every object.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects no object.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Parses the text of the query parameter `labelSelector`.
    ///
    /// # Errors
    /// Upstream's text, for example `unable to parse requirement: found 'b' expected: '('`.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::requirements(text).map(Self::of)
    }

    /// The selector of a `LabelSelector` object: `matchLabels` and `matchExpressions`. Null selects nothing, `{}` everything.
    ///
    /// # Errors
    /// Upstream's text for an unknown operator or a requirement that is not well formed.
    pub fn from_object(object: &Value) -> Result<Self, String> {
        if object.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        for (key, value) in object["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in object["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{} is not a valid label selector operator", go_quote(other))),
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(Requirement::new(expression["key"].as_str().unwrap_or_default(), operator, values)?);
        }
        Ok(Self::of(requirements))
    }

    /// The selector of a plain map of labels, as Services and ReplicationControllers have it; unchecked.
    #[must_use]
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirement = |(key, value): (&str, &str)| Requirement {
            key: key.to_owned(),
            operator: Operator::Equals,
            values: vec![value.to_owned()],
        };
        Self::of(labels.into_iter().map(requirement).collect())
    }

    fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// In the order of their keys.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether every object is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether labels meet all requirements; `get` finds the value of a label.
    #[must_use]
    pub fn matches<'l>(&self, get: impl Fn(&str) -> Option<&'l str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    /// As [`Self::matches`], for the value of `metadata.labels`.
    #[must_use]
    pub fn matches_labels(&self, labels: &Value) -> bool {
        self.matches(|key| labels.get(key).and_then(Value::as_str))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// In the form in which the object is stored.
    pub field: String,
    pub value: String,
    /// `!=`
    pub negated: bool,
}

/// A field selector: all terms have to be met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Parses the text of the query parameter `fieldSelector` for a kind; the fields are those that the kind supports.
    ///
    /// # Errors
    /// Upstream's text: `field label not supported: spec.x`, `invalid selector: 'x'; can't understand 'x'`.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self, String> {
        let mut terms = parse::field_terms(text)?;
        for term in &mut terms {
            if kind.kind == "Pod" && term.field == "spec.host" {
                "spec.nodeName".clone_into(&mut term.field);
            }
            supported(kind, &term.field)?;
            term.field = convert::field_to_storage(kind, &term.field);
        }
        Ok(Self { terms })
    }

    #[must_use]
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that a field has to have: `metadata.name=x`, `spec.nodeName=n`. Narrows what has to be looked at.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.field == field && !t.negated).map(|t| t.value.as_str())
    }

    /// Whether a stored object meets all terms.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| (field_value(object, &term.field) == term.value) != term.negated)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let operator = if term.negated { "!=" } else { "=" };
            write!(f, "{comma}{}{operator}{}", term.field, parse::escaped(&term.value))?;
        }
        Ok(())
    }
}

fn supported(kind: &Kind, field: &str) -> Result<(), String> {
    let always = field == "metadata.name"
        || (field == "metadata.namespace" && (kind.namespaced() || kind.selectable.is_empty()));
    if always || kind.selectable.contains(&field) {
        return Ok(());
    }
    Err(if kind.selectable.is_empty() {
        format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else if matches!(kind.kind, "Job" | "ReplicaSet" | "CertificateSigningRequest") {
        format!("field label {field:?} not supported for {}", kind.kind)
    } else {
        format!("field label not supported: {field}")
    })
}

/// The value of a selectable field as text; absent fields are empty, as in Go.
fn field_value<'o>(object: &'o Value, field: &str) -> Cow<'o, str> {
    match field {
        "source" => return text(&object["source"]["component"], object, "reportingComponent"),
        "reportingComponent" => return text(&object["reportingComponent"], object, ""),
        "status.successful" => return number(&object["status"]["succeeded"]),
        "spec.hostNetwork" => return flag(&object["spec"]["hostNetwork"]),
        "spec.unschedulable" => return flag(&object["spec"]["unschedulable"]),
        "status.replicas" => return number(&object["status"]["replicas"]),
        "status.podIPs" => {
            let ips = object["status"]["podIPs"].as_array().into_iter().flatten();
            return ips.filter_map(|ip| ip["ip"].as_str()).collect::<Vec<_>>().join(",").into();
        }
        _ => {}
    }
    let mut value = object;
    for part in field.split('.') {
        value = &value[part];
    }
    text(value, object, "")
}

fn text<'o>(value: &'o Value, object: &'o Value, otherwise: &str) -> Cow<'o, str> {
    let value = if value.is_null() && !otherwise.is_empty() { &object[otherwise] } else { value };
    match value {
        Value::Null => "".into(),
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

fn number(value: &Value) -> Cow<'_, str> {
    value.as_i64().unwrap_or(0).to_string().into()
}

fn flag(value: &Value) -> Cow<'_, str> {
    value.as_bool().unwrap_or(false).to_string().into()
}

#[cfg(test)]
mod tests;
