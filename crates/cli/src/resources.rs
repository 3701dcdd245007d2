//! Which resources a server has, and which of them a word of the command line means. Pure.
//!
//! Source of the rules: `k8s.io/client-go/restmapper` (shortcut, category expansion).

use std::rc::Rc;

use serde_json::Value;

/// A resource as discovery lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Empty for the core group.
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) namespaced: bool,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) verbs: Vec<String>,
    pub(crate) subresources: Vec<String>,
}

impl Resource {
    /// `apps/v1`, or `v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `statefulsets.apps`, or `pods`: the form of error texts.
    pub(crate) fn group_resource(&self) -> String {
        with_group(&self.plural, &self.group)
    }

    /// `statefulset.apps`, or `pod`: the form before `/name`.
    pub(crate) fn group_kind(&self) -> String {
        with_group(&self.kind.to_lowercase(), &self.group)
    }

    /// `statefulset.apps/web`.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.group_kind())
    }

    /// The URL path of all objects, in one namespace or over all of them.
    pub(crate) fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let at = match namespace {
            Some(namespace) if self.namespaced && !namespace.is_empty() => format!("/namespaces/{}", escape(namespace)),
            _ => String::new(),
        };
        format!("{root}/{}{at}/{}", self.api_version(), self.plural)
    }

    /// The URL path of one object.
    pub(crate) fn object_path(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}/{}", self.path(namespace), escape(name))
    }

    /// Whether it is of that group and kind.
    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
}

fn with_group(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// Escapes a path segment of a URL.
pub(crate) fn escape(segment: &str) -> String {
    let mut escaped = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@$&+=,;".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// All resources of a server, in its own order of groups, the preferred version of each group first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resources {
    pub(crate) all: Vec<Rc<Resource>>,
    /// Group and version of each, in order, also of those without resources.
    pub(crate) versions: Vec<String>,
}

impl Resources {
    /// Adds an `APIGroupDiscoveryList`.
    pub(crate) fn add_aggregated(&mut self, list: &Value) {
        for group in items(&list["items"]) {
            let name = text(&group["metadata"]["name"]);
            for version in items(&group["versions"]) {
                let number = text(&version["version"]);
                self.versions.push(if name.is_empty() { number.clone() } else { format!("{name}/{number}") });
                for resource in items(&version["resources"]) {
                    self.all.push(Rc::new(aggregated(&name, &number, resource)));
                }
            }
        }
    }

    /// Adds an `APIResourceList`.
    pub(crate) fn add_list(&mut self, list: &Value) {
        let group_version = text(&list["groupVersion"]);
        let (group, version) = group_version.split_once('/').unwrap_or(("", &group_version));
        self.versions.push(group_version.clone());
        let named = |r: &Value| text(&r["name"]);
        let entries = items(&list["resources"]);
        for entry in entries.iter().filter(|r| !named(r).contains('/')) {
            let plural = named(entry);
            let prefix = format!("{plural}/");
            let subresources =
                entries.iter().filter_map(|r| named(r).strip_prefix(&prefix).map(str::to_owned)).collect();
            self.all.push(Rc::new(Resource {
                group: group.to_owned(),
                version: version.to_owned(),
                singular: text(&entry["singularName"]),
                kind: text(&entry["kind"]),
                namespaced: entry["namespaced"] == true,
                short_names: texts(&entry["shortNames"]),
                categories: texts(&entry["categories"]),
                verbs: texts(&entry["verbs"]),
                subresources,
                plural,
            }));
        }
    }

    /// The resource that a word means: `pods`, `po`, `Pod`, `statefulsets.apps`, `statefulsets.v1.apps`.
    pub(crate) fn find(&self, word: &str) -> Option<Rc<Resource>> {
        let word = word.to_lowercase();
        let (name, rest) = word.split_once('.').unwrap_or((&word, ""));
        let (version, group) = match rest.split_once('.') {
            Some((version, group)) if self.all.iter().any(|r| r.version == version && r.group == group) => {
                (Some(version), Some(group))
            }
            _ if rest.is_empty() => (None, None),
            _ if self.all.iter().any(|r| r.group.is_empty() && r.version == rest) => (Some(rest), Some("")),
            _ => (None, Some(rest)),
        };
        let fits = |r: &Resource| {
            let group_fits =
                |wanted: &str| r.group == wanted || (!wanted.is_empty() && r.group.starts_with(&format!("{wanted}.")));
            group.is_none_or(group_fits) && version.is_none_or(|wanted| r.version == wanted)
        };
        let ways: [&dyn Fn(&Resource) -> bool; 3] = [
            &|r| r.plural == name,
            &|r| r.singular == name || (r.singular.is_empty() && r.kind.to_lowercase() == name),
            &|r| r.short_names.iter().any(|short| short == name),
        ];
        ways.iter().find_map(|way| self.all.iter().find(|r| way(r) && fits(r)).cloned())
    }

    /// The resources of a category such as `all`, in the server's order.
    pub(crate) fn category(&self, word: &str) -> Vec<Rc<Resource>> {
        let mut found: Vec<Rc<Resource>> = Vec::new();
        for resource in self.all.iter().filter(|r| r.categories.iter().any(|c| c == word)) {
            if !found.iter().any(|r| r.group == resource.group && r.plural == resource.plural) {
                found.push(resource.clone());
            }
        }
        found
    }

    /// The resource of an object's `apiVersion` and `kind`.
    pub(crate) fn of_object(&self, api_version: &str, kind: &str) -> Option<Rc<Resource>> {
        self.all.iter().find(|r| r.kind == kind && r.api_version() == api_version).cloned()
    }

    /// The resource of a kind in its group's preferred version.
    pub(crate) fn of_kind(&self, group: &str, kind: &str) -> Option<Rc<Resource>> {
        self.all.iter().find(|r| r.is(group, kind)).cloned()
    }
}

fn aggregated(group: &str, version: &str, entry: &Value) -> Resource {
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: text(&entry["resource"]),
        singular: text(&entry["singularResource"]),
        kind: text(&entry["responseKind"]["kind"]),
        namespaced: entry["scope"] == "Namespaced",
        short_names: texts(&entry["shortNames"]),
        categories: texts(&entry["categories"]),
        verbs: texts(&entry["verbs"]),
        subresources: items(&entry["subresources"]).iter().map(|s| text(&s["subresource"])).collect(),
    }
}

