//! `taint`: what keeps pods off nodes that do not tolerate it.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/taint`.

use clap::Args;
use serde_json::{Value, json};

use super::common::{Change, DryRun, STRATEGIC, Teller};
use crate::builder::{self, Question};
use crate::failure::{Failure, Result, all, plain};
use crate::print::list;
use crate::session::Session;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Which nodes, and what.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// node NAME KEY=VALUE:EFFECT ... or KEY:EFFECT- or KEY-
    words: Vec<String>,
    #[arg(short = 'l', long)]
    selector: Option<String>,
    #[arg(long)]
    all: bool,
    /// Replace a taint of the same key and effect.
    #[arg(long)]
    overwrite: bool,
    #[arg(long, hide = true)]
    validate: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// A taint to set, or to take away; without an effect: all of that key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Taint {
    key: String,
    value: String,
    effect: String,
}

/// Changes each node.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let is_taint = |word: &String| word.contains('=') || word.contains(':') || word.ends_with('-');
    let at = flags.words.iter().position(is_taint).unwrap_or(flags.words.len());
    let (words, taints) = flags.words.split_at(at);
    let Some(kind) = words.first() else {
        return plain("one or more resources must be specified as <resource> <name>");
    };
    if taints.is_empty() {
        return plain("at least one taint update is required");
    }
    let (wanted, unwanted) = understand(taints)?;
    match session.resources().await?.find(kind) {
        None => return Err(Failure::Bare(format!("the server doesn't have a resource type {kind:?}"))),
        Some(resource) if !resource.is("", "Node") => {
            return plain(format!("invalid resource type {}, only node types are supported", resource.plural));
        }
        Some(_) => {}
    }
    let mut teller = Teller::new(session, &flags.change, "kubectl-taint")?;
    let question = Question { words, selector: flags.selector.as_deref(), all: flags.all, ..Question::default() };
    let (found, mut failures) = builder::find(session, &question).await?;
    for node in found {
        let done = async {
            let (taints, done) =
                changed(&node.name, list(&node.object, "/spec/taints"), &wanted, &unwanted, flags.overwrite)?;
            let patch = json!({"spec": {"taints": taints}});
            let patch = replaced(&node.object, patch);
            let object = match teller.dry_run {
                DryRun::Client => node.object.clone(),
                DryRun::None | DryRun::Server => teller.patch(session, &node, STRATEGIC, &patch).await?,
            };
            // Kubectl does not say here that it was a dry run.
            let dry_run = std::mem::take(&mut teller.dry_run);
            let told = teller.tell(session, &node.resource, &object, done);
            teller.dry_run = dry_run;
            told
        };
        if let Err(failure) = done.await {
            failures.push(failure);
        }
    }
    all(failures)
}

/// The list of taints as a whole, on the version of the node that was read.
fn replaced(node: &Value, mut patch: Value) -> Value {
    match patch["spec"]["taints"].as_array_mut() {
        // A list of nothing but the directive is no list.
        Some(taints) if taints.is_empty() => patch["spec"]["taints"] = Value::Null,
        Some(taints) => taints.push(json!({"$patch": "replace"})),
        None => {}
    }
    patch["metadata"] = json!({"resourceVersion": node["metadata"]["resourceVersion"]});
    patch
}

/// What is to be set, and what is to go.
fn understand(words: &[String]) -> Result<(Vec<Taint>, Vec<Taint>)> {
    let (mut wanted, mut unwanted): (Vec<Taint>, Vec<Taint>) = (Vec::new(), Vec::new());
    for word in words {
        if let Some(word) = word.strip_suffix('-') {
            let (key, effect) = word.split_once(':').unwrap_or((word, ""));
            let key = key.split('=').next().unwrap_or_default();
            check_effect(effect, effect.is_empty())?;
            unwanted.push(Taint { key: key.to_owned(), value: String::new(), effect: effect.to_owned() });
            continue;
        }
        let taint = one(word)?;
        if wanted.iter().any(|t| t.key == taint.key && t.effect == taint.effect) {
            return hinted(format!(
                "duplicated taints with the same key and effect: {{{} {} {} <nil>}}",
                taint.key, taint.value, taint.effect
            ));
        }
        wanted.push(taint);
    }
    let both: Vec<String> = wanted
        .iter()
        .filter(|taint| {
            unwanted.iter().any(|gone| gone.key == taint.key && (gone.effect.is_empty() || gone.effect == taint.effect))
        })
        .map(|taint| format!("{}={}", taint.key, taint.effect))
        .collect();
    if !both.is_empty() {
        return plain(format!(
            "can not both modify and remove the following taint(s) in the same command: {}",
            both.join(", ")
        ));
    }
    Ok((wanted, unwanted))
}

