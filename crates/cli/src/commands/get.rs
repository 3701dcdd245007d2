//! `get`: objects as tables, or in any other form; then their changes.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/get`.

use std::cmp::Ordering;
use std::rc::Rc;

use clap::Args;
use futures::StreamExt as _;
use http::Method;
use serde_json::Value;

use crate::builder::{self, Question, Target};
use crate::failure::{Failure, Result, all, plain};
use crate::manifest::Files;
use crate::print::table::{Look, headings, rows};
use crate::print::{Format, GET_FORMATS, JsonPath, Output, Tab, list_of, without_managed_fields};
use crate::resources::{Resource, items};
use crate::server::{Call, TABLE};
use crate::session::Session;

/// What to get and how to show it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// TYPE, TYPE NAME ..., or TYPE/NAME ...; types may be joined by commas.
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(flatten)]
    pub(crate) output: Output,
    /// In all namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Label selector.
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// Field selector.
    #[arg(long)]
    pub(crate) field_selector: Option<String>,
    /// Show the changes after the list.
    #[arg(short = 'w', long)]
    pub(crate) watch: bool,
    /// Show changes only.
    #[arg(long)]
    pub(crate) watch_only: bool,
    /// Show what kind of change each one is.
    #[arg(long)]
    pub(crate) output_watch_events: bool,
    /// No error when what is named does not exist.
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
    /// Labels to show as columns.
    #[arg(short = 'L', long, value_delimiter = ',')]
    pub(crate) label_columns: Vec<String>,
    /// All labels as a column.
    #[arg(long)]
    pub(crate) show_labels: bool,
    /// The kind before every name.
    #[arg(long)]
    pub(crate) show_kind: bool,
    /// Tables without headings.
    #[arg(long)]
    pub(crate) no_headers: bool,
    /// JSONPath of the field to sort by.
    #[arg(long)]
    pub(crate) sort_by: Option<String>,
    /// Items per request; the same is shown whatever it is.
    #[arg(long, hide = true)]
    pub(crate) chunk_size: Option<i64>,
    /// Tables come from the server in any case.
    #[arg(long, hide = true, action = clap::ArgAction::Set, num_args = 0..=1, default_value = "true", default_missing_value = "true")]
    pub(crate) server_print: bool,
    /// A URL path to read and print as it is.
    #[arg(long)]
    pub(crate) raw: Option<String>,
    /// The sub-resource to get: status, scale.
    #[arg(long)]
    pub(crate) subresource: Option<String>,
}

/// Prints what was asked for.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    if let Some(raw) = &flags.raw {
        if !flags.words.is_empty() {
            return plain("arguments may not be passed when --raw is specified");
        }
        return session.out(&session.server().await?.text(Call::new(Method::GET, raw)).await?);
    }
    if flags.words.is_empty() && flags.files.is_empty() {
        session.err("You must specify the type of resource to get. Use \"kubectl api-resources\" for a complete list of supported resources.\n\n");
        return plain(
            "Required resource not specified.\nUse \"kubectl explain <resource>\" for a detailed description of that resource (e.g. kubectl explain pods).\nSee 'kubectl get -h' for help and examples",
        );
    }
    let mut format = flags.output.format(GET_FORMATS, !flags.no_headers)?;
    let targets = builder::targets(session, &flags.question()).await?;
    if flags.watch || flags.watch_only {
        return watch(session, &flags, format, targets).await;
    }
    if format.is_human() {
        tables(session, &flags, &format, &targets).await
    } else {
        objects(session, &flags, &mut format, &targets).await
    }
}

impl Flags {
    fn question(&self) -> Question<'_> {
        Question {
            words: &self.words,
            files: self.files.clone(),
            selector: self.selector.as_deref(),
            fields: self.field_selector.as_deref(),
            all_namespaces: self.all_namespaces,
            bare_type: true,
            ..Question::default()
        }
    }

    fn look(&self, format: &Format, kind: Option<String>) -> Look {
        Look {
            wide: matches!(format, Format::Wide),
            no_headers: self.no_headers,
            namespaces: self.all_namespaces,
            kind,
            label_columns: self.label_columns.clone(),
            show_labels: self.show_labels,
            events: self.output_watch_events,
        }
    }

    fn path(&self, target: &Target) -> String {
        match &self.subresource {
            Some(sub) if target.name.is_some() => format!("{}/{sub}", target.path()),
            _ => target.path(),
        }
    }
}

