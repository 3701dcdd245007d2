//! YAML as kubectl writes it: keys in order, lists not indented, scalars quoted and folded by libyaml's rules.
//!
//! Source of the rules: `sigs.k8s.io/yaml` and the emitter below it (a port of libyaml), whose defaults these are.

use serde_json::Value;

/// Where the emitter begins to fold, in columns.
const BEST_WIDTH: usize = 80;
/// Longer keys are written as `? KEY`, as libyaml has it; in bytes.
const SIMPLE_KEY_MAX: usize = 128;
/// Columns per level.
const INDENT: usize = 2;

/// A value as a YAML document.
pub(crate) fn yaml(value: &Value) -> String {
    let mut writer = Writer::default();
    match value {
        Value::Object(map) if !map.is_empty() => writer.mapping(map, 0),
        Value::Array(list) if !list.is_empty() => writer.sequence(list, 0),
        other => writer.scalar(other, 0, false),
    }
    writer.line();
    writer.text
}

#[derive(Default)]
struct Writer {
    text: String,
    column: usize,
}

/// The forms of a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

impl Writer {
    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        self.column += text.chars().count();
    }

    fn put_char(&mut self, c: char) {
        self.text.push(c);
        self.column += 1;
    }

    fn line(&mut self) {
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.column = 0;
    }

    fn indent(&mut self, columns: usize) {
        self.text.push('\n');
        self.column = 0;
        for _ in 0..columns {
            self.put_char(' ');
        }
    }

    /// Goes to the column where an entry of a collection begins: the present one, or a new line's.
    fn begin(&mut self, columns: usize) {
        let fresh = self.text.is_empty() || self.text.ends_with('\n') || self.text.ends_with("- ");
        if fresh && self.column <= columns {
            while self.column < columns {
                self.put_char(' ');
            }
        } else {
            self.indent(columns);
        }
    }

    fn mapping(&mut self, map: &serde_json::Map<String, Value>, columns: usize) {
        let mut entries: Vec<(&String, &Value)> = map.iter().collect();
        entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
        for (key, value) in entries {
            self.begin(columns);
            let simple = key.len() <= SIMPLE_KEY_MAX && !key.contains('\n');
            if simple {
                self.string(key, columns, true);
            } else {
                self.put("? ");
                self.string(key, columns, false);
                self.indent(columns);
            }
            self.put(":");
            match value {
                Value::Object(map) if !map.is_empty() => self.mapping(map, columns + INDENT),
                Value::Array(list) if !list.is_empty() => self.sequence(list, columns),
                other => {
                    self.put(" ");
                    self.scalar(other, columns, false);
                }
            }
        }
    }

    fn sequence(&mut self, list: &[Value], columns: usize) {
        for item in list {
            self.begin(columns);
            self.put("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.mapping(map, columns + INDENT),
                Value::Array(list) if !list.is_empty() => self.sequence(list, columns + INDENT),
                other => self.scalar(other, columns, false),
            }
        }
    }

    fn scalar(&mut self, value: &Value, columns: usize, key: bool) {
        match value {
            Value::Null => self.put("null"),
            Value::Bool(flag) => self.put(if *flag { "true" } else { "false" }),
            Value::Number(number) => self.put(&super::number(number)),
            Value::String(text) => self.string(text, columns, key),
            Value::Array(_) => self.put("[]"),
            Value::Object(_) => self.put("{}"),
        }
    }

    fn string(&mut self, text: &str, columns: usize, key: bool) {
        let inner = columns + INDENT;
        match style(text, key) {
            Style::Plain => self.plain(text, inner, key),
            Style::Single => self.single(text, inner, key),
            Style::Double => self.double(text, inner, key),
            Style::Literal => self.literal(text, inner),
        }
    }

    fn plain(&mut self, text: &str, columns: usize, key: bool) {
        let mut spaces = false;
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            if c == ' ' && !key && !spaces && self.column > BEST_WIDTH && rest.peek() != Some(&' ') {
                self.indent(columns);
            } else {
                self.put_char(c);
            }
            spaces = c == ' ';
        }
    }

    fn single(&mut self, text: &str, columns: usize, key: bool) {
        self.put("'");
        let (mut spaces, mut breaks) = (false, false);
        let chars: Vec<char> = text.chars().collect();
        for (at, &c) in chars.iter().enumerate() {
            let inside = at > 0 && at + 1 < chars.len();
            if c == ' ' {
                if !key && !spaces && self.column > BEST_WIDTH && inside && chars.get(at + 1) != Some(&' ') {
                    self.indent(columns);
                } else {
                    self.put(" ");
                }
                spaces = true;
            } else if c == '\n' {
                if !breaks {
                    self.text.push('\n');
                }
                self.text.push('\n');
                self.column = 0;
                breaks = true;
            } else {
                if breaks {
                    while self.column < columns {
                        self.put_char(' ');
                    }
                }
                self.put_char(c);
                if c == '\'' {
                    self.put("'");
                }
                (spaces, breaks) = (false, false);
            }
        }
        self.put("'");
    }

    fn double(&mut self, text: &str, columns: usize, key: bool) {
        self.put("\"");
        let mut spaces = false;
        let chars: Vec<char> = text.chars().collect();
        for (at, &c) in chars.iter().enumerate() {
            let inside = at > 0 && at + 1 < chars.len();
            if !printable(c) || is_break(c) || c == '"' || c == '\\' {
                self.put(&escaped(c));
                spaces = false;
            } else if c == ' ' {
                if !key && !spaces && self.column > BEST_WIDTH && inside {
                    self.indent(columns);
                    if chars.get(at + 1) == Some(&' ') {
                        self.put("\\");
                    }
                } else {
                    self.put(" ");
                }
                spaces = true;
            } else {
                self.put_char(c);
                spaces = false;
            }
        }
        self.put("\"");
    }

    fn literal(&mut self, text: &str, columns: usize) {
        self.put("|");
        if text.starts_with([' ', '\n']) {
            self.put("2");
        }
        if !text.ends_with('\n') {
            self.put("-");
        } else if text.len() == 1 || text[..text.len() - 1].ends_with('\n') {
            self.put("+");
        }
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            self.text.push('\n');
            self.column = 0;
            if !line.is_empty() {
                while self.column < columns {
                    self.put_char(' ');
                }
                self.put(line);
            }
        }
        if text.ends_with('\n') && !text[..text.len() - 1].is_empty() && text[..text.len() - 1].ends_with('\n') {
            self.text.push('\n');
        }
    }
}

