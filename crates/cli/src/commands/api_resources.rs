//! `api-resources` and `api-versions`: what the server serves.
//!
//! Source of the layout: `k8s.io/kubectl/pkg/cmd/apiresources`.

use std::rc::Rc;

use clap::Args;

use crate::failure::{Result, plain};
use crate::print::Tab;
use crate::resources::{Resource, Resources};
use crate::session::Session;

/// Which resources, and how to show them.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// Only those of this API group.
    #[arg(long)]
    pub(crate) api_group: Option<String>,
    /// Only those that are in a namespace, or (`=false`) those that are not.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) namespaced: Option<bool>,
    /// Only those with all of these verbs.
    #[arg(long, value_delimiter = ',')]
    pub(crate) verbs: Vec<String>,
    /// Only those of all of these categories.
    #[arg(long, value_delimiter = ',')]
    pub(crate) categories: Vec<String>,
    #[arg(long)]
    pub(crate) no_headers: bool,
    /// Nothing is cached: all is asked for anew.
    #[arg(long, hide = true)]
    pub(crate) cached: bool,
    /// wide, name
    #[arg(short = 'o', long)]
    pub(crate) output: Option<String>,
    /// name, kind
    #[arg(long)]
    pub(crate) sort_by: Option<String>,
}

/// Prints the resources.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let output = flags.output.as_deref().unwrap_or_default();
    if !matches!(output, "" | "wide" | "name") {
        return plain(format!("--output {output} is not available"));
    }
    session.out(&shown(&*session.resources().await?, &flags))
}

/// Prints the group versions.
pub(crate) async fn versions(session: &Session) -> Result {
    let mut versions = session.resources().await?.versions.clone();
    versions.sort();
    session.out(&versions.iter().map(|version| format!("{version}\n")).collect::<String>())
}

fn shown(resources: &Resources, flags: &Flags) -> String {
    let mut chosen: Vec<Rc<Resource>> = Vec::new();
    for resource in resources.all.iter().filter(|resource| fits(resource, flags)) {
        // Only the preferred version of each.
        if !chosen.iter().any(|r| r.group == resource.group && r.version != resource.version) {
            chosen.push(resource.clone());
        }
    }
    match flags.sort_by.as_deref() {
        Some("name") => chosen.sort_by(|a, b| a.plural.cmp(&b.plural)),
        Some("kind") => chosen.sort_by(|a, b| a.kind.cmp(&b.kind)),
        _ => chosen.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural))),
    }
    match flags.output.as_deref() {
        Some("name") => chosen.iter().map(|resource| resource.group_resource() + "\n").collect(),
        output => table(&chosen, output == Some("wide"), flags.no_headers),
    }
}

fn fits(resource: &Resource, flags: &Flags) -> bool {
    !resource.verbs.is_empty()
        && flags.api_group.as_ref().is_none_or(|group| *group == resource.group)
        && flags.namespaced.is_none_or(|namespaced| namespaced == resource.namespaced)
        && flags.verbs.iter().all(|verb| resource.verbs.contains(verb))
        && flags.categories.iter().all(|category| resource.categories.contains(category))
}

fn table(resources: &[Rc<Resource>], wide: bool, no_headers: bool) -> String {
    let mut lines = Vec::new();
    let mut line = |cells: [String; 7]| lines.push(cells[..if wide { 7 } else { 5 }].to_vec());
    if !no_headers {
        line(["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND", "VERBS", "CATEGORIES"].map(str::to_owned));
    }
    for resource in resources {
        line([
            resource.plural.clone(),
            resource.short_names.join(","),
            resource.api_version(),
            resource.namespaced.to_string(),
            resource.kind.clone(),
            resource.verbs.join(","),
            resource.categories.join(","),
        ]);
    }
    Tab::default().lay_out(&lines)
}
