//! `version`: what this client and the server are.

use clap::Args;
use serde_json::{Value, json};

use crate::failure::{Result, plain};
use crate::print::{at, json, yaml};
use crate::session::Session;

/// What to print.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// Only the client; no server is asked.
    #[arg(long)]
    pub(crate) client: bool,
    /// yaml, json
    #[arg(short = 'o', long)]
    pub(crate) output: Option<String>,
}

/// Prints the versions.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let output = flags.output.as_deref().unwrap_or_default();
    if !matches!(output, "" | "yaml" | "json") {
        return plain("--output must be 'yaml' or 'json'");
    }
    let (major, minor) = numbers(session.version);
    let client = json!({"clientVersion": {
        "major": major, "minor": minor, "gitVersion": session.version, "platform": platform(), "compiler": "rustc"}});
    if flags.client {
        return session.out(&shown(&client, output));
    }
    match session.server().await?.get("/version").await {
        Ok(server) => {
            let mut both = client;
            both["serverVersion"] = server;
            session.out(&shown(&both, output))?;
            session.err(&skew(&both));
            Ok(())
        }
        Err(failure) => {
            session.out(&shown(&client, output))?;
            Err(failure)
        }
    }
}

fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{arch}", std::env::consts::OS)
}

/// `("1", "37")` of `v1.37.0`.
fn numbers(version: &str) -> (String, String) {
    let mut parts = version.trim_start_matches('v').split('.');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    (next(), next())
}

fn shown(versions: &Value, output: &str) -> String {
    match output {
        "json" => json(versions) + "\n",
        "yaml" => yaml(versions),
        _ => {
            let mut text = format!("Client Version: {}\n", at(versions, "/clientVersion/gitVersion"));
            if versions["serverVersion"].is_object() {
                text.push_str(&format!("Server Version: {}\n", at(versions, "/serverVersion/gitVersion")));
            }
            text
        }
    }
}

/// Kubernetes promises that versions one apart understand each other.
fn skew(versions: &Value) -> String {
    let minor = |side: &str| -> i64 {
        let digits: String = at(&versions[side], "/minor").chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_default()
    };
    let major = |side: &str| at(&versions[side], "/major").to_owned();
    let (client, server) = (minor("clientVersion"), minor("serverVersion"));
    if (client - server).abs() <= 1 && major("clientVersion") == major("serverVersion") {
        return String::new();
    }
    format!(
        "WARNING: version difference between client ({}.{client}) and server ({}.{server}) exceeds the supported minor version skew of +/-1\n",
        major("clientVersion"),
        major("serverVersion")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_too_far_apart_are_warned_of() {
        let of = |client: &str, server: &str| {
            skew(
                &json!({"clientVersion": {"major": "1", "minor": client}, "serverVersion": {"major": "1", "minor": server}}),
            )
        };
        assert_eq!(of("37", "36+"), "");
        assert_eq!(
            of("32", "24+"),
            "WARNING: version difference between client (1.32) and server (1.24) exceeds the supported minor version skew of +/-1\n"
        );
    }
}
