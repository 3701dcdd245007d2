//! Which kubeconfig files count, what they say together, and how flags change it.
//!
//! Source of the rules: `k8s.io/client-go/tools/clientcmd` (loading rules).

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Map, Value, json};

use crate::arguments::Globals;
use crate::failure::{Failure, Result, plain, system};

/// Where `stead server` writes its kubeconfig unless it is told otherwise.
pub(crate) const SERVER_KUBECONFIG: &str = "/etc/stead/stead.yaml";
/// What kubectl tries when no kubeconfig says otherwise.
const NOWHERE: &str = "http://localhost:8080";

/// The files that are read, first to last; the first one that says something wins.
pub(crate) fn files(flags: &Globals) -> Vec<PathBuf> {
    if let Some(path) = &flags.kubeconfig {
        return vec![path.clone()];
    }
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
        return std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    match home.filter(|file| file.exists()) {
        Some(file) => vec![file],
        None => vec![PathBuf::from(SERVER_KUBECONFIG)],
    }
}

/// Reads one file as data; `None` when it is not there.
fn read(path: &Path) -> Result<Option<Value>> {
    match std::fs::read_to_string(path) {
        Ok(text) => match serde_norway::from_str(&text) {
            Ok(value) => Ok(Some(value)),
            Err(error) => plain(format!("error loading config file {:?}: {error}", path.display().to_string())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => plain(format!("error loading config file {:?}: {}", path.display().to_string(), system(&error))),
    }
}

/// All files together, as kubectl merges them.
pub(crate) fn merged(flags: &Globals) -> Result<Value> {
    let mut all = json!({"apiVersion": "v1", "clusters": [], "contexts": [], "current-context": "", "kind": "Config",
        "preferences": {}, "users": []});
    for path in files(flags) {
        match read(&path)? {
            Some(file) => merge(&mut all, absolute(file, &path)),
            None if flags.kubeconfig.is_some() => {
                return plain(format!("stat {}: no such file or directory", path.display()));
            }
            None => {}
        }
    }
    Ok(all)
}

/// Adds what `next` says and `all` does not say yet.
fn merge(all: &mut Value, next: Value) {
    for list in ["clusters", "contexts", "users"] {
        for entry in next[list].as_array().into_iter().flatten() {
            let known = all[list].as_array().is_some_and(|l| l.iter().any(|e| e["name"] == entry["name"]));
            if let (false, Some(entries)) = (known, all[list].as_array_mut()) {
                entries.push(entry.clone());
            }
        }
        if let Some(entries) = all[list].as_array_mut() {
            entries.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        }
    }
    if all["current-context"] == "" {
        all["current-context"] = next["current-context"].as_str().unwrap_or_default().into();
    }
}

/// Makes paths of certificates relative to the file that names them.
fn absolute(mut file: Value, path: &Path) -> Value {
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    for (list, inner, keys) in [
        ("clusters", "cluster", &["certificate-authority"][..]),
        ("users", "user", &["client-certificate", "client-key", "tokenFile"][..]),
    ] {
        for entry in file[list].as_array_mut().into_iter().flatten() {
            for key in keys {
                let Some(Value::String(named)) = entry[inner].get_mut(*key) else { continue };
                if !named.is_empty() && !Path::new(named).is_absolute() {
                    *named = directory.join(&*named).display().to_string();
                }
            }
        }
    }
    file
}

/// A kubeconfig without its secrets, as `config view` shows it.
pub(crate) fn redacted(mut config: Value) -> Value {
    for cluster in config["clusters"].as_array_mut().into_iter().flatten() {
        redact(&mut cluster["cluster"], &[("certificate-authority-data", "DATA+OMITTED")]);
    }
    let secrets = [
        ("client-certificate-data", "DATA+OMITTED"),
        ("client-key-data", "DATA+OMITTED"),
        ("token", "REDACTED"),
        ("password", "REDACTED"),
    ];
    for user in config["users"].as_array_mut().into_iter().flatten() {
        redact(&mut user["user"], &secrets);
    }
    config
}

fn redact(entry: &mut Value, keys: &[(&str, &str)]) {
    let Some(entry) = entry.as_object_mut() else { return };
    for (key, shown) in keys {
        if entry.get(*key).is_some_and(|value| value != "") {
            entry.insert((*key).to_owned(), (*shown).into());
        }
    }
}

/// The part of a kubeconfig that its current context needs.
pub(crate) fn minified(mut config: Value) -> Result<Value> {
    let current = config["current-context"].clone();
    let context = find(&config, "contexts", &current).cloned();
    let Some(context) = context else { return plain("current-context must exist in order to minify") };
    let keep = |list: &str, name: &Value| -> Value {
        find(&config, list, name).map_or_else(|| json!([]), |entry| json!([entry]))
    };
    let (clusters, users) =
        (keep("clusters", &context["context"]["cluster"]), keep("users", &context["context"]["user"]));
    config["contexts"] = json!([context]);
    config["clusters"] = clusters;
    config["users"] = users;
    Ok(config)
}

/// The entry of that name.
pub(crate) fn find<'c>(config: &'c Value, list: &str, name: &Value) -> Option<&'c Value> {
    config[list].as_array()?.iter().find(|entry| entry["name"] == *name)
}