/// Several tables, one under the other.
async fn tables(session: &Session, flags: &Flags, format: &Format, targets: &[Target]) -> Result {
    let server = session.server().await?;
    let (mut groups, mut failures): (Vec<Group>, Vec<Failure>) = (Vec::new(), Vec::new());
    for target in targets {
        let mut query = target.query();
        if flags.sort_by.is_some() {
            query.push(("includeObject", "Object".to_owned()));
        }
        let path = flags.path(target);
        let answer = match &target.name {
            Some(_) => match server.send(Call::new(Method::GET, &path).query(query).accept(TABLE)).await {
                Err(failure) => Err(builder::absent(session, target.namespace.as_deref(), failure).await),
                found => found,
            },
            None => server.list(&path, &query, TABLE).await.map_err(|failure| builder::of_list(failure, target)),
        };
        match answer {
            Ok(table) => match groups.last_mut().filter(|group| group.resource == target.resource) {
                Some(group) => group.tables.push(table),
                None => groups.push(Group { resource: target.resource.clone(), tables: vec![table] }),
            },
            Err(failure) if flags.ignore_not_found && failure.is_not_found() => {}
            Err(failure) => failures.push(failure),
        }
    }
    if let Some(sort_by) = &flags.sort_by {
        let by = JsonPath::relaxed(sort_by, true)?;
        for table in groups.iter_mut().flat_map(|group| &mut group.tables) {
            if let Some(rows) = table["rows"].as_array_mut() {
                sort(rows, &by, "/object")?;
            }
        }
    }
    let kinds = groups.iter().any(|group| group.resource != groups[0].resource);
    let text = drawn(&groups, |resource| flags.look(format, (kinds || flags.show_kind).then(|| resource.group_kind())));
    session.out(&text)?;
    if text.is_empty() && failures.is_empty() && !flags.ignore_not_found {
        session.err(&nothing(session, flags, targets).await?);
    }
    all(failures)
}

async fn nothing(session: &Session, flags: &Flags, targets: &[Target]) -> Result<String> {
    let namespaced = targets.iter().any(|target| target.resource.namespaced);
    Ok(if namespaced && !flags.all_namespaces {
        format!("No resources found in {} namespace.\n", session.namespace().await?)
    } else {
        "No resources found\n".to_owned()
    })
}

/// Tables of one resource; they are drawn as one.
struct Group {
    resource: Rc<Resource>,
    tables: Vec<Value>,
}

/// Draws tables with a blank line between those of different resources. Empty ones are left out.
fn drawn(groups: &[Group], look: impl Fn(&Resource) -> Look) -> String {
    let mut parts = Vec::new();
    for Group { resource, tables } in groups {
        let look = look(resource);
        let mut lines = Vec::new();
        for table in tables.iter().filter(|table| !items(&table["rows"]).is_empty()) {
            if lines.is_empty() && !look.no_headers {
                lines.push(headings(table, &look));
            }
            lines.extend(rows(table, &table["columnDefinitions"], &look, "ADDED"));
        }
        if !lines.is_empty() {
            parts.push(Tab::default().lay_out(&lines));
        }
    }
    parts.join("\n")
}

/// Objects in another form than tables.
async fn objects(session: &Session, flags: &Flags, format: &mut Format, targets: &[Target]) -> Result {
    let (found, mut failures) = match &flags.subresource {
        None => builder::fetch(session, targets).await,
        Some(_) => {
            let (mut found, mut failures) = (Vec::new(), Vec::new());
            for target in targets {
                let path = flags.path(target);
                match session.server().await?.get(&path).await {
                    Ok(object) => found.push(builder::Found {
                        resource: target.resource.clone(),
                        namespace: target.namespace.clone(),
                        name: target.name.clone().unwrap_or_default(),
                        object,
                        source: String::new(),
                    }),
                    Err(failure) => failures.push(failure),
                }
            }
            (found, failures)
        }
    };
    failures.retain(|failure| !(flags.ignore_not_found && failure.is_not_found()));
    let single = targets.len() == 1 && targets[0].name.is_some();
    let mut objects: Vec<Value> = found.into_iter().map(|found| found.object).collect();
    if let Some(sort_by) = &flags.sort_by {
        sort(&mut objects, &JsonPath::relaxed(sort_by, true)?, "")?;
    }
    let nothing = objects.is_empty() && (flags.ignore_not_found || single || !failures.is_empty());
    if !nothing {
        let shown = if single { objects.swap_remove(0) } else { list_of(objects) };
        let keeps = flags.output.show_managed_fields || !format.is_document();
        let shown = if keeps { shown } else { without_managed_fields(shown) };
        session.out(&format.print(&shown)?)?;
    }
    all(failures)
}