fn escaped(c: char) -> String {
    match c {
        '\0' => "\\0".into(),
        '\u{7}' => "\\a".into(),
        '\u{8}' => "\\b".into(),
        '\t' => "\\t".into(),
        '\n' => "\\n".into(),
        '\u{b}' => "\\v".into(),
        '\u{c}' => "\\f".into(),
        '\r' => "\\r".into(),
        '\u{1b}' => "\\e".into(),
        '"' => "\\\"".into(),
        '\\' => "\\\\".into(),
        '\u{85}' => "\\N".into(),
        '\u{a0}' => "\\_".into(),
        '\u{2028}' => "\\L".into(),
        '\u{2029}' => "\\P".into(),
        c => match u32::from(c) {
            code @ 0..=0xff => format!("\\x{code:02X}"),
            code @ 0x100..=0xffff => format!("\\u{code:04X}"),
            code => format!("\\U{code:08X}"),
        },
    }
}

/// What the emitter writes as it is. Characters beyond the basic plane are not among it.
fn printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What the characters of a scalar allow.
struct Allowed {
    plain: bool,
    single: bool,
    block: bool,
    multiline: bool,
}

fn style(text: &str, key: bool) -> Style {
    let allowed = analyze(text);
    let mut style = if text.contains('\n') {
        Style::Literal
    } else if resolves_to_string(text) {
        Style::Plain
    } else {
        Style::Double
    };
    if key && allowed.multiline {
        style = Style::Double;
    }
    if style == Style::Plain && (!allowed.plain || (text.is_empty() && key)) {
        style = Style::Single;
    }
    if style == Style::Single && !allowed.single {
        style = Style::Double;
    }
    if style == Style::Literal && (!allowed.block || key) {
        style = Style::Double;
    }
    style
}

