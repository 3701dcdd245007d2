//! `$(NAME)` in commands, arguments and values (upstream: `third_party/forked/golang/expansion`).

/// Replaces each `$(NAME)` that `value` knows; others stay as they are, and `$$` is one `$`.
#[must_use]
pub(crate) fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(known) => out.push_str(&known),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn known_names_are_replaced_and_others_stay() {
        let value = |name: &str| (name == "A").then(|| "1".to_owned());
        let table = [
            ("x $(A) $(A)y", "x 1 1y"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$$$(A)", "$1"),
        ];
        for (text, expected) in table {
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }
}