/// How to reach the cluster, and the namespace that its context names.
pub(crate) async fn connection(flags: &Globals) -> Result<kube::Config> {
    let mut config = merged(flags)?;
    if let Some(context) = &flags.context {
        if find(&config, "contexts", &json!(context)).is_none() {
            let why = format!("Error in configuration: context was not found for specified context: {context}");
            return Err(Failure::Bare(why));
        }
        config["current-context"] = context.as_str().into();
    }
    for (list, what, named) in [("users", "auth info", &flags.user), ("clusters", "cluster", &flags.cluster)] {
        if let Some(name) = named
            && find(&config, list, &json!(name)).is_none()
        {
            return plain(format!("{what} {name:?} does not exist"));
        }
    }
    if find(&config, "contexts", &config["current-context"].clone()).is_none() {
        complete(&mut config);
    }
    if let Some(server) = &flags.server {
        override_cluster(&mut config, server);
    }
    let options = KubeConfigOptions {
        context: config["current-context"].as_str().map(str::to_owned),
        cluster: flags.cluster.clone(),
        user: flags.user.clone(),
    };
    let bad = |why: String| Failure::Plain(format!("the kubeconfig cannot be used: {why}"));
    let yaml = config.to_string();
    let file = Kubeconfig::from_yaml(&yaml).map_err(|error| bad(error.to_string()))?;
    let mut connection =
        kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|error| bad(error.to_string()))?;
    connection.read_timeout = timeout(flags.request_timeout.as_deref().unwrap_or("0"))?;
    // Whoever asked is told at once: an eviction that a budget forbids is refused with 429.
    connection.default_retry = false;
    connection.accept_invalid_certs |= flags.insecure_skip_tls_verify;
    if let Some(token) = &flags.token {
        connection.auth_info.token = Some(token.clone().into());
    }
    connection.auth_info.impersonate = flags.as_user.clone().or(connection.auth_info.impersonate);
    if !flags.as_group.is_empty() {
        connection.auth_info.impersonate_groups = Some(flags.as_group.clone());
    }
    Ok(connection)
}

/// How long to wait for an answer, and for each further part of it; nothing: for ever.
fn timeout(text: &str) -> Result<Option<std::time::Duration>> {
    match crate::commands::common::duration(text) {
        Ok(duration) => Ok(Some(duration).filter(|duration| !duration.is_zero())),
        Err(_) => plain(
            "Invalid timeout value. Timeout must be a single integer in seconds, or an integer followed by a corresponding time unit (e.g. 1s | 2m | 3h)",
        ),
    }
}

/// Makes a context of nothing: a server by flag, or kubectl's last resort.
fn complete(config: &mut Value) {
    let mut push = |list: &str, entry: Value| {
        if let Some(entries) = config[list].as_array_mut() {
            entries.push(entry);
        }
    };
    push("clusters", json!({"name": "stead-none", "cluster": {"server": NOWHERE}}));
    push("users", json!({"name": "stead-none", "user": {}}));
    push("contexts", json!({"name": "stead-none", "context": {"cluster": "stead-none", "user": "stead-none"}}));
    config["current-context"] = "stead-none".into();
}

fn override_cluster(config: &mut Value, server: &str) {
    let server = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let cluster = find(config, "contexts", &config["current-context"].clone())
        .map(|context| context["context"]["cluster"].clone())
        .unwrap_or_default();
    for entry in config["clusters"].as_array_mut().into_iter().flatten() {
        if entry["name"] == cluster {
            let cluster: &mut Map<String, Value> = match entry["cluster"].as_object_mut() {
                Some(cluster) => cluster,
                None => continue,
            };
            cluster.insert("server".into(), server.clone().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, context: &str) -> Value {
        json!({"clusters": [{"name": name, "cluster": {"server": "https://x", "certificate-authority-data": "QQ=="}}],
            "users": [{"name": name, "user": {"client-key-data": "QQ==", "client-certificate": "a.crt"}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}], "current-context": context})
    }

    #[test]
    fn the_first_file_that_says_something_wins() {
        let mut all = json!({"clusters": [], "contexts": [], "users": [], "current-context": ""});
        merge(&mut all, file("b", "b"));
        merge(&mut all, file("a", "a"));
        assert_eq!(all["current-context"], "b");
        assert_eq!(all["contexts"][0]["name"], "a", "sorted by name");
        let small = minified(all).expect("has its context");
        assert_eq!((small["users"].as_array().map(Vec::len), &small["users"][0]["name"]), (Some(1), &json!("b")));
    }

    #[test]
    fn secrets_are_not_shown_and_paths_are_absolute() {
        let shown = redacted(absolute(file("a", "a"), Path::new("/etc/k/config")));
        assert_eq!(shown["users"][0]["user"]["client-key-data"], "DATA+OMITTED");
        assert_eq!(shown["clusters"][0]["cluster"]["certificate-authority-data"], "DATA+OMITTED");
        assert_eq!(shown["users"][0]["user"]["client-certificate"], "/etc/k/a.crt");
    }
}
