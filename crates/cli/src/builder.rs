//! From the words of a command line to the objects that it means. Every command that takes `TYPE NAME`, `TYPE/NAME` or `-f` uses it.
//!
//! Source of the rules and texts: `k8s.io/cli-runtime/pkg/resource` (builder).

use std::path::PathBuf;
use std::rc::Rc;

use http::Method;
use serde_json::Value;

use crate::failure::{Failure, Result, plain};
use crate::manifest::{self, Files};
use crate::resources::{Resource, Resources};
use crate::server::Call;
use crate::session::Session;

/// Kubectl's answer to a command without anything to work on.
pub(crate) const NOTHING_NAMED: &str = "You must provide one or more resources by argument or filename.
Example resource specifications include:
   '-f rsrc.yaml'
   '--filename=rsrc.json'
   '<resource> <name>'
   '<resource>'";

/// What the command line says about which objects are meant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Question<'a> {
    pub(crate) words: &'a [String],
    pub(crate) files: Files,
    pub(crate) selector: Option<&'a str>,
    pub(crate) fields: Option<&'a str>,
    pub(crate) all_namespaces: bool,
    /// `--all`.
    pub(crate) all: bool,
    /// Whether a bare `TYPE` means all of them (get) or needs a name, a selector or `--all` (delete, scale).
    pub(crate) bare_type: bool,
}

/// What is meant by part of a command line: one object, or all of a resource that fit.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) resource: Rc<Resource>,
    /// None for all namespaces, and for what has none.
    pub(crate) namespace: Option<String>,
    /// None for all that fit.
    pub(crate) name: Option<String>,
    /// The manifest, when it came from a file.
    pub(crate) object: Option<Value>,
    /// The file.
    pub(crate) source: String,
    pub(crate) selector: String,
    pub(crate) fields: String,
}

impl Target {
    /// The URL path of the object, or of the list.
    pub(crate) fn path(&self) -> String {
        match &self.name {
            Some(name) => self.resource.object_path(self.namespace.as_deref(), name),
            None => self.resource.path(self.namespace.as_deref()),
        }
    }

    /// The selectors of a list as query parameters.
    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        if !self.selector.is_empty() {
            query.push(("labelSelector", self.selector.clone()));
        }
        if !self.fields.is_empty() {
            query.push(("fieldSelector", self.fields.clone()));
        }
        query
    }
}

/// One object of the server, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) resource: Rc<Resource>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) object: Value,
    pub(crate) source: String,
}

impl Found {
    pub(crate) fn path(&self) -> String {
        self.resource.object_path(self.namespace.as_deref(), &self.name)
    }

    /// `statefulset.apps/web`.
    pub(crate) fn named(&self) -> String {
        self.resource.named(&self.name)
    }
}

/// A resource and perhaps a name: the words of a command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) resource: Rc<Resource>,
    pub(crate) name: Option<String>,
}

/// Understands `pods`, `pods a b`, `po,svc`, `pod/a svc/b`. Pure.
pub(crate) fn understand(resources: &Resources, words: &[String]) -> Result<Vec<Named>> {
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if words.iter().any(|word| word.contains('/')) {
        return words.iter().map(|word| slashed(resources, word)).collect();
    }
    let mut found: Vec<Named> = Vec::new();
    let names = &words[1..];
    for word in first.split(',') {
        for resource in by_word(resources, word, names.is_empty())? {
            if names.is_empty() {
                found.push(Named { resource, name: None });
            } else {
                found.extend(names.iter().map(|name| Named { resource: resource.clone(), name: Some(name.clone()) }));
            }
        }
    }
    Ok(found)
}

fn slashed(resources: &Resources, word: &str) -> Result<Named> {
    let Some((kind, name)) = word.split_once('/') else {
        return plain(
            "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'",
        );
    };
    if kind.is_empty() || name.is_empty() || name.contains('/') {
        return plain("arguments in resource/name form must have a single resource and name");
    }
    let mut found = by_word(resources, kind, false)?;
    Ok(Named { resource: found.remove(0), name: Some(name.to_owned()) })
}

fn by_word(resources: &Resources, word: &str, categories: bool) -> Result<Vec<Rc<Resource>>> {
    if let Some(resource) = resources.find(word) {
        return Ok(vec![resource]);
    }
    let category = resources.category(word);
    match category.is_empty() {
        true => plain(format!("the server doesn't have a resource type {word:?}")),
        false if categories => Ok(category),
        false => plain("you must specify only one resource"),
    }
}

