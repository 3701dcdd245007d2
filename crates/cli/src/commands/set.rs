//! `set image`, `set env`, `set resources`, `set serviceaccount`: features of a pod template.
//!
//! Source of the texts: `k8s.io/kubectl/pkg/cmd/set`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::common::{Change, STRATEGIC, Selection, Teller};
use crate::builder::Found;
use crate::failure::{Failure, Result, all, plain};
use crate::print::list;
use crate::session::Session;

/// Sub-commands of `set`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Images of containers: CONTAINER=IMAGE, *=IMAGE.
    Image(Common),
    /// Environment variables: KEY=VALUE, KEY-.
    Env {
        #[command(flatten)]
        common: Common,
        /// Only containers of this name; * for all.
        #[arg(short = 'c', long, default_value = "*")]
        containers: String,
        /// Show the variables.
        #[arg(long)]
        list: bool,
    },
    /// Requests and limits: --limits=cpu=200m,memory=512Mi
    Resources {
        #[command(flatten)]
        common: Common,
        #[arg(short = 'c', long, default_value = "*")]
        containers: String,
        #[arg(long, default_value = "")]
        limits: String,
        #[arg(long, default_value = "")]
        requests: String,
    },
    /// The service account of the pods.
    #[command(alias = "sa")]
    Serviceaccount(Common),
}

/// What all of them take.
#[derive(Args, Clone, Debug)]
struct Common {
    /// TYPE NAME or TYPE/NAME, then what to set.
    words: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    change: Change,
}

/// Sets it on each.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    match flags.what {
        What::Image(common) => {
            let (words, images) = split(&common.words, false);
            if images.is_empty() && words.iter().all(|word| word.contains('/')) && !words.is_empty() {
                return plain("at least one image update is required");
            }
            change(session, &common, &words, "image updated", |spec| image_patch(spec, &images)).await
        }
        What::Env { common, containers, list } => {
            let (words, changes) = split(&common.words, true);
            if list {
                return list_env(session, &common, &words).await;
            }
            change(session, &common, &words, "env updated", |spec| env_patch(spec, &containers, &changes)).await
        }
        What::Resources { common, containers, limits, requests } => {
            if limits.is_empty() && requests.is_empty() {
                return plain("you must specify an update to requests or limits (in the form of --requests/--limits)");
            }
            let (limits, requests) = (amounts(&limits)?, amounts(&requests)?);
            change(session, &common, &common.words, "resource requirements updated", |spec| {
                resources_patch(spec, &containers, &limits, &requests)
            })
            .await
        }
        What::Serviceaccount(common) => {
            let mut words = common.words.clone();
            let account = words.pop().filter(|_| !words.is_empty());
            let Some(account) = account else { return plain(crate::builder::NOTHING_NAMED) };
            change(session, &common, &words, "serviceaccount updated", |spec| {
                let same = spec["serviceAccountName"] == account.as_str();
                Ok((!same).then(|| json!({"serviceAccountName": account, "serviceAccount": account})))
            })
            .await
        }
    }
}

/// Words that name objects, and those that say what to set.
fn split(words: &[String], removals: bool) -> (Vec<String>, Vec<String>) {
    let is_change = |word: &String| word.contains('=') || (removals && word.ends_with('-'));
    let at = words.iter().position(is_change).unwrap_or(words.len());
    (words[..at].to_vec(), words[at..].to_vec())
}

/// Where the pod spec of an object is, as JSON pointer.
pub(crate) fn pod_spec(object: &Value) -> &'static str {
    match object["kind"].as_str() {
        Some("Pod") => "/spec",
        Some("CronJob") => "/spec/jobTemplate/spec/template/spec",
        _ => "/spec/template/spec",
    }
}

async fn change(
    session: &Session,
    common: &Common,
    words: &[String],
    done: &str,
    plan: impl Fn(&Value) -> Result<Option<Value>>,
) -> Result {
    let mut teller = Teller::new(session, &common.change, "kubectl-set")?;
    let (found, mut failures) = common.selection.find(session, words).await?;
    for found in found {
        if let Err(failure) = one(session, &mut teller, &found, done, &plan).await {
            failures.push(failure);
        }
    }
    all(failures)
}

