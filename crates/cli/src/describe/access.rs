//! The pages of roles, their bindings, and priority classes.

use serde_json::Value;

use super::Page;
use crate::print::{at, int, list};

fn head(page: &mut Page, object: &Value) {
    page.field(0, "Name", at(object, "/metadata/name"));
    page.labels("Labels", &object["metadata"]["labels"]);
    page.annotations("Annotations", &object["metadata"]["annotations"]);
}

/// One resource, or one URL, and what may be done with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    group: Option<String>,
    resource: Option<String>,
    name: Option<String>,
    url: Option<String>,
    verbs: Vec<String>,
}

impl Rule {
    /// What upstream sorts by.
    fn key(&self) -> String {
        let one = |part: &Option<String>| part.clone().unwrap_or_default();
        format!(
            "Verbs:[{}],APIGroups:[{}],Resources:[{}],ResourceNames:[{}],NonResourceURLs:[{}]",
            self.verbs.join(" "),
            one(&self.group),
            one(&self.resource),
            one(&self.name),
            one(&self.url)
        )
    }

    fn line(&self) -> String {
        let shown = match (&self.resource, self.group.as_deref()) {
            (Some(resource), None | Some("")) => resource.clone(),
            (Some(resource), Some(group)) => match resource.split_once('/') {
                Some((resource, sub)) => format!("{resource}.{group}/{sub}"),
                None => format!("{resource}.{group}"),
            },
            (None, _) => String::new(),
        };
        let bracketed = |part: &Option<String>| format!("[{}]", part.clone().unwrap_or_default());
        format!("{shown}\t{}\t{}\t[{}]", bracketed(&self.url), bracketed(&self.name), self.verbs.join(" "))
    }
}

/// A Role or ClusterRole.
pub(super) fn role(page: &mut Page, role: &Value) {
    head(page, role);
    page.line(0, "PolicyRule:");
    page.line(1, "Resources\tNon-Resource URLs\tResource Names\tVerbs");
    page.line(1, "---------\t-----------------\t--------------\t-----");
    for rule in rules(list(role, "/rules")) {
        page.line(1, &rule.line());
    }
}

/// One rule per resource, those of the same resource together.
fn rules(all: &[Value]) -> Vec<Rule> {
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        list(rule, field).iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let mut broken: Vec<Rule> = Vec::new();
    for rule in all {
        let (verbs, names) = (texts(rule, "/verbs"), texts(rule, "/resourceNames"));
        for group in texts(rule, "/apiGroups") {
            for resource in texts(rule, "/resources") {
                let one = Rule {
                    group: Some(group.clone()),
                    resource: Some(resource),
                    verbs: verbs.clone(),
                    ..Rule::default()
                };
                if names.is_empty() {
                    broken.push(one);
                } else {
                    broken.extend(names.iter().map(|name| Rule { name: Some(name.clone()), ..one.clone() }));
                }
            }
        }
        let url = |url: String| Rule { url: Some(url), verbs: verbs.clone(), ..Rule::default() };
        broken.extend(texts(rule, "/nonResourceURLs").into_iter().map(url));
    }
    let mut compact: Vec<Rule> = Vec::new();
    for rule in broken {
        let same = |known: &&mut Rule| {
            rule.resource.is_some()
                && (&known.group, &known.resource, &known.name) == (&rule.group, &rule.resource, &rule.name)
        };
        match compact.iter_mut().find(same) {
            Some(known) => {
                let new: Vec<String> = rule.verbs.iter().filter(|verb| !known.verbs.contains(verb)).cloned().collect();
                known.verbs.extend(new);
            }
            None => compact.push(rule),
        }
    }
    compact.sort_by_key(Rule::key);
    compact
}

/// A RoleBinding or ClusterRoleBinding.
pub(super) fn binding(page: &mut Page, binding: &Value) {
    head(page, binding);
    page.line(0, "Role:");
    page.field(1, "Kind", at(binding, "/roleRef/kind"));
    page.field(1, "Name", at(binding, "/roleRef/name"));
    page.line(0, "Subjects:");
    page.line(1, "Kind\tName\tNamespace");
    page.line(1, "----\t----\t---------");
    for subject in list(binding, "/subjects") {
        let text = |field: &str| at(subject, field);
        page.line(1, &format!("{}\t{}\t{}", text("/kind"), text("/name"), text("/namespace")));
    }
}

/// A PriorityClass.
pub(super) fn priority(page: &mut Page, class: &Value) {
    page.field(0, "Name", at(class, "/metadata/name"));
    page.field(0, "Value", &int(class, "/value").to_string());
    page.field(0, "GlobalDefault", &(class["globalDefault"] == true).to_string());
    page.field(0, "PreemptionPolicy", at(class, "/preemptionPolicy"));
    page.field(0, "Description", at(class, "/description"));
    let pairs = crate::print::pairs(&class["metadata"]["annotations"]).join(",");
    page.field(0, "Annotations", super::or_none(&pairs));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_of_one_resource_are_one_line() {
        let all = [
            json!({"apiGroups": ["", "apps"], "resources": ["pods/log"], "verbs": ["get"]}),
            json!({"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get", "list"]}),
            json!({"nonResourceURLs": ["*"], "verbs": ["*"]}),
            json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]}),
        ];
        let lines: Vec<String> = rules(&all).iter().map(Rule::line).collect();
        assert_eq!(
            lines,
            [
                "\t[*]\t[]\t[*]",
                "pods/log\t[]\t[]\t[get list]",
                "secrets\t[]\t[a]\t[get]",
                "pods.apps/log\t[]\t[]\t[get]"
            ]
        );
    }
}