/// What a command line means: objects of files, or words.
pub(crate) async fn targets(session: &Session, question: &Question<'_>) -> Result<Vec<Target>> {
    if !question.files.is_empty() {
        question.files.check()?;
        let is_file = |path: &&PathBuf| path.as_os_str() != "-" && !path.to_str().is_some_and(manifest::is_url);
        let missing = question.files.filename.iter().filter(is_file).find(|path| !path.exists());
        if let Some(path) = missing {
            return plain(format!("the path {:?} does not exist", path.display().to_string()));
        }
        if !question.words.is_empty() {
            return plain(
                "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
            );
        }
        return from_files(session, question).await;
    }
    if question.words.is_empty() {
        return plain(NOTHING_NAMED);
    }
    let resources = session.resources().await?;
    let named = understand(&resources, question.words)?;
    check(question, &named)?;
    let mut targets = Vec::new();
    for Named { resource, name } in named {
        let namespace = match (resource.namespaced, question.all_namespaces) {
            (true, false) => Some(session.namespace().await?.to_owned()),
            _ => None,
        };
        targets.push(Target {
            resource,
            namespace,
            name,
            object: None,
            source: String::new(),
            selector: question.selector.unwrap_or_default().to_owned(),
            fields: question.fields.unwrap_or_default().to_owned(),
        });
    }
    Ok(targets)
}

/// Refuses words and flags that do not go together.
fn check(question: &Question<'_>, named: &[Named]) -> Result {
    let by_name = named.iter().any(|n| n.name.is_some());
    let selects = question.selector.is_some_and(|s| !s.is_empty()) || question.fields.is_some_and(|f| !f.is_empty());
    if question.all && question.selector.is_some_and(|s| !s.is_empty()) {
        return plain("setting 'all' parameter but found a non empty selector. ");
    }
    if by_name && selects {
        return plain("name cannot be provided when a selector is specified");
    }
    if by_name && question.all {
        return plain("name cannot be provided when all is specified");
    }
    if by_name && question.all_namespaces {
        return plain("a resource cannot be retrieved by name across all namespaces");
    }
    if !by_name && !selects && !question.all && !question.bare_type {
        return plain("resource(s) were provided, but no name was specified");
    }
    Ok(())
}

async fn from_files(session: &Session, question: &Question<'_>) -> Result<Vec<Target>> {
    let loaded = manifest::load(&question.files).await?;
    let selector = question.selector.unwrap_or_default();
    let wanted = stead_machinery::selector::Selector::parse(selector).map_err(Failure::Plain)?;
    let mut targets = Vec::new();
    for loaded in loaded {
        if wanted.matches_labels(&loaded.object["metadata"]["labels"]) {
            targets.push(of_manifest(session, loaded).await?);
        }
    }
    Ok(targets)
}

/// The target of a manifest, in the namespace that it or the command line names.
pub(crate) async fn of_manifest(session: &Session, loaded: manifest::Loaded) -> Result<Target> {
    let manifest::Loaded { mut object, source } = loaded;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let (name, mut namespace) = (text(&object["metadata"]["name"]), text(&object["metadata"]["namespace"]));
    let Some(resource) = session.resources().await?.of_object(&api_version, &kind) else {
        return plain(format!(
            "resource mapping not found for name: {name:?} namespace: {namespace:?} from {source:?}: no matches for kind {kind:?} in version {api_version:?}\nensure CRDs are installed first"
        ));
    };
    if resource.namespaced {
        let wanted = session.namespace().await?;
        if namespace.is_empty() {
            namespace = wanted.to_owned();
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("namespace".into(), namespace.clone().into());
            }
        } else if session.globals.namespace.is_some() && namespace != wanted {
            return plain(format!(
                "the namespace from the provided object {namespace:?} does not match the namespace {wanted:?}. You must pass '--namespace={namespace}' to perform this operation."
            ));
        }
    }
    Ok(Target {
        namespace: resource.namespaced.then_some(namespace),
        resource,
        name: (!name.is_empty()).then_some(name),
        object: Some(object),
        source,
        selector: String::new(),
        fields: String::new(),
    })
}

