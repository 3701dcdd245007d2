//! The paths and operations of the kinds, once for both versions of OpenAPI.

use serde_json::{Map, Value, json};
use stead_api::kinds::Origin;
use stead_api::{Kind, Subresource};

/// Where the types of requests themselves are.
pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// The two versions of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    pub(super) fn reference(self, name: &str) -> Value {
        let place = match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        };
        json!({"$ref": format!("{place}{name}")})
    }
}

#[derive(Clone, Copy, Debug)]
struct Param {
    name: &'static str,
    place: &'static str,
    kind: &'static str,
    description: &'static str,
}

const fn query(name: &'static str, kind: &'static str, description: &'static str) -> Param {
    Param { name, place: "query", kind, description }
}

const NAMESPACE: Param = Param {
    name: "namespace",
    place: "path",
    kind: "string",
    description: "object name and auth scope, such as for teams and projects",
};
const NAME: Param = Param { name: "name", place: "path", kind: "string", description: "name of the object" };
const PRETTY: Param = query("pretty", "string", "If 'true', then the output is pretty printed.");
const DRY_RUN: Param =
    query("dryRun", "string", "When present, indicates that modifications should not be persisted: All.");
const MANAGER: Param = query("fieldManager", "string", "The name of the actor that is making these changes.");
const VALIDATION: Param =
    query("fieldValidation", "string", "What to do about unknown or duplicate fields: Ignore, Warn or Strict.");
const FORCE: Param = query("force", "boolean", "Take over fields that other managers own; for apply patches.");

const READ: &[Param] = &[];
const LIST: &[Param] = &[
    query("allowWatchBookmarks", "boolean", "Requests watch events with type BOOKMARK."),
    query("continue", "string", "Where the list goes on, from the answer before."),
    query("fieldSelector", "string", "Restricts the list of returned objects by their fields."),
    query("labelSelector", "string", "Restricts the list of returned objects by their labels."),
    query("limit", "integer", "The largest number of objects in one answer."),
    query("resourceVersion", "string", "Constrains what resource versions a request may be served from."),
    query("resourceVersionMatch", "string", "How resourceVersion is applied to list calls."),
    query("sendInitialEvents", "boolean", "Whether a watch begins with the objects that there are."),
    query("timeoutSeconds", "integer", "Timeout for the call."),
    query("watch", "boolean", "Watch for changes and return them as a stream."),
];
const WRITE: &[Param] = &[DRY_RUN, MANAGER, VALIDATION];
const PATCH: &[Param] = &[DRY_RUN, MANAGER, VALIDATION, FORCE];
const DELETE: &[Param] = &[
    DRY_RUN,
    query("gracePeriodSeconds", "integer", "Seconds before the object should be deleted; zero is at once."),
    query("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    query("propagationPolicy", "string", "Whether and how dependents are deleted: Orphan, Background or Foreground."),
];

const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const ANSWER_TYPES: &[&str] = &["application/json", "application/yaml"];

/// What an operation takes or gives.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    None,
    Text,
    Type(String),
}

#[derive(Debug)]
struct Operation {
    method: &'static str,
    action: &'static str,
    id: String,
    description: String,
    body: Body,
    answer: Body,
    codes: &'static [(&'static str, &'static str)],
    params: &'static [Param],
    tag: String,
    kind: (String, String, String),
}

/// One path with its operations.
#[derive(Debug)]
pub(super) struct PathItem {
    pub(super) path: String,
    params: Vec<Param>,
    operations: Vec<Operation>,
}

const OK: &[(&str, &str)] = &[("200", "OK")];
const CREATED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created")];
const POSTED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created"), ("202", "Accepted")];
const ACCEPTED: &[(&str, &str)] = &[("200", "OK"), ("202", "Accepted")];

/// The paths of some kinds, in the order of their names.
pub(super) fn of(kinds: &[&Kind]) -> Vec<PathItem> {
    let mut items: Vec<PathItem> = kinds.iter().flat_map(|kind| of_kind(kind)).collect();
    items.sort_by(|a, b| a.path.cmp(&b.path));
    items
}