fn analyze(text: &str) -> Allowed {
    if text.is_empty() {
        return Allowed { plain: true, single: true, block: false, multiline: false };
    }
    let chars: Vec<char> = text.chars().collect();
    let last = chars.len() - 1;
    let mut indicators = text.starts_with("---") || text.starts_with("...");
    let (mut breaks, mut special, mut break_space, mut space_break) = (false, false, false, false);
    let (mut previous_space, mut previous_break, mut after_white) = (false, false, true);
    for (at, &c) in chars.iter().enumerate() {
        let before_white = chars.get(at + 1).is_none_or(|next| matches!(next, ' ' | '\t') || is_break(*next));
        indicators |= match c {
            '#' if at > 0 => after_white,
            '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => at == 0,
            '?' | '-' => at == 0 && before_white,
            ':' => before_white,
            _ => false,
        };
        special |= !printable(c);
        breaks |= is_break(c);
        break_space |= c == ' ' && previous_break;
        space_break |= is_break(c) && previous_space;
        (previous_space, previous_break) = (c == ' ', is_break(c));
        after_white = matches!(c, ' ' | '\t') || is_break(c);
    }
    let edge = |c: char| c == ' ' || is_break(c);
    let (edges, trailing_space) = (edge(chars[0]) || edge(chars[last]), chars[last] == ' ');
    let hopeless = space_break || special;
    Allowed {
        plain: !(edges || break_space || hopeless || breaks || indicators),
        single: !(break_space || hopeless),
        block: !(trailing_space || hopeless),
        multiline: breaks,
    }
}

/// Whether YAML 1.1 would read the plain text as a string.
fn resolves_to_string(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    match first {
        'y' | 'Y' | 'n' | 'N' | 't' | 'T' | 'f' | 'F' | 'o' | 'O' | '~' => !is_word(text),
        '.' => !(is_special_float(text) || is_float(text)),
        '+' | '-' | '0'..='9' => {
            let plain = text.replace('_', "");
            !(is_timestamp(text)
                || is_integer(&plain)
                || is_float(&plain)
                || is_special_float(text)
                || is_base_60(text))
        }
        _ => true,
    }
}

fn is_word(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "yes", "on", "true", "n", "no", "off", "false", "null"];
    let lower = text.to_lowercase();
    let capital = {
        let mut chars = lower.chars();
        chars.next().map(|c| c.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
    };
    text == "~" || (WORDS.contains(&&*lower) && (text == lower || text == capital || text == lower.to_uppercase()))
}

fn is_special_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

/// As Go's `ParseInt` with base 0 has it, of at most 64 bits.
fn is_integer(text: &str) -> bool {
    let negative = text.starts_with('-');
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = digits.to_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, &*lower),
    };
    let ok = digits.chars().all(|c| c.is_digit(radix)) && !digits.is_empty();
    ok && u64::from_str_radix(digits, radix).is_ok_and(|number| !negative || number <= 1 << 63)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, within a double's range.
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (number, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let form = match number.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !number.is_empty() && digits(number),
    };
    form && exponent.is_none_or(|e| !e.is_empty() && digits(e)) && text.parse().is_ok_and(|f: f64| f.is_finite())
}

/// `[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?`: a number to the base of 60.
fn is_base_60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (number, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut parts = number.split(':');
    let first = parts.next().unwrap_or_default();
    let digit_or_line = |c: char| c.is_ascii_digit() || c == '_';
    let rest: Vec<&str> = parts.collect();
    let sixty = |part: &&str| match part.as_bytes() {
        [one] => one.is_ascii_digit(),
        [ten, one] => (b'0'..=b'5').contains(ten) && one.is_ascii_digit(),
        _ => false,
    };
    first.starts_with(|c: char| c.is_ascii_digit())
        && first.chars().all(digit_or_line)
        && !rest.is_empty()
        && rest.iter().all(sixty)
        && fraction.chars().all(digit_or_line)
}