/// Reads the objects that targets mean. What fails is told after the rest.
pub(crate) async fn fetch(session: &Session, targets: &[Target]) -> (Vec<Found>, Vec<Failure>) {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for target in targets {
        match fetch_one(session, target).await {
            Ok(objects) => found.extend(objects),
            Err(failure) => failures.push(failure),
        }
    }
    (found, failures)
}

async fn fetch_one(session: &Session, target: &Target) -> Result<Vec<Found>> {
    let server = session.server().await?;
    let path = target.path();
    let one = |object: Value, name: &str| Found {
        resource: target.resource.clone(),
        namespace: object["metadata"]["namespace"].as_str().map(str::to_owned).or_else(|| target.namespace.clone()),
        name: name.to_owned(),
        object,
        source: target.source.clone(),
    };
    if let Some(name) = &target.name {
        return match server.send(Call::new(Method::GET, &path)).await {
            Ok(object) => Ok(vec![one(object, name)]),
            Err(failure) => Err(absent(session, target.namespace.as_deref(), failure).await),
        };
    }
    let listed = server.list(&path, &target.query(), "application/json").await;
    let mut list = listed.map_err(|failure| of_list(failure, target))?;
    let items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let (api_version, kind) = (target.resource.api_version(), target.resource.kind.clone());
    let item = |mut item: Value| {
        item["apiVersion"] = api_version.clone().into();
        item["kind"] = kind.clone().into();
        let name = item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        one(item, &name)
    };
    Ok(items.into_iter().map(item).collect())
}

/// When an object is not found because its namespace is not there, that is what is told.
pub(crate) async fn absent(session: &Session, namespace: Option<&str>, failure: Failure) -> Failure {
    let Some(namespace) = namespace.filter(|_| failure.is_not_found()) else { return failure };
    match session.read("", "Namespace", "", namespace).await {
        Err(missing) if missing.is_not_found() => missing,
        _ => failure,
    }
}

/// A failure to list, with what was looked for.
pub(crate) fn of_list(failure: Failure, target: &Target) -> Failure {
    let Failure::Api(mut refusal) = failure else { return failure };
    if matches!(refusal.status["reason"].as_str(), Some("BadRequest" | "NotFound")) {
        let resource =
            format!("{}/{}, Resource={}", target.resource.group, target.resource.version, target.resource.plural);
        let message = refusal.status["message"].as_str().unwrap_or_default();
        let text = match (&*target.selector, &*target.fields) {
            ("", "") => format!("Unable to list {resource:?}: {message}"),
            (labels, fields) => {
                format!(
                    "Unable to find {resource:?} that match label selector {labels:?}, field selector {fields:?}: {message}"
                )
            }
        };
        refusal.status["message"] = text.into();
    }
    Failure::Api(refusal)
}

/// Words to objects in one go. Fails only when nothing could be understood.
pub(crate) async fn find(session: &Session, question: &Question<'_>) -> Result<(Vec<Found>, Vec<Failure>)> {
    let targets = targets(session, question).await?;
    Ok(fetch(session, &targets).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::usual;

    fn shown(words: &str) -> String {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        match understand(&usual(), &words) {
            Ok(named) => {
                let one = |n: &Named| n.name.as_ref().map_or(n.resource.plural.clone(), |name| n.resource.named(name));
                named.iter().map(one).collect::<Vec<_>>().join(" ")
            }
            Err(failure) => failure.message(),
        }
    }

    #[test]
    fn the_words_of_a_command_line_mean_objects() {
        for (words, wanted) in [
            ("pods", "pods"),
            ("po,svc,sts", "pods services statefulsets"),
            ("sts web db", "statefulset.apps/web statefulset.apps/db"),
            ("po,svc a", "pod/a service/a"),
            ("pod/a svc/b", "pod/a service/b"),
            (
                "all",
                "pods replicationcontrollers services daemonsets deployments replicasets statefulsets horizontalpodautoscalers cronjobs jobs",
            ),
            ("nothere", "the server doesn't have a resource type \"nothere\""),
            ("pod/a/b", "arguments in resource/name form must have a single resource and name"),
        ] {
            assert_eq!(shown(words), wanted, "{words}");
        }
        assert!(shown("pod pod/a").starts_with("there is no need to specify a resource type as a separate argument"));
    }
}
