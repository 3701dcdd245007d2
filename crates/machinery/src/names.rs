//! The grammars of names and labels, with upstream's texts, and names made from a prefix.
//!
//! Source: `k8s.io/apimachinery/pkg/api/validate/content`, `k8s.io/apiserver/pkg/storage/names`.

/// Longest DNS label, label value and name part of a label key.
pub const LABEL_MAX: usize = 63;
/// Longest DNS subdomain, and with it most names and the prefix of a label key.
pub const SUBDOMAIN_MAX: usize = 253;
/// Letters of a generated suffix; without vowels, so that no words come about.
const SUFFIX_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Letters that are put behind `generateName`.
pub const SUFFIX_LENGTH: usize = 5;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
/// What upstream's texts quote for a subdomain.
pub const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const NAME_PART: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// `must be no more than MAX bytes`.
#[must_use]
pub fn max_length(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// `WHAT (e.g. 'a',  or 'b', regex used for validation is 'R')`.
#[must_use]
pub fn regex_error(what: &str, regex: &str, examples: &[&str]) -> String {
    let list = examples.iter().map(|e| format!("'{e}', ")).collect::<Vec<_>>().join(" or ");
    format!("{what} (e.g. {list}regex used for validation is '{regex}')")
}

/// Whether the text has the form of an RFC 1123 label, whatever its length.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// What is wrong with a name that has to be an RFC 1123 label; empty when nothing is.
#[must_use]
pub fn dns_label(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > LABEL_MAX {
        errors.push(max_length(LABEL_MAX));
    }
    if !is_label(text) {
        errors.push(if is_subdomain(text) {
            "must not contain dots".to_owned()
        } else {
            let what = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
            regex_error(what, LABEL, &["my-name", "123-abc"])
        });
    }
    errors
}

/// What is wrong with a name that has to be an RFC 1123 subdomain, as most names have to be.
#[must_use]
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        errors.push(max_length(SUBDOMAIN_MAX));
    }
    if !is_subdomain(text) {
        let what = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        errors.push(regex_error(what, SUBDOMAIN, &["example.com"]));
    }
    errors
}

/// What is wrong with the key of a label: `[PREFIX/]NAME`.
#[must_use]
pub fn label_key(text: &str) -> Vec<String> {
    const FORM: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let mut errors = Vec::new();
    let name = match text.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(dns_subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
            }
            name
        }
        _ => {
            let form = regex_error(&format!("a valid label key {FORM}"), NAME_PART, EXAMPLES);
            return vec![format!("{form} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        errors.push(format!("name part {}", max_length(LABEL_MAX)));
    }
    if !is_name_part(name) {
        errors.push(regex_error(&format!("name part {FORM}"), NAME_PART, EXAMPLES));
    }
    errors
}

/// What is wrong with the value of a label; it may be empty.
#[must_use]
pub fn label_value(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > LABEL_MAX {
        errors.push(max_length(LABEL_MAX));
    }
    if !text.is_empty() && !is_name_part(text) {
        let what = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        errors.push(regex_error(what, &format!("({NAME_PART})?"), &["MyValue", "my_value", "12345"]));
    }
    errors
}

/// A name for an object that has `generateName`: the prefix, cut so that all fits 63 bytes, and five letters.
#[must_use]
pub fn generated(prefix: &str, random: [u8; SUFFIX_LENGTH]) -> String {
    let mut end = prefix.len().min(LABEL_MAX - SUFFIX_LENGTH);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let letter = |byte: u8| char::from(SUFFIX_LETTERS[usize::from(byte) % SUFFIX_LETTERS.len()]);
    prefix[..end].chars().chain(random.into_iter().map(letter)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    const KEY_TEXT: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

    #[test]
    fn each_grammar_tells_what_is_wrong() {
        let long = "a".repeat(254);
        for (check, text, want) in [
            (dns_subdomain as fn(&str) -> Vec<String>, "a.b-c.9", vec![]),
            (dns_subdomain, "Web_1", vec![SUBDOMAIN_TEXT]),
            (dns_subdomain, "web.", vec![SUBDOMAIN_TEXT]),
            (dns_subdomain, "", vec![SUBDOMAIN_TEXT]),
            (dns_subdomain, &long, vec!["must be no more than 253 bytes"]),
            (dns_label, "a-b", vec![]),
            (dns_label, "a.b", vec!["must not contain dots"]),
            (dns_label, "-a", vec![LABEL_TEXT]),
            (dns_label, &long, vec!["must be no more than 63 bytes"]),
            (label_key, "example.com/My_Name.1", vec![]),
            (label_key, "app", vec![]),
            (label_key, "", vec!["name part must be non-empty", KEY_TEXT]),
            (label_key, "/a", vec!["prefix part must be non-empty"]),
            (label_key, "a b", vec![KEY_TEXT]),
            (label_key, &long, vec!["name part must be no more than 63 bytes"]),
            (label_value, "", vec![]),
            (label_value, "a_b", vec![]),
            (label_value, &long, vec!["must be no more than 63 bytes"]),
        ] {
            assert_eq!(check(text), want, "{text}");
        }
        assert!(label_key("a/b/c")[0].starts_with("a valid label key must consist of"));
        assert!(label_value("-")[0].starts_with("a valid label must be an empty string"));
    }

    #[test]
    fn a_generated_name_fits_a_label() {
        assert_eq!(generated("web-", [0, 1, 26, 27, 255]), "web-bc9bq");
        assert_eq!(generated(&"x".repeat(300), [0; 5]).len(), 63);
    }
}