/// Sorts by the first thing that a path finds at `pointer` of each item. What has no such field comes first.
fn sort(list: &mut Vec<Value>, by: &JsonPath, pointer: &str) -> Result {
    let mut keyed: Vec<(Option<Value>, Value)> = Vec::new();
    for item in std::mem::take(list) {
        let key = match item.pointer(pointer) {
            Some(object) => by.find(object)?.into_iter().next().map(std::borrow::Cow::into_owned),
            None => None,
        };
        keyed.push((key, item));
    }
    if !keyed.is_empty() && keyed.iter().all(|(key, _)| key.is_none()) {
        let path = by.source().trim_matches(['{', '}']).trim_start_matches('.').to_owned();
        *list = keyed.into_iter().map(|(_, item)| item).collect();
        return plain(format!("field {path:?} does not exist"));
    }
    keyed.sort_by(|(a, _), (b, _)| order(a.as_ref(), b.as_ref()));
    *list = keyed.into_iter().map(|(_, item)| item).collect();
    Ok(())
}

fn order(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default())
        }
        (Some(Value::String(a)), Some(Value::String(b))) => {
            match (a.parse::<stead_machinery::quantity::Quantity>(), b.parse::<stead_machinery::quantity::Quantity>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                _ => natural(a, b),
            }
        }
        (Some(a), Some(b)) => crate::print::go_text(a).cmp(&crate::print::go_text(b)),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

/// Numbers within texts count as numbers: `web-2` comes before `web-10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let split = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits_a, digits_b) = (split(a), split(b));
        if digits_a > 0 && digits_b > 0 {
            let number = |text: &str| text.parse::<u128>().unwrap_or(u128::MAX);
            match number(&a[..digits_a]).cmp(&number(&b[..digits_b])) {
                Ordering::Equal => (a, b) = (&a[digits_a..], &b[digits_b..]),
                other => return other,
            }
            continue;
        }
        let (Some(first_a), Some(first_b)) = (a.chars().next(), b.chars().next()) else { return a.len().cmp(&b.len()) };
        if first_a != first_b {
            return first_a.cmp(&first_b);
        }
        (a, b) = (&a[first_a.len_utf8()..], &b[first_b.len_utf8()..]);
    }
}

/// The list first, then every change until the watch ends.
async fn watch(session: &Session, flags: &Flags, mut format: Format, targets: Vec<Target>) -> Result {
    let [target] = &targets[..] else {
        return plain(
            "watch is only supported on individual resources and resource collections - more than 1 resource was found",
        );
    };
    let server = session.server().await?;
    let human = format.is_human();
    let accept = if human { TABLE } else { "application/json" };
    let path = target.resource.path(target.namespace.as_deref());
    let mut query = target.query();
    if let Some(name) = &target.name {
        query.push(("fieldSelector", format!("metadata.name={name}")));
    }
    let look = flags.look(&format, flags.show_kind.then(|| target.resource.group_kind()));
    let mut screen = Screen { look, tab: Tab::default(), columns: Value::Null, headed: flags.no_headers };
    let first = match &target.name {
        Some(_) => {
            let one = server.send(Call::new(Method::GET, &target.path()).accept(accept)).await?;
            let version = version_of(&one);
            (one, version)
        }
        None => {
            let list = server.list(&path, &query, accept).await?;
            let version = version_of(&list);
            (list, version)
        }
    };
    let (first, version) = first;
    if !flags.watch_only {
        if human {
            session.out(&screen.draw(&first, "ADDED"))?;
        } else {
            for object in list_items(&first, &target.resource) {
                session.out(&changed(flags, &mut format, "ADDED", object)?)?;
            }
        }
    }
    query.push(("resourceVersion", version));
    let mut events = server.watch(&path, query, accept).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        if kind == "BOOKMARK" {
            continue;
        }
        if human {
            session.out(&screen.draw(&event["object"], &kind))?;
        } else {
            session.out(&changed(flags, &mut format, &kind, event["object"].clone())?)?;
        }
    }
    Ok(())
}

