//! Links in pages that come through a proxy: those to the same server get the path below which the proxy shows it.
//!
//! Source: `k8s.io/apimachinery/pkg/util/proxy/transport.go`. Upstream writes the tags that it looks at anew; here only the
//! value of a link that changes is written, the rest of the page stays byte by byte.

/// The attributes that hold links, by element.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose content is text, whatever it looks like.
const TEXT_ONLY: &[&str] =
    &["iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea", "title", "xmp"];

/// How the server behind a proxy is seen.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// The path below which it is shown, without a slash at its end.
    pub(super) prefix: String,
    /// Its own host and port.
    pub(super) source: String,
    /// The host that the caller asked for.
    pub(super) asked: String,
}

impl Links {
    /// A link as the caller has to follow it; `None` when it may stay: it is relative, or leads elsewhere.
    pub(super) fn rewrite(&self, link: &str) -> Option<String> {
        let (origin, host, rest) = split(link);
        let elsewhere = !host.is_empty() && host != self.source && host != self.asked;
        if elsewhere || !rest.starts_with('/') {
            return None;
        }
        let origin = if host == self.asked { origin } else { "" };
        let (path, tail) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
        let shown = match path.starts_with(&self.prefix) {
            true => path.to_owned(),
            false => clean(&format!("{}{path}", self.prefix)),
        };
        Some(format!("{origin}{shown}{tail}")).filter(|new| new != link)
    }

    /// A page with its links rewritten.
    pub(super) fn rewrite_page(&self, page: &str) -> String {
        let (mut out, mut done, mut at) = (String::with_capacity(page.len()), 0, 0);
        while let Some(open) = page[at..].find('<').map(|found| at + found) {
            let Some((name, end)) = element(page, open) else {
                at = skip(page, open);
                continue;
            };
            let watched = LINKS.iter().find(|(element, _)| *element == name).map_or(&[][..], |(_, names)| *names);
            for (key, value) in attributes(page, open + 1 + name.len(), end) {
                let link = &page[value.clone()];
                if let Some(new) = watched.contains(&key.as_str()).then(|| self.rewrite(link)).flatten() {
                    out.push_str(&page[done..value.start]);
                    out.push_str(&new);
                    done = value.end;
                }
            }
            at = if TEXT_ONLY.contains(&name.as_str()) { end_of_text(page, end, &name) } else { end };
        }
        out.push_str(&page[done..]);
        out
    }
}

/// Scheme with host, host, and the rest of a link. A link without a host has no scheme that matters here.
fn split(link: &str) -> (&str, &str, &str) {
    let scheme =
        link.find("://").filter(|end| link[..*end].bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)));
    let host_at = match scheme {
        Some(end) => end + 3,
        None if link.starts_with("//") => 2,
        None => return ("", "", link),
    };
    let host_end = link[host_at..].find(['/', '?', '#']).map_or(link.len(), |found| host_at + found);
    (&link[..host_end], &link[host_at..host_end], &link[host_end..])
}

/// A path without `.`, `..` and empty segments; a slash at its end stays.
pub(super) fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let end = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

/// The name of the element that begins at `open` in small letters, and where its tag ends.
fn element(page: &str, open: usize) -> Option<(String, usize)> {
    let rest = &page[open + 1..];
    if !rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let length = rest.find(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>')?;
    let mut quote = None;
    let after_name = open + 1 + length;
    let mut value_may_begin = false;
    for (i, c) in page[after_name..].char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '>') => return Some((rest[..length].to_ascii_lowercase(), after_name + i + 1)),
            (None, '"' | '\'') if value_may_begin => quote = Some(c),
            (None, _) => {}
        }
        value_may_begin = c == '=' || (value_may_begin && c.is_ascii_whitespace());
    }
    None
}

/// Where to look on after a `<` that begins no element: behind the end of a comment, or behind the `<`.
fn skip(page: &str, open: usize) -> usize {
    if page[open..].starts_with("<!--") {
        return page[open..].find("-->").map_or(page.len(), |end| open + end + 3);
    }
    open + 1
}

/// Where the end tag of an element begins whose content is text.
fn end_of_text(page: &str, from: usize, name: &str) -> usize {
    let mut at = from;
    while let Some(found) = page[at..].find("</").map(|found| at + found) {
        let rest = &page.as_bytes()[found + 2..];
        if rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes())) {
            return found;
        }
        at = found + 2;
    }
    page.len()
}