fn of_kind(kind: &Kind) -> Vec<PathItem> {
    let base = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let scoped = if kind.namespaced() { format!("{base}/namespaces/{{namespace}}") } else { base.clone() };
    let collection = format!("{scoped}/{}", kind.plural);
    let item = format!("{collection}/{{name}}");
    let scope: Vec<Param> = if kind.namespaced() { vec![NAMESPACE] } else { Vec::new() };
    let with = |extra: &[Param]| scope.iter().chain(extra).copied().collect::<Vec<_>>();
    let mut items =
        vec![PathItem { path: collection, params: with(&[PRETTY]), operations: collection_operations(kind) }];
    if kind.origin == Origin::Asked {
        return items;
    }
    if kind.namespaced() {
        let operations = vec![list(kind, "ForAllNamespaces")];
        items.push(PathItem { path: format!("{base}/{}", kind.plural), params: vec![PRETTY], operations });
    }
    items.push(PathItem { path: item.clone(), params: with(&[NAME, PRETTY]), operations: item_operations(kind) });
    for sub in kind.subresources {
        let operations = subresource_operations(kind, *sub);
        items.push(PathItem { path: format!("{item}/{}", sub.name()), params: with(&[NAME, PRETTY]), operations });
    }
    items
}

/// Fills in what all operations of a kind have alike. `on` names the sub-resource, `what` the body.
fn operation(kind: &Kind, method: &'static str, action: &'static str, verb: &str, suffix: &str) -> Operation {
    let scope = if kind.namespaced() && suffix != "ForAllNamespaces" { "Namespaced" } else { "" };
    let group: String = if kind.group.is_empty() {
        "Core".to_owned()
    } else {
        kind.group.trim_end_matches(".k8s.io").split('.').map(capital).collect()
    };
    let version = capital(kind.version);
    let tag = format!("{}_{}", decapital(&group), kind.version);
    Operation {
        method,
        action,
        id: format!("{verb}{group}{version}{scope}{}{suffix}", kind.kind),
        description: String::new(),
        body: Body::None,
        answer: Body::Type(kind.schema.to_owned()),
        codes: OK,
        params: READ,
        tag,
        kind: (kind.group.to_owned(), kind.version.to_owned(), kind.kind.to_owned()),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_ascii_uppercase().to_string() + chars.as_str())
}

fn decapital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_ascii_lowercase().to_string() + chars.as_str())
}

fn list(kind: &Kind, suffix: &str) -> Operation {
    Operation {
        description: format!("list or watch objects of kind {}", kind.kind),
        answer: Body::Type(format!("{}List", kind.schema)),
        params: LIST,
        ..operation(kind, "get", "list", "list", suffix)
    }
}

fn collection_operations(kind: &Kind) -> Vec<Operation> {
    let mut operations = Vec::new();
    if kind.verbs().contains(&"list") {
        operations.push(list(kind, ""));
    }
    if kind.origin == Origin::Measured {
        return operations;
    }
    operations.push(Operation {
        description: format!("create a {}", kind.kind),
        body: Body::Type(kind.schema.to_owned()),
        codes: POSTED,
        params: WRITE,
        ..operation(kind, "post", "post", "create", "")
    });
    if kind.verbs().contains(&"deletecollection") {
        operations.push(Operation {
            description: format!("delete collection of {}", kind.kind),
            body: options("DeleteOptions"),
            answer: options("Status"),
            params: DELETE,
            ..operation(kind, "delete", "deletecollection", "delete", "")
        });
        if let Some(last) = operations.last_mut() {
            // upstream says what is deleted before the scope: deleteCoreV1CollectionNamespacedPod
            let tail = if kind.namespaced() { format!("Namespaced{}", kind.kind) } else { kind.kind.to_owned() };
            last.id = last.id.replacen(&tail, &format!("Collection{tail}"), 1);
        }
    }
    operations
}

fn options(name: &str) -> Body {
    Body::Type(format!("{META}{name}"))
}

fn item_operations(kind: &Kind) -> Vec<Operation> {
    let own = || Body::Type(kind.schema.to_owned());
    let read = Operation {
        description: format!("read the specified {}", kind.kind),
        ..operation(kind, "get", "get", "read", "")
    };
    if kind.origin == Origin::Measured {
        return vec![read];
    }
    vec![
        read,
        Operation {
            description: format!("replace the specified {}", kind.kind),
            body: own(),
            codes: CREATED,
            params: WRITE,
            ..operation(kind, "put", "put", "replace", "")
        },
        Operation {
            description: format!("partially update the specified {}", kind.kind),
            body: options("Patch"),
            codes: CREATED,
            params: PATCH,
            ..operation(kind, "patch", "patch", "patch", "")
        },
        Operation {
            description: format!("delete a {}", kind.kind),
            body: options("DeleteOptions"),
            answer: options("Status"),
            codes: ACCEPTED,
            params: DELETE,
            ..operation(kind, "delete", "delete", "delete", "")
        },
    ]
}