async fn one(
    session: &Session,
    teller: &mut Teller,
    found: &Found,
    done: &str,
    plan: impl Fn(&Value) -> Result<Option<Value>>,
) -> Result {
    let pointer = pod_spec(&found.object);
    let Some(spec) = found.object.pointer(pointer) else {
        let resource = &found.resource;
        return plain(format!(
            "{}/{} the object is not a pod or does not have a pod template: *{}.{}",
            resource.plural, found.name, resource.version, resource.kind
        ));
    };
    let Some(mut patch) = plan(spec)? else { return Ok(()) };
    for name in pointer.split('/').skip(1).collect::<Vec<_>>().into_iter().rev() {
        patch = json!({name: patch});
    }
    let object = teller.patch(session, found, STRATEGIC, &patch).await.map_err(|failure| refused(failure, done))?;
    teller.tell(session, &found.resource, &object, done)
}

/// A refusal in the words of each sub-command.
fn refused(failure: Failure, done: &str) -> Failure {
    let what = match done {
        "image updated" => "image update to pod template:",
        "env updated" => "env update to pod template:",
        "resource requirements updated" => "resources update to pod template",
        _ => "ServiceAccountName",
    };
    Failure::Plain(format!("failed to patch {what} {}", failure.message()))
}

/// The patch of a pod spec that sets images; none when they are so already.
pub(crate) fn image_patch(spec: &Value, images: &[String]) -> Result<Option<Value>> {
    let mut patch = Map::new();
    let mut unknown: Vec<&str> = Vec::new();
    for image in images {
        let (container, image) = image.split_once('=').unwrap_or((image, ""));
        let mut known = false;
        for field in ["containers", "initContainers"] {
            for c in list(spec, &format!("/{field}")) {
                if container != "*" && c["name"] != container {
                    continue;
                }
                known = true;
                if c["image"] != image {
                    let entry = patch.entry(field).or_insert_with(|| json!([]));
                    if let Some(list) = entry.as_array_mut() {
                        list.push(json!({"name": c["name"], "image": image}));
                    }
                }
            }
        }
        if !known {
            unknown.push(container);
        }
    }
    match unknown.first() {
        Some(name) => plain(format!("unable to find container named {name:?}")),
        None => Ok((!patch.is_empty()).then(|| patch.into())),
    }
}

/// Whether a container is one of those that a pattern such as `web*` names.
fn matches(container: &Value, pattern: &str) -> bool {
    let name = container["name"].as_str().unwrap_or_default();
    match pattern.split_once('*') {
        Some((before, after)) => {
            name.starts_with(before) && name.ends_with(after) && name.len() >= before.len() + after.len()
        }
        None => name == pattern,
    }
}

fn env_patch(spec: &Value, containers: &str, changes: &[String]) -> Result<Option<Value>> {
    let mut patched = Vec::new();
    for container in list(spec, "/containers").iter().filter(|c| matches(c, containers)) {
        let mut env = Vec::new();
        for change in changes {
            match (change.split_once('='), change.strip_suffix('-')) {
                (Some((key, value)), _) => {
                    check_key(key)?;
                    let present = list(container, "/env").iter().find(|e| e["name"] == key);
                    if present.is_none_or(|present| present["value"] != value) {
                        env.push(json!({"name": key, "value": value, "valueFrom": null}));
                    }
                }
                (None, Some(key)) => {
                    if list(container, "/env").iter().any(|e| e["name"] == key) {
                        env.push(json!({"name": key, "$patch": "delete"}));
                    }
                }
                (None, None) => return plain(format!("environment variables must be of the form key=value: {change}")),
            }
        }
        if !env.is_empty() {
            patched.push(json!({"name": container["name"], "env": env}));
        }
    }
    Ok((!patched.is_empty()).then(|| json!({"containers": patched})))
}

