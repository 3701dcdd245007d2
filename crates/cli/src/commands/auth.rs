//! `auth can-i` and `auth whoami`: what the server lets the user do, and whom it takes them for.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/auth`.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use crate::failure::{Failure, Result, plain};
use crate::print::{Output, Tab, at, list};
use crate::server::Call;
use crate::session::Session;

const VERBS: [&str; 16] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "use",
    "bind",
    "impersonate",
    "*",
    "approve",
    "sign",
    "escalate",
    "attest",
];
const URL_VERBS: [&str; 8] = ["get", "put", "post", "head", "options", "delete", "patch", "*"];
const FORMATS: &str = "json,yaml";

/// What is asked.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Whether something is allowed.
    CanI {
        /// VERB TYPE, VERB TYPE/NAME or VERB /URL
        words: Vec<String>,
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        #[arg(long, default_value = "")]
        subresource: String,
        /// Only the exit code.
        #[arg(short = 'q', long)]
        quiet: bool,
    },
    /// Whom the server takes the user for.
    Whoami(Output),
}

/// Asks.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    match flags.what {
        What::CanI { words, all_namespaces, subresource, quiet } => {
            let [verb, object] = &words[..] else {
                return plain(
                    "you must specify two arguments: verb resource or verb resource/resourceName.\nSee 'kubectl auth can-i -h' for help and examples.",
                );
            };
            let spec = if object.starts_with('/') {
                warn_of_verb(session, verb, &URL_VERBS);
                json!({"nonResourceAttributes": {"verb": verb, "path": object}})
            } else {
                warn_of_verb(session, verb, &VERBS);
                let namespace = if all_namespaces { "" } else { session.namespace().await? };
                attributes(session, verb, object, &subresource, namespace).await?
            };
            let answer = review(
                session,
                "authorization.k8s.io",
                "selfsubjectaccessreviews",
                "SelfSubjectAccessReview",
                &json!({"spec": spec}),
            )
            .await?;
            let allowed = at(&answer, "/status/allowed") == "true" || answer["status"]["allowed"] == true;
            if !quiet {
                session.out(&format!("{}\n", said(&answer["status"], allowed)))?;
            }
            if allowed { Ok(()) } else { Err(Failure::Code(1)) }
        }
        What::Whoami(output) => {
            let format = output.format(FORMATS, true)?;
            let answer =
                review(session, "authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", &json!({})).await?;
            if !format.is_human() {
                let mut whole = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {"creationTimestamp": null}});
                whole["status"] = answer["status"].clone();
                let mut format = format;
                return session.out(&format.print(&whole)?);
            }
            session.out(&Tab::default().lay_out(&who(&answer["status"]["userInfo"])))
        }
    }
}

fn warn_of_verb(session: &Session, verb: &str, known: &[&str]) {
    if !known.contains(&verb) {
        session.err(&format!("Warning: verb '{verb}' is not a known verb\n\n"));
    }
}

/// The attributes of a request for a resource; what the server does not know is asked for as it stands.
async fn attributes(session: &Session, verb: &str, object: &str, subresource: &str, namespace: &str) -> Result<Value> {
    let (word, name) = object.split_once('/').unwrap_or((object, ""));
    let found = if word == "*" { None } else { session.resources().await?.find(word) };
    let (group, resource) = match &found {
        Some(found) => (found.group.clone(), found.plural.clone()),
        None => {
            let (resource, group) = word.split_once('.').unwrap_or((word, ""));
            if word != "*" {
                let of = if group.is_empty() { String::new() } else { format!(" in group '{group}'") };
                session.err(&format!("Warning: the server doesn't have a resource type '{resource}'{of}\n\n"));
            }
            (group.to_owned(), resource.to_owned())
        }
    };
    let namespaced = found.as_ref().is_none_or(|found| found.namespaced);
    if !namespaced && !namespace.is_empty() {
        let of = if group.is_empty() { String::new() } else { format!(" in group '{group}'") };
        session.err(&format!("Warning: resource '{resource}' is not namespace scoped{of}\n\n"));
    }
    Ok(json!({"resourceAttributes": {
        "namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name,
    }}))
}

async fn review(session: &Session, group: &str, plural: &str, kind: &str, body: &Value) -> Result<Value> {
    let mut body = body.clone();
    body["apiVersion"] = format!("{group}/v1").into();
    body["kind"] = kind.into();
    let path = format!("/apis/{group}/v1/{plural}");
    let call = Call::new(Method::POST, &path).body("application/json", body.to_string().into_bytes());
    session.server().await?.send(call).await
}

/// `yes`, or `no` with the server's reasons.
fn said(status: &Value, allowed: bool) -> String {
    let mut text = if allowed { "yes" } else { "no" }.to_owned();
    if !allowed {
        for reason in
            ["/reason", "/evaluationError"].map(|path| at(status, path)).into_iter().filter(|reason| !reason.is_empty())
        {
            text.push_str(&format!(" - {reason}"));
        }
    }
    text
}

fn who(user: &Value) -> Vec<Vec<String>> {
    let mut lines = vec![vec!["ATTRIBUTE".to_owned(), "VALUE".to_owned()]];
    let all = |values: &[Value]| format!("[{}]", values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    let mut line = |name: String, value: String| {
        if !value.is_empty() && value != "[]" {
            lines.push(vec![name, value]);
        }
    };
    line("Username".to_owned(), at(user, "/username").to_owned());
    line("UID".to_owned(), at(user, "/uid").to_owned());
    line("Groups".to_owned(), all(list(user, "/groups")));
    for (key, values) in user["extra"].as_object().into_iter().flatten() {
        line(format!("Extra: {key}"), all(values.as_array().map_or(&[][..], Vec::as_slice)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_the_servers_reasons() {
        assert_eq!(said(&json!({"reason": "because"}), true), "yes");
        assert_eq!(said(&json!({"reason": "because", "evaluationError": "x"}), false), "no - because - x");
        let user = json!({"username": "a", "groups": ["g", "h"], "extra": {"k": ["v"]}});
        assert_eq!(
            who(&user)[1..],
            [["Username", "a"], ["Groups", "[g h]"], ["Extra: k", "[v]"]].map(|line| line.map(str::to_owned).to_vec())
        );
    }
}