/// The revision after which changes are still to come.
fn version_of(answer: &Value) -> String {
    let version = answer["metadata"]["resourceVersion"].as_str();
    let of_row = || answer["rows"][0]["object"]["metadata"]["resourceVersion"].as_str();
    version.filter(|v| !v.is_empty()).or_else(of_row).unwrap_or_default().to_owned()
}

fn list_items(answer: &Value, resource: &Resource) -> Vec<Value> {
    let Some(list) = answer["items"].as_array() else { return vec![answer.clone()] };
    let complete = |item: &Value| {
        let mut item = item.clone();
        item["apiVersion"] = resource.api_version().into();
        item["kind"] = resource.kind.clone().into();
        item
    };
    list.iter().map(complete).collect()
}

fn changed(flags: &Flags, format: &mut Format, kind: &str, object: Value) -> Result<String> {
    let keeps = flags.output.show_managed_fields || !format.is_document();
    let object = if keeps { object } else { without_managed_fields(object) };
    if !flags.output_watch_events {
        let text = format.print(&object)?;
        return Ok(if matches!(format, Format::Yaml) { format!("---\n{text}") } else { text });
    }
    match format {
        Format::Json | Format::Yaml | Format::JsonPath(_) => {
            format.print(&serde_json::json!({"type": kind, "object": object}))
        }
        _ => Ok(format!("{kind:<10} {}", format.print(&object)?)),
    }
}

/// A table that grows with each change.
struct Screen {
    look: Look,
    tab: Tab,
    columns: Value,
    headed: bool,
}

impl Screen {
    fn draw(&mut self, table: &Value, event: &str) -> String {
        if !items(&table["columnDefinitions"]).is_empty() {
            self.columns = table["columnDefinitions"].clone();
        }
        let rows = rows(table, &self.columns, &self.look, event);
        if rows.is_empty() {
            return String::new();
        }
        let mut lines = Vec::new();
        if !self.headed {
            lines.push(headings(&serde_json::json!({"columnDefinitions": self.columns}), &self.look));
            self.headed = true;
        }
        lines.extend(rows);
        self.tab.lay_out(&lines)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::tests::usual;

    fn table(names: &[&str]) -> Value {
        let rows: Vec<Value> =
            names.iter().map(|name| json!({"cells": [name], "object": {"metadata": {"name": name}}})).collect();
        json!({"columnDefinitions": [{"name": "Name"}], "rows": rows})
    }

    #[test]
    fn tables_of_several_kinds_have_prefixes_and_a_blank_line_between() {
        let group = |word: &str, tables: Vec<Value>| Group { resource: usual().find(word).expect("there"), tables };
        let groups = [
            group("po", vec![table(&["a"]), table(&["b"])]),
            group("cm", vec![table(&[])]),
            group("sts", vec![table(&["c"])]),
        ];
        let text = drawn(&groups, |resource| Look { kind: Some(resource.group_kind()), ..Look::default() });
        assert_eq!(text, "NAME\npod/a\npod/b\n\nNAME\nstatefulset.apps/c\n");
    }

    #[test]
    fn sorting_knows_numbers_quantities_and_names() {
        let sorted = |path: &str, values: Value| {
            let mut list: Vec<Value> = items(&values).iter().map(|v| json!({"x": v})).collect();
            sort(&mut list, &JsonPath::relaxed(path, true).expect("parses"), "")
                .map(|()| list.iter().map(|v| crate::print::compact(&v["x"])).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(sorted(".x", json!([10, 9, 2.5])).expect("sorts"), "2.5 9 10");
        assert_eq!(sorted("{.x}", json!(["1Gi", "10Mi", "2Ki"])).expect("sorts"), r#""2Ki" "10Mi" "1Gi""#);
        assert_eq!(sorted("x", json!(["web-10", "web-2"])).expect("sorts"), r#""web-2" "web-10""#);
        assert_eq!(sorted("y", json!([1])).expect_err("refused").message(), "field \"y\" does not exist");
    }
}