/// The attributes of a tag between two places: each name in small letters, and where its value is.
fn attributes(page: &str, from: usize, end: usize) -> Vec<(String, std::ops::Range<usize>)> {
    let mut found = Vec::new();
    let inside = &page[..end - 1];
    let mut at = from;
    let past = |at: usize, stop: &dyn Fn(char) -> bool| inside[at..].find(stop).map_or(inside.len(), |i| at + i);
    loop {
        at = past(at, &|c| !c.is_ascii_whitespace() && c != '/');
        if at >= inside.len() {
            return found;
        }
        let key_end = past(at, &|c| c.is_ascii_whitespace() || c == '/' || c == '=').max(at + 1).min(inside.len());
        let key = inside.get(at..key_end).unwrap_or_default().to_ascii_lowercase();
        at = past(key_end, &|c| !c.is_ascii_whitespace());
        if !inside[at..].starts_with('=') {
            continue;
        }
        at = past(at + 1, &|c| !c.is_ascii_whitespace());
        let quote = inside[at..].chars().next().filter(|c| matches!(c, '"' | '\''));
        let value = match quote {
            Some(quote) => at + 1..past(at + 1, &|c| c == quote),
            None => at..past(at, &|c| c.is_ascii_whitespace()),
        };
        at = (value.end + usize::from(quote.is_some())).min(inside.len());
        found.push((key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links {
            prefix: "/api/v1/namespaces/d/pods/web-0:80/proxy".to_owned(),
            source: "10.42.0.5:80".to_owned(),
            asked: "127.0.0.1:8001".to_owned(),
        }
    }

    #[test]
    fn links_to_the_same_server_get_the_prefix() {
        let below = "/api/v1/namespaces/d/pods/web-0:80/proxy";
        for (link, want) in [
            ("/a/b?c=d#e", format!("{below}/a/b?c=d#e")),
            ("/", format!("{below}/")),
            ("/a/", format!("{below}/a/")),
            ("/a/../../b", format!("{below}/b").replace("/proxy/b", "/b")),
            ("http://10.42.0.5:80/x", format!("{below}/x")),
            ("//10.42.0.5:80/x", format!("{below}/x")),
            ("http://127.0.0.1:8001/x", format!("http://127.0.0.1:8001{below}/x")),
        ] {
            assert_eq!(links().rewrite(link).as_deref(), Some(want.as_str()), "{link}");
        }
    }

    #[test]
    fn other_links_stay() {
        for link in [
            "",
            "a/b",
            "../a",
            "?x=/y",
            "#top",
            "mailto:someone@example.com",
            "javascript:go('/x')",
            "http://example.com/x",
            "//example.com/x",
            "https://10.42.0.5/x",
            "http://127.0.0.1:8001/api/v1/namespaces/d/pods/web-0:80/proxy/x",
            "/api/v1/namespaces/d/pods/web-0:80/proxy/x",
        ] {
            assert_eq!(links().rewrite(link), None, "{link}");
        }
    }

    #[test]
    fn pages() {
        let short = Links { prefix: "/p".to_owned(), ..links() };
        for (page, want) in [
            ("<a href=\"/x\">x</a>", "<a href=\"/p/x\">x</a>"),
            ("<A  HREF = '/x' class=y>", "<A  HREF = '/p/x' class=y>"),
            ("<a href=/x>", "<a href=/p/x>"),
            ("<img src=/x.png/>", "<img src=/p/x.png/>"),
            ("<img alt=\">\" src=\"/x\"/>", "<img alt=\">\" src=\"/p/x\"/>"),
            ("<a title=\"/x\" href=\"y\">", "<a title=\"/x\" href=\"y\">"),
            ("<p href=\"/x\">", "<p href=\"/x\">"),
            ("<!-- <a href=\"/x\"> --><a href=\"/y\">", "<!-- <a href=\"/x\"> --><a href=\"/p/y\">"),
            (
                "<script src=/s>'<a href=\"/x\">'</SCRIPT><a href=\"/y\">",
                "<script src=/p/s>'<a href=\"/x\">'</SCRIPT><a href=\"/p/y\">",
            ),
            ("a < b <a href=\"/x\"", "a < b <a href=\"/x\""),
            ("<a href", "<a href"),
            ("<a =\"/x\" href=>", "<a =\"/x\" href=>"),
            ("<a é=\"/x\" hréf=\"/y\" href=\"/ü\">ß</a>", "<a é=\"/x\" hréf=\"/y\" href=\"/p/ü\">ß</a>"),
            ("<script>never ends <a href=\"/x\">", "<script>never ends <a href=\"/x\">"),
        ] {
            assert_eq!(short.rewrite_page(page), want, "{page}");
        }
    }

    #[test]
    fn nothing_that_is_cut_off_panics() {
        let page = "<!DOCTYPE html><a =x href='/é'><!-- c --><script src=\"/s\"></script><b/ c d=e f=\"g\"></a>";
        for (from, _) in page.char_indices() {
            for (to, _) in page.char_indices().filter(|(to, _)| *to >= from) {
                let _ = links().rewrite_page(&page[from..to]);
            }
        }
    }
}