/// The items of a list, none when it is no list.
pub(crate) fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

/// A string field, empty when it is absent.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(list: &Value) -> Vec<String> {
    items(list).iter().map(text).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a server with the usual kinds has.
    pub(crate) fn usual() -> Resources {
        let mut resources = Resources::default();
        resources
            .add_aggregated(&stead_machinery::discovery::aggregated(true, stead_machinery::discovery::Aggregated::V2));
        resources
            .add_aggregated(&stead_machinery::discovery::aggregated(false, stead_machinery::discovery::Aggregated::V2));
        resources
    }

    #[test]
    fn a_word_means_a_resource_by_any_of_its_names() {
        let resources = usual();
        for (word, wanted) in [
            ("po", "pods"),
            ("Pod", "pods"),
            ("sts", "statefulsets.apps"),
            ("StatefulSet", "statefulsets.apps"),
            ("statefulsets.apps", "statefulsets.apps"),
            ("statefulset.v1.apps", "statefulsets.apps"),
            ("ev", "events"),
            ("events.events.k8s.io", "events.events.k8s.io"),
            ("sc", "storageclasses.storage.k8s.io"),
            ("pods.v1", "pods"),
        ] {
            assert_eq!(resources.find(word).map(|r| r.group_resource()).as_deref(), Some(wanted), "{word}");
        }
        assert!(resources.find("nothere").is_none() && resources.find("pods.apps").is_none());
    }

    #[test]
    fn both_forms_of_discovery_say_the_same() {
        let mut listed = Resources::default();
        listed.add_list(&stead_machinery::discovery::resource_list("apps", "v1").expect("served"));
        let wanted = usual().find("sts").expect("there");
        assert_eq!(listed.find("sts").expect("there").subresources, wanted.subresources);
        assert_eq!(listed.find("sts").expect("there"), wanted);
    }

    #[test]
    fn paths_escape_what_a_url_cannot_hold() {
        let pods = usual().find("pods").expect("there");
        assert_eq!(pods.object_path(Some("a"), "x y"), "/api/v1/namespaces/a/pods/x%20y");
        assert_eq!(usual().find("nodes").expect("there").path(Some("a")), "/api/v1/nodes");
        assert_eq!(usual().find("sts").expect("there").path(None), "/apis/apps/v1/statefulsets");
    }
}