fn one(word: &str) -> Result<Taint> {
    let Some((front, effect)) = word.split_once(':') else {
        return hinted(format!("invalid taint spec: {word}"));
    };
    let (key, value) = front.split_once('=').unwrap_or((front, ""));
    if key.is_empty() || value.contains('=') || effect.contains(':') {
        return hinted(format!("invalid taint spec: {word}"));
    }
    check_effect(effect, false)?;
    Ok(Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
}

fn check_effect(effect: &str, may_be_left_out: bool) -> Result {
    if may_be_left_out || EFFECTS.contains(&effect) {
        return Ok(());
    }
    hinted(format!("invalid taint effect: {effect}, unsupported taint effect"))
}

fn hinted<T>(text: String) -> Result<T> {
    plain(format!("{text}\nSee 'kubectl taint -h' for help and examples"))
}

/// The taints of a node after the change, and what was done. Pure.
fn changed(
    node: &str,
    old: &[Value],
    wanted: &[Taint],
    unwanted: &[Taint],
    overwrite: bool,
) -> Result<(Vec<Value>, &'static str)> {
    let same =
        |value: &Value, taint: &Taint| value["key"] == taint.key.as_str() && value["effect"] == taint.effect.as_str();
    let gone = |value: &Value, taint: &Taint| {
        value["key"] == taint.key.as_str() && (taint.effect.is_empty() || value["effect"] == taint.effect.as_str())
    };
    if !overwrite && wanted.iter().any(|taint| old.iter().any(|value| same(value, taint))) {
        return plain(format!("node {node} already has a taint(s) with same effect(s) and --overwrite is false"));
    }
    if let Some(missing) = unwanted.iter().find(|taint| !old.iter().any(|value| gone(value, taint))) {
        let effect = if missing.effect.is_empty() { String::new() } else { format!(":{}", missing.effect) };
        return plain(format!("taint \"{}{effect}\" not found", missing.key));
    }
    let mut taints: Vec<Value> = Vec::new();
    for taint in wanted {
        let mut value = json!({"key": taint.key, "effect": taint.effect});
        if !taint.value.is_empty() {
            value["value"] = taint.value.as_str().into();
        }
        taints.push(value);
    }
    let overwrites = old.iter().any(|value| wanted.iter().any(|taint| same(value, taint)));
    let stays = |value: &&Value| {
        !wanted.iter().any(|taint| same(value, taint)) && !unwanted.iter().any(|taint| gone(value, taint))
    };
    taints.extend(old.iter().filter(stays).cloned());
    let done = match (wanted.is_empty(), unwanted.is_empty()) {
        (false, true) if overwrites => "modified",
        (false, true) => "tainted",
        (true, _) => "untainted",
        (false, false) => "modified",
    };
    Ok((taints, done))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `old | words | overwrite`, and what comes of it.
    fn told(old: &str, words: &str, overwrite: bool) -> String {
        let split = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let old: Vec<Value> = understand(&split(old))
            .expect("taints")
            .0
            .iter()
            .map(|t| json!({"key": t.key, "value": t.value, "effect": t.effect}))
            .collect();
        let outcome =
            understand(&split(words)).and_then(|(wanted, unwanted)| changed("n", &old, &wanted, &unwanted, overwrite));
        match outcome {
            Err(failure) => failure.message().lines().next().unwrap_or_default().to_owned(),
            Ok((taints, done)) => {
                let text = |t: &Value| {
                    format!(
                        "{}={}:{}",
                        t["key"].as_str().unwrap_or(""),
                        t["value"].as_str().unwrap_or(""),
                        t["effect"].as_str().unwrap_or("")
                    )
                };
                format!("{done} {}", taints.iter().map(text).collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn taints_are_set_changed_and_taken_away() {
        for (old, words, overwrite, wanted) in [
            ("", "a=b:NoSchedule", false, "tainted a=b:NoSchedule"),
            ("x=:NoExecute", "a:NoSchedule", false, "tainted a=:NoSchedule x=:NoExecute"),
            (
                "a=b:NoSchedule",
                "a=c:NoSchedule",
                false,
                "node n already has a taint(s) with same effect(s) and --overwrite is false",
            ),
            ("a=b:NoSchedule", "a=c:NoSchedule", true, "modified a=c:NoSchedule"),
            ("a=b:NoSchedule a=b:NoExecute", "a:NoExecute-", false, "untainted a=b:NoSchedule"),
            ("a=b:NoSchedule a=b:NoExecute", "a-", false, "untainted "),
            ("", "a-", false, "taint \"a\" not found"),
            ("", "a=b:Frob", false, "invalid taint effect: Frob, unsupported taint effect"),
            (
                "",
                "a=b:NoSchedule a:NoSchedule-",
                false,
                "can not both modify and remove the following taint(s) in the same command: a=NoSchedule",
            ),
        ] {
            assert_eq!(told(old, words, overwrite), wanted, "{old} | {words}");
        }
    }
}