fn subresource_operations(kind: &Kind, sub: Subresource) -> Vec<Operation> {
    let (of, body_kind) = sub.body(kind);
    let suffix = match sub {
        Subresource::EphemeralContainers => "Ephemeralcontainers".to_owned(),
        Subresource::PortForward => "Portforward".to_owned(),
        other => capital(other.name()),
    };
    let gvk = (of.group.to_owned(), of.version.to_owned(), body_kind.clone());
    let schema = stead_api::schema::schema();
    let of_type = schema.of_object(of.group, of.version, &body_kind).map(|id| Body::Type(schema.get(id).name()));
    let connects = matches!(
        sub,
        Subresource::Exec | Subresource::Attach | Subresource::PortForward | Subresource::Proxy | Subresource::Log
    );
    let body = if connects { Body::Text } else { of_type.unwrap_or(Body::Text) };
    let one = |method, action, verb: &str, takes: Body, codes, params| Operation {
        description: format!("{verb} {} of the specified {}", sub.name(), kind.kind),
        body: takes,
        answer: body.clone(),
        codes,
        params,
        kind: gvk.clone(),
        ..operation(kind, method, action, verb, &suffix)
    };
    let verbs = sub.verbs();
    let mut operations = Vec::new();
    let has = |verb: &str| verbs.contains(&verb);
    if has("get") && connects && sub != Subresource::Log {
        operations.push(one("get", "connect", "connectGet", Body::None, OK, READ));
    } else if has("get") {
        operations.push(one("get", "get", "read", Body::None, OK, READ));
    }
    if has("create") && connects {
        operations.push(one("post", "connect", "connectPost", Body::None, OK, READ));
    } else if has("create") {
        operations.push(one("post", "post", "create", body.clone(), POSTED, WRITE));
    }
    if has("update") && !connects {
        operations.push(one("put", "put", "replace", body.clone(), CREATED, WRITE));
    }
    if has("patch") && !connects {
        operations.push(one("patch", "patch", "patch", options("Patch"), CREATED, PATCH));
    }
    operations
}

impl PathItem {
    pub(super) fn to_value(&self, dialect: Dialect) -> Value {
        let mut item = Map::new();
        for operation in &self.operations {
            item.insert(operation.method.to_owned(), operation.to_value(dialect));
        }
        let params: Vec<Value> = self.params.iter().map(|p| p.to_value(dialect)).collect();
        item.insert("parameters".to_owned(), params.into());
        item.into()
    }
}

impl Param {
    fn to_value(self, dialect: Dialect) -> Value {
        let mut value =
            json!({"name": self.name, "in": self.place, "description": self.description, "uniqueItems": true});
        if self.place == "path" {
            value["required"] = true.into();
        }
        match dialect {
            Dialect::V2 => value["type"] = self.kind.into(),
            Dialect::V3 => {
                value["schema"] = json!({"type": self.kind, "uniqueItems": true});
                value.as_object_mut().map(|map| map.remove("uniqueItems"));
            }
        }
        value
    }
}

impl Operation {
    fn to_value(&self, dialect: Dialect) -> Value {
        let (group, version, kind) = &self.kind;
        let mut value = json!({
            "description": self.description, "operationId": self.id, "tags": [self.tag],
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        let mut params: Vec<Value> = self.params.iter().map(|p| p.to_value(dialect)).collect();
        let mut responses = Map::new();
        for (code, text) in self.codes {
            responses.insert((*code).to_owned(), self.response(dialect, text));
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        value["responses"] = responses.into();
        let required = self.method != "delete";
        match dialect {
            Dialect::V2 => {
                if let Body::Type(name) = &self.body {
                    let schema = dialect.reference(name);
                    params.push(json!({"in": "body", "name": "body", "required": required, "schema": schema}));
                }
                let consumes = if self.method == "patch" { PATCH_TYPES } else { &["*/*"] };
                value["consumes"] = json!(consumes);
                value["produces"] = json!(ANSWER_TYPES);
                value["schemes"] = json!(["https"]);
            }
            Dialect::V3 => {
                if let Body::Type(name) = &self.body {
                    let types = if self.method == "patch" { PATCH_TYPES } else { &["*/*"] };
                    let content = content(types, &dialect.reference(name));
                    value["requestBody"] = json!({"content": content, "required": required});
                }
            }
        }
        if !params.is_empty() {
            value["parameters"] = params.into();
        }
        value
    }

    fn response(&self, dialect: Dialect, text: &str) -> Value {
        let schema = match &self.answer {
            Body::None => return json!({"description": text}),
            Body::Text => json!({"type": "string"}),
            Body::Type(name) => dialect.reference(name),
        };
        match dialect {
            Dialect::V2 => json!({"description": text, "schema": schema}),
            Dialect::V3 => json!({"description": text, "content": content(ANSWER_TYPES, &schema)}),
        }
    }
}

fn content(types: &[&str], schema: &Value) -> Value {
    types.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
}