/// `2006-1-2`, or with a time after `T`, `t` (with a zone) or a blank (without one).
fn is_timestamp(text: &str) -> bool {
    let (date, time) = match text.split_once(['T', 't']) {
        Some((date, time)) => (date, Some((time, true))),
        None => text.split_once(' ').map_or((text, None), |(date, time)| (date, Some((time, false)))),
    };
    let number = |text: &str, digits: std::ops::RangeInclusive<usize>, max: u32| {
        digits.contains(&text.len()) && text.parse::<u32>().is_ok_and(|n| n <= max) && !text.starts_with('+')
    };
    let parts: Vec<&str> = date.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    if !(number(year, 4..=4, 9999) && number(month, 1..=2, 12) && number(day, 1..=2, 31)) {
        return false;
    }
    let Some((time, zoned)) = time else { return true };
    let (clock, zone) = match time.find(['Z', '+', '-']) {
        Some(at) => (&time[..at], &time[at..]),
        None => (time, ""),
    };
    let zone_fits = match (zoned, zone) {
        (true, "Z") | (false, "") => true,
        (true, zone) => zone.len() == 6 && number(&zone[1..3], 2..=2, 24) && number(&zone[4..], 2..=2, 59),
        (false, _) => false,
    };
    let clock: Vec<&str> = clock.split(':').collect();
    let [hour, minute, second] = clock[..] else { return false };
    let second = second.split('.').next().unwrap_or_default();
    zone_fits && number(hour, 1..=2, 23) && number(minute, 1..=2, 59) && number(second, 1..=2, 59)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_quoted_as_stock_kubectl_quotes_them() {
        // Each pair was taken from `kubectl create configmap --dry-run=client -o yaml`.
        for (text, wanted) in [
            ("trail \nx", r#""trail \nx""#),
            ("[a]", "'[a]'"),
            (".5", "\".5\""),
            ("a,b", "a,b"),
            ("{}", "'{}'"),
            ("x\ry", r#""x\ry""#),
            ("off", "\"off\""),
            ("'q", "'''q'"),
            ("\"q\"", "'\"q\"'"),
            ("a:", "'a:'"),
            ("12:30:45", "\"12:30:45\""),
            ("\u{1f600}", r#""\U0001F600""#),
            ("---", "'---'"),
            ("?x", "?x"),
            ("0o7", "\"0o7\""),
            ("+1", "\"+1\""),
            ("1.", "\"1.\""),
            (".inf", "\".inf\""),
            ("0b1", "\"0b1\""),
            ("190:20:30", "\"190:20:30\""),
            ("2001-01-01T00:00:00Z", "\"2001-01-01T00:00:00Z\""),
            ("yes", "\"yes\""),
            ("it's: x", "'it''s: x'"),
            ("*a", "'*a'"),
            (" lead", "' lead'"),
            ("", "\"\""),
            ("1e3", "\"1e3\""),
            ("tab\tx", r#""tab\tx""#),
            ("é unicode ☃", "é unicode ☃"),
            ("~", "\"~\""),
            ("1_000", "\"1_000\""),
            ("- a", "'- a'"),
            ("a #b", "'a #b'"),
            ("=", "="),
            ("<<", "<<"),
            ("1:30", "\"1:30\""),
            ("1.2.3", "1.2.3"),
            ("10.0.0.1", "10.0.0.1"),
            ("100m", "100m"),
            ("nginx:1.21", "nginx:1.21"),
        ] {
            assert_eq!(yaml(&json!(text)).trim_end(), wanted, "{text:?}");
        }
    }

    #[test]
    fn long_and_many_lined_text_is_folded_as_stock_kubectl_folds_it() {
        let value = json!({"data": {
            "a": "word ".repeat(40),
            "al": "word: aaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbb cccccccccccccccccccccccc dddddddddddddddd eeeeeeeeeeee",
            "e": "l1\nl2\n", "f": "l1\nl2", "g": "l1\n\n", "m": " lead\nline", "n": "2001-01-01"
        }});
        let wanted = "data:
  a: 'word word word word word word word word word word word word word word word word
    word word word word word word word word word word word word word word word word
    word word word word word word word word '
  al: 'word: aaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbb cccccccccccccccccccccccc
    dddddddddddddddd eeeeeeeeeeee'
  e: |
    l1
    l2
  f: |-
    l1
    l2
  g: |+
    l1

  m: |2-
     lead
    line
  \"n\": \"2001-01-01\"
";
        assert_eq!(yaml(&value), wanted);
    }

    #[test]
    fn lists_are_not_indented_and_nest() {
        let value = json!({"b": [{"x": 1, "y": [true, null]}, [1, [2]], {}, []], "a": {"c": {}}});
        let wanted = "a:\n  c: {}\nb:\n- x: 1\n  \"y\":\n  - true\n  - null\n- - 1\n  - - 2\n- {}\n- []\n";
        assert_eq!(yaml(&value), wanted);
    }
}