fn check_key(key: &str) -> Result {
    let begins = key.starts_with(|c: char| c.is_ascii_alphabetic() || "-._".contains(c));
    if begins && key.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
        return Ok(());
    }
    plain(format!(
        "{key:?} is not a valid key name: a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is '[-._a-zA-Z][-._a-zA-Z0-9]*')"
    ))
}

async fn list_env(session: &Session, common: &Common, words: &[String]) -> Result {
    let (found, failures) = common.selection.find(session, words).await?;
    for found in found {
        let Some(spec) = found.object.pointer(pod_spec(&found.object)) else { continue };
        for container in list(spec, "/containers") {
            session.out(&format!(
                "# {} {}, container {}\n",
                found.resource.kind,
                found.name,
                container["name"].as_str().unwrap_or_default()
            ))?;
            for variable in list(container, "/env") {
                let name = variable["name"].as_str().unwrap_or_default();
                session.out(&match variable["value"].as_str() {
                    Some(value) => format!("{name}={value}\n"),
                    None => format!("# {name} from {}\n", origin(&variable["valueFrom"])),
                })?;
            }
        }
    }
    all(failures)
}

/// Where a variable's value comes from.
fn origin(from: &Value) -> String {
    let text = |pointer: &str| crate::print::at(from, pointer);
    if from["secretKeyRef"].is_object() {
        format!("secret {}, key {}", text("/secretKeyRef/name"), text("/secretKeyRef/key"))
    } else if from["configMapKeyRef"].is_object() {
        format!("configmap {}, key {}", text("/configMapKeyRef/name"), text("/configMapKeyRef/key"))
    } else if from["fieldRef"].is_object() {
        format!("field path {}", text("/fieldRef/fieldPath"))
    } else {
        format!("resource {}", text("/resourceFieldRef/resource"))
    }
}

fn amounts(text: &str) -> Result<Map<String, Value>> {
    let mut amounts = Map::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let Some((name, amount)) = part.split_once('=') else {
            return plain(format!("Invalid argument syntax {part}, expected <resource>=<value>"));
        };
        let _: stead_machinery::quantity::Quantity = amount.parse().map_err(|_| {
            Failure::Plain(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".into(),
            )
        })?;
        amounts.insert(name.to_owned(), amount.into());
    }
    Ok(amounts)
}

fn resources_patch(
    spec: &Value,
    containers: &str,
    limits: &Map<String, Value>,
    requests: &Map<String, Value>,
) -> Result<Option<Value>> {
    let mut patched = Vec::new();
    for container in list(spec, "/containers").iter().filter(|c| matches(c, containers)) {
        let mut resources = Map::new();
        for (field, amounts) in [("limits", limits), ("requests", requests)] {
            if !amounts.is_empty() {
                resources.insert(field.to_owned(), amounts.clone().into());
            }
        }
        patched.push(json!({"name": container["name"], "resources": resources}));
    }
    if patched.is_empty() {
        return plain(format!("unable to find container named {containers}"));
    }
    Ok(Some(json!({"containers": patched})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_set_where_they_differ() {
        let spec = json!({"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y"}], "initContainers": [{"name": "i", "image": "z"}]});
        let patch = |images: &[&str]| {
            let images: Vec<String> = images.iter().map(|image| (*image).to_owned()).collect();
            image_patch(&spec, &images).map_err(|failure| failure.message())
        };
        assert_eq!(patch(&["a=x:2"]), Ok(Some(json!({"containers": [{"name": "a", "image": "x:2"}]}))));
        assert_eq!(patch(&["a=x:1"]), Ok(None));
        assert_eq!(patch(&["c=x"]), Err("unable to find container named \"c\"".into()));
        let all = patch(&["*=x:1"]).expect("planned").expect("changes");
        assert_eq!(all["containers"].as_array().map(Vec::len), Some(1));
        assert_eq!(all["initContainers"][0]["name"], "i");
    }
}
