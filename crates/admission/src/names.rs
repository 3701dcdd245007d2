//! The grammars of names and keys beside those of `stead_machinery::names`, with upstream's texts, and the rules of kinds' names.
//!
//! Source of the texts: `k8s.io/apimachinery/pkg/util/validation`. Each function returns what is wrong, in order.

use stead_machinery::names::{SUBDOMAIN, is_label, regex_error};
pub(crate) use stead_machinery::names::{
    SUBDOMAIN_MAX, dns_label, dns_subdomain, label_key as qualified_name, label_value, max_length,
};

/// Longest Service name (RFC 1035 label).
const SERVICE_MAX: usize = 63;

/// A kind's rule for `metadata.name`.
pub(crate) type NameRule = fn(&str, bool) -> Vec<String>;

/// `must be between LOW and HIGH, inclusive`.
pub(crate) fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// RFC 1123 subdomain whose first label may be `*`: hosts of an Ingress.
pub(crate) fn wildcard_subdomain(text: &str) -> Vec<String> {
    let rest = text.strip_prefix("*.");
    if rest.is_some_and(|rest| rest.split('.').all(is_label)) && text.len() <= SUBDOMAIN_MAX {
        return Vec::new();
    }
    vec![regex_error(
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
        &format!("\\*\\.{SUBDOMAIN}"),
        &["*.example.com"],
    )]
}

/// RFC 1035 label: names of Services.
pub(crate) fn dns_1035_label(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > SERVICE_MAX {
        errors.push(max_length(SERVICE_MAX));
    }
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        errors.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// Keys of ConfigMaps and Secrets.
pub(crate) fn config_key(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        errors.push(max_length(SUBDOMAIN_MAX));
    }
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        errors.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// Names of environment variables, as relaxed since 1.34.
pub(crate) fn env_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// Names of container ports (IANA service names).
pub(crate) fn port_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 15 {
        errors.push(max_length(15));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// An IP address.
pub(crate) fn ip(text: &str) -> Vec<String> {
    if text.parse::<std::net::IpAddr>().is_ok() {
        Vec::new()
    } else {
        vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
    }
}

/// Names that become a segment of a path: RBAC roles and bindings.
pub(crate) fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    text.chars().find(|c| matches!(c, '/' | '%')).map(|c| format!("may not contain '{c}'")).into_iter().collect()
}

/// The rule of most kinds. A prefix (`generateName`) may end in `-`, which the suffix completes.
pub(crate) fn rule_subdomain(text: &str, prefix: bool) -> Vec<String> {
    dns_subdomain(&masked(text, prefix))
}

pub(crate) fn rule_label(text: &str, prefix: bool) -> Vec<String> {
    dns_label(&masked(text, prefix))
}

pub(crate) fn rule_service(text: &str, prefix: bool) -> Vec<String> {
    dns_1035_label(&masked(text, prefix))
}

pub(crate) fn rule_path_segment(text: &str, _prefix: bool) -> Vec<String> {
    path_segment(text)
}

fn masked(text: &str, prefix: bool) -> String {
    match text.strip_suffix('-') {
        Some(stem) if prefix && text.len() > 1 => format!("{stem}a"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_names() {
        type Story<'a> = (fn(&str) -> Vec<String>, &'a [&'a str], &'a [&'a str]);
        let stories: &[Story<'_>] = &[
            (dns_label, &["a", "a-b", "1"], &["", "-a", "a-", "A", "a.b", "a_b"]),
            (dns_subdomain, &["a", "a.b", "1.2"], &["", "a..b", "web.", "Web_1"]),
            (dns_1035_label, &["a1"], &["1a", "a.b", ""]),
            (qualified_name, &["a", "A.b_c", "example.com/x"], &["", "/x", "a/", "a b", "a/b/c", "-a"]),
            (label_value, &["", "a", "A_b.c"], &["a b", "-", "a-"]),
            (config_key, &["a", ".a", "A_b"], &["", ".", "..", "..a", "bad key/"]),
            (env_name, &["A", "1 A", "a.b"], &["", "a=b", "é"]),
            (port_name, &["web", "a-1"], &["", "Web", "1", "a--b", "-a", "this-name-is-too-long"]),
            (ip, &["10.0.0.1", "::1"], &["", "10.0.0", "None"]),
        ];
        for (rule, good, bad) in stories {
            good.iter().for_each(|text| assert_eq!(rule(text), Vec::<String>::new(), "{text:?}"));
            bad.iter().for_each(|text| assert!(!rule(text).is_empty(), "{text:?}"));
        }
        assert!(rule_label("web-", true).is_empty());
        assert!(!rule_label("web-", false).is_empty());
    }
}
