//! The pages of ConfigMaps, Secrets and ServiceAccounts.

use serde_json::Value;

use super::{Page, Related};
use crate::print::{at, list, sorted};

fn head(page: &mut Page, object: &Value) {
    page.field(0, "Name", at(object, "/metadata/name"));
    page.field(0, "Namespace", at(object, "/metadata/namespace"));
    page.labels("Labels", &object["metadata"]["labels"]);
    page.annotations("Annotations", &object["metadata"]["annotations"]);
}

/// The length of base64 data, decoded.
fn decoded_length(data: &Value) -> usize {
    let text = data.as_str().unwrap_or_default();
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// A ConfigMap.
pub(super) fn config_map(page: &mut Page, map: &Value) {
    head(page, map);
    page.line(0, "\nData\n====");
    let empty = serde_json::Map::new();
    for (key, value) in sorted(map["data"].as_object().unwrap_or(&empty)) {
        page.line(0, &format!("{key}:\n----\n{}\n", value.as_str().unwrap_or_default()));
    }
    page.line(0, "\nBinaryData\n====");
    for (key, value) in sorted(map["binaryData"].as_object().unwrap_or(&empty)) {
        page.line(0, &format!("{key}: {} bytes", decoded_length(value)));
    }
    page.line(0, "");
}

/// A Secret: sizes only.
pub(super) fn secret(page: &mut Page, secret: &Value) {
    head(page, secret);
    page.line(0, &format!("\nType:\t{}\n\nData\n====", at(secret, "/type")));
    let empty = serde_json::Map::new();
    let token = at(secret, "/type") == "kubernetes.io/service-account-token";
    for (key, value) in sorted(secret["data"].as_object().unwrap_or(&empty)) {
        if token && key == "token" {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(value.as_str().unwrap_or_default())
                .unwrap_or_default();
            page.field(0, key, &String::from_utf8_lossy(&bytes));
        } else {
            page.field(0, key, &format!("{} bytes", decoded_length(value)));
        }
    }
}

/// A ServiceAccount.
pub(super) fn service_account(page: &mut Page, account: &Value, related: &Related) {
    head(page, account);
    let names = |pointer: &str| list(account, pointer).iter().map(|s| at(s, "/name").to_owned()).collect::<Vec<_>>();
    let tokens: Vec<String> = related.secrets.iter().map(|s| at(s, "/metadata/name").to_owned()).collect();
    for (title, names) in [
        ("Image pull secrets", names("/imagePullSecrets")),
        ("Mountable secrets", names("/secrets")),
        ("Tokens", tokens),
    ] {
        if names.is_empty() {
            page.line(0, &format!("{title}:\t<none>"));
        }
        for (number, name) in names.iter().enumerate() {
            page.line(0, &if number == 0 { format!("{title}:\t{name}") } else { format!("\t{name}") });
        }
    }
}
