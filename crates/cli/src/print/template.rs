//! `-o go-template=...`: Go's text templates over JSON: fields, variables, pipelines, `if`, `range`, `with`, the built-in functions and
//! kubectl's `exists` and `base64decode`. `define`, `template` and `block` are refused.
//!
//! Source of the language: Go's `text/template`.

use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::print::{go_text, sorted};

/// How deep blocks and parentheses may nest.
const DEPTH_MAX: usize = 64;
/// What stands for a value that is not there.
const NO_VALUE: &str = "<no value>";

/// A template that has been understood.
#[derive(Debug)]
pub(crate) struct Template {
    source: String,
    body: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Text(String),
    Print(Pipeline),
    If { test: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Range { over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Break,
    Continue,
}

/// `$a, $b := x | y z`
#[derive(Debug, Default)]
struct Pipeline {
    variables: Vec<String>,
    /// `=` rather than `:=`.
    assigns: bool,
    commands: Vec<Vec<Operand>>,
}

#[derive(Debug)]
enum Operand {
    Literal(Value),
    /// `.a.b`
    Field(Vec<String>),
    /// `$x.a`
    Variable(String, Vec<String>),
    /// `(...)` and fields of it
    Nested(Box<Pipeline>, Vec<String>),
    Function(String),
}

const FUNCTIONS: [&str; 21] = [
    "and",
    "or",
    "not",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "len",
    "index",
    "print",
    "printf",
    "println",
    "html",
    "js",
    "urlquery",
    "exists",
    "base64decode",
    "slice",
    "call",
];

impl Template {
    /// Understands a template.
    pub(crate) fn parse(source: &str) -> Result<Self> {
        let parse = || {
            let pieces = pieces(source)?;
            let mut parser = Parser { pieces: &pieces, at: 0, depth: 0 };
            let (body, end) = parser.body()?;
            if end.is_empty() { Ok(body) } else { Err(format!("unexpected {{{{{end}}}}}")) }
        };
        match parse() {
            Ok(body) => Ok(Self { source: source.to_owned(), body }),
            Err(why) => Err(Failure::Plain(format!("error parsing template {source}, template: output:1: {why}"))),
        }
    }

    /// The text that the template makes of a value.
    pub(crate) fn print(&self, value: &Value) -> Result<String> {
        let mut run = Run { text: String::new(), variables: vec![("$".to_owned(), value.clone())] };
        match run.body(&self.body, value) {
            Ok(_) => Ok(run.text),
            Err(why) => {
                Err(Failure::Plain(format!("error executing template {:?}: template: output:1: {why}", self.source)))
            }
        }
    }
}

enum Piece {
    Text(String),
    Action(String),
}

type Parsed<T> = std::result::Result<T, String>;

/// Takes text and `{{actions}}` apart; `{{-` and `-}}` trim the text beside them.
fn pieces(source: &str) -> Parsed<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = source;
    let mut trim_next = false;
    loop {
        let at = rest.find("{{");
        let mut text = &rest[..at.unwrap_or(rest.len())];
        if trim_next {
            text = text.trim_start();
        }
        let Some(at) = at else {
            pieces.push(Piece::Text(text.to_owned()));
            return Ok(pieces);
        };
        rest = &rest[at + 2..];
        if let Some(trimmed) = rest.strip_prefix("- ") {
            rest = trimmed;
            text = text.trim_end();
        }
        pieces.push(Piece::Text(text.to_owned()));
        let end = action_end(rest).ok_or("unclosed action")?;
        let action = &rest[..end];
        rest = &rest[end + 2..];
        trim_next = action.ends_with(" -");
        let action = action.strip_suffix(" -").unwrap_or(action).trim();
        if !action.starts_with("/*") {
            pieces.push(Piece::Action(action.to_owned()));
        }
    }
}

/// Where `}}` stands outside of quotes.
fn action_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(q), c) if c == q && !escaped => quote = None,
            (None, '"' | '`') => quote = Some(c),
            (None, '}') if text[at..].starts_with("}}") => return Some(at),
            _ => {}
        }
        escaped = false;
    }
    None
}

struct Parser<'p> {
    pieces: &'p [Piece],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    /// Nodes up to the end, an `end` or an `else ...`, which is returned.
    fn body(&mut self) -> Parsed<(Vec<Node>, String)> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("too deeply nested".into());
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.get(self.at) {
            self.at += 1;
            let action = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    continue;
                }
                Piece::Action(action) => action,
            };
            // What follows a keyword need not be a space: `{{range.items}}`, `{{if(eq .a 1)}}`.
            let ends = action.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(action.len());
            let (word, rest) = action.split_at(ends);
            match word {
                "end" | "else" => {
                    self.depth -= 1;
                    return Ok((nodes, action.clone()));
                }
                "if" => nodes.push(self.branch(rest)?),
                "with" => {
                    let (body, otherwise) = self.block()?;
                    nodes.push(Node::With { value: pipeline(rest)?, body, otherwise });
                }
                "range" => {
                    let (body, otherwise) = self.block()?;
                    nodes.push(Node::Range { over: pipeline(rest)?, body, otherwise });
                }
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                "define" | "template" | "block" => return Err(format!("{{{{{word}}}}} is not supported")),
                _ => nodes.push(Node::Print(pipeline(action)?)),
            }
        }
        self.depth -= 1;
        Ok((nodes, String::new()))
    }

    fn branch(&mut self, test: &str) -> Parsed<Node> {
        let test = pipeline(test)?;
        let (then, end) = self.body()?;
        let otherwise = match end.strip_prefix("else") {
            Some(rest) if rest.trim().is_empty() => self.rest_of_block()?,
            Some(rest) => match rest.trim().strip_prefix("if") {
                Some(rest) => vec![self.branch(rest)?],
                None => return Err(format!("unexpected {{{{{end}}}}}")),
            },
            None if end == "end" => Vec::new(),
            None => return Err("unexpected EOF".into()),
        };
        Ok(Node::If { test, then, otherwise })
    }

    fn block(&mut self) -> Parsed<(Vec<Node>, Vec<Node>)> {
        let (body, end) = self.body()?;
        match &*end {
            "end" => Ok((body, Vec::new())),
            "else" => Ok((body, self.rest_of_block()?)),
            _ => Err("unexpected EOF".into()),
        }
    }

    fn rest_of_block(&mut self) -> Parsed<Vec<Node>> {
        let (body, end) = self.body()?;
        if end == "end" { Ok(body) } else { Err("unexpected EOF".into()) }
    }
}

fn pipeline(text: &str) -> Parsed<Pipeline> {
    let tokens = tokens(text)?;
    let (found, at) = pipeline_of(&tokens, 0, 0)?;
    match tokens.get(at) {
        None if found.commands.is_empty() => Err("missing value for command".into()),
        None => Ok(found),
        Some(token) => Err(format!("unexpected {token:?} in command")),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Literal(Value),
    Open,
    /// With the fields behind it.
    Close(Vec<String>),
    Pipe,
    Comma,
    Declare,
    Assign,
}

fn tokens(text: &str) -> Parsed<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        match first {
            '(' => tokens.push(Token::Open),
            ')' => {
                let end =
                    rest[1..].find(|c: char| !(c.is_alphanumeric() || "._-".contains(c))).map_or(rest.len(), |e| e + 1);
                tokens.push(Token::Close(fields(&rest[1..end])));
                length = end;
            }
            '|' => tokens.push(Token::Pipe),
            ',' => tokens.push(Token::Comma),
            ':' if rest.starts_with(":=") => {
                tokens.push(Token::Declare);
                length = 2;
            }
            '=' => tokens.push(Token::Assign),
            '"' | '`' | '\'' => {
                let (value, used) = literal(rest, first)?;
                tokens.push(Token::Literal(value));
                length = used;
            }
            _ => {
                let end = rest
                    .find(|c: char| c.is_whitespace() || "()|,\"`".contains(c) || (c == ':' || c == '='))
                    .unwrap_or(rest.len());
                if end == 0 {
                    return Err(format!("unexpected {first:?} in command"));
                }
                tokens.push(word(&rest[..end])?);
                length = end;
            }
        }
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn literal(text: &str, quote: char) -> Parsed<(Value, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote && quote == '\'' => {
                let code = value.chars().next().map(u32::from).unwrap_or_default();
                return Ok((code.into(), at + 1));
            }
            c if c == quote => return Ok((value.into(), at + 1)),
            '\\' if quote != '`' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, other)) => value.push(other),
                None => break,
            },
            c => value.push(c),
        }
    }
    Err("unterminated quoted string".into())
}

fn word(text: &str) -> Parsed<Token> {
    Ok(match text {
        "true" | "false" => Token::Literal((text == "true").into()),
        "nil" => Token::Literal(Value::Null),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+') => {
            Token::Literal(serde_json::from_str(text).map_err(|_| format!("bad number syntax: {text:?}"))?)
        }
        _ if text.starts_with(['.', '$']) => Token::Word(text.to_owned()),
        _ if FUNCTIONS.contains(&text) => Token::Word(text.to_owned()),
        _ => return Err(format!("function {text:?} not defined")),
    })
}

fn fields(text: &str) -> Vec<String> {
    text.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A pipeline from `at` on, and where it ends.
fn pipeline_of(tokens: &[Token], at: usize, depth: usize) -> Parsed<(Pipeline, usize)> {
    if depth > DEPTH_MAX {
        return Err("too deeply nested".into());
    }
    let (mut found, mut at) = (Pipeline::default(), at);
    let declared = tokens[at..].iter().position(|token| matches!(token, Token::Declare | Token::Assign));
    if let Some(length) = declared {
        let names = &tokens[at..at + length];
        if names.iter().all(|t| matches!(t, Token::Comma) || matches!(t, Token::Word(w) if w.starts_with('$'))) {
            found.variables =
                names.iter().filter_map(|t| if let Token::Word(w) = t { Some(w.clone()) } else { None }).collect();
            found.assigns = tokens[at + length] == Token::Assign;
            at += length + 1;
        }
    }
    let mut command = Vec::new();
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::Literal(value) => command.push(Operand::Literal(value.clone())),
            Token::Word(word) if word.starts_with('.') => command.push(Operand::Field(fields(word))),
            Token::Word(word) if word.starts_with('$') => {
                let (name, rest) = word.split_once('.').unwrap_or((word, ""));
                command.push(Operand::Variable(name.to_owned(), fields(rest)));
            }
            Token::Word(word) => command.push(Operand::Function(word.clone())),
            Token::Open => {
                let (inner, end) = pipeline_of(tokens, at, depth + 1)?;
                let Some(Token::Close(fields)) = tokens.get(end) else { return Err("unclosed left paren".into()) };
                command.push(Operand::Nested(Box::new(inner), fields.clone()));
                at = end + 1;
            }
            Token::Pipe => found.commands.push(std::mem::take(&mut command)),
            Token::Close(_) => {
                at -= 1;
                break;
            }
            other => return Err(format!("unexpected {other:?} in operand")),
        }
    }
    if !command.is_empty() {
        found.commands.push(command);
    }
    if found.commands.iter().any(Vec::is_empty) {
        return Err("missing value for command".into());
    }
    Ok((found, at))
}

/// How a body ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run {
    text: String,
    variables: Vec<(String, Value)>,
}

impl Run {
    fn body(&mut self, nodes: &[Node], dot: &Value) -> Parsed<Flow> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.text.push_str(text);
                    Flow::On
                }
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.text.push_str(&value.as_ref().map_or_else(|| NO_VALUE.to_owned(), shown));
                    }
                    Flow::On
                }
                Node::If { test, then, otherwise } => {
                    let outer = self.variables.len();
                    let chosen = if truth(self.pipeline(test, dot)?.as_ref()) { then } else { otherwise };
                    let flow = self.body(chosen, dot)?;
                    self.variables.truncate(outer);
                    flow
                }
                Node::With { value, body, otherwise } => {
                    let outer = self.variables.len();
                    let flow = match self.pipeline(value, dot)? {
                        Some(value) if truth(Some(&value)) => self.body(body, &value)?,
                        _ => self.body(otherwise, dot)?,
                    };
                    self.variables.truncate(outer);
                    flow
                }
                Node::Range { over, body, otherwise } => self.range(over, body, otherwise, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn range(&mut self, over: &Pipeline, body: &[Node], otherwise: &[Node], dot: &Value) -> Parsed<Flow> {
        let outer = self.variables.len();
        let value = self.commands(&over.commands, dot)?;
        let entries: Vec<(Value, Value)> = match value {
            Some(Value::Array(list)) => list.into_iter().enumerate().map(|(at, item)| (at.into(), item)).collect(),
            Some(Value::Object(map)) => {
                sorted(&map).into_iter().map(|(key, item)| (key.clone().into(), item.clone())).collect()
            }
            None | Some(Value::Null) => Vec::new(),
            Some(other) => return Err(format!("range can't iterate over {}", go_text(&other))),
        };
        if entries.is_empty() {
            return self.body(otherwise, dot);
        }
        for (key, item) in entries {
            match &over.variables[..] {
                [] => {}
                [one] => self.variables.push((one.clone(), item.clone())),
                [index, element, ..] => {
                    self.variables.push((index.clone(), key));
                    self.variables.push((element.clone(), item.clone()));
                }
            }
            let flow = self.body(body, &item)?;
            self.variables.truncate(outer);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Parsed<Option<Value>> {
        let value = self.commands(&pipeline.commands, dot)?;
        for name in &pipeline.variables {
            let new = value.clone().unwrap_or_default();
            match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
                Some((_, known)) if pipeline.assigns => *known = new,
                None if pipeline.assigns => return Err(format!("undefined variable {name:?}")),
                _ => self.variables.push((name.clone(), new)),
            }
        }
        Ok(value)
    }

    fn commands(&mut self, commands: &[Vec<Operand>], dot: &Value) -> Parsed<Option<Value>> {
        let mut last: Option<Option<Value>> = None;
        for command in commands {
            last = Some(match &command[..] {
                [Operand::Function(name), arguments @ ..] => {
                    let mut values = Vec::new();
                    for argument in arguments {
                        values.push(self.operand(argument, dot)?);
                    }
                    values.extend(last);
                    call(name, &values)?
                }
                [one] if last.is_none() => self.operand(one, dot)?,
                _ => return Err("can't give argument to non-function".into()),
            });
        }
        Ok(last.flatten())
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Parsed<Option<Value>> {
        match operand {
            Operand::Literal(value) => Ok(Some(value.clone())),
            Operand::Field(path) => walk(Some(dot), path),
            Operand::Variable(name, path) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = known.ok_or_else(|| format!("undefined variable {name:?}"))?;
                walk(Some(value), path)
            }
            Operand::Nested(pipeline, path) => {
                let value = self.pipeline(pipeline, dot)?;
                walk(value.as_ref(), path)
            }
            Operand::Function(name) => call(name, &[]),
        }
    }
}

fn walk(value: Option<&Value>, path: &[String]) -> Parsed<Option<Value>> {
    let mut value = value;
    for name in path {
        value = match value {
            Some(Value::Object(map)) => map.get(name),
            None | Some(Value::Null) => return Err(format!("nil pointer evaluating interface {{}}.{name}")),
            Some(_) => return Err(format!("can't evaluate field {name} in type interface {{}}")),
        };
    }
    Ok(value.cloned())
}

fn shown(value: &Value) -> String {
    if value.is_null() { NO_VALUE.to_owned() } else { go_text(value) }
}

fn truth(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
    }
}

fn call(name: &str, values: &[Option<Value>]) -> Parsed<Option<Value>> {
    let wrong = || format!("wrong number of args for {name}: got {}", values.len());
    let first = || values.first().ok_or_else(wrong);
    let join = |separator: &str| {
        values.iter().map(|v| v.as_ref().map_or("<nil>".into(), go_text)).collect::<Vec<_>>().join(separator)
    };
    Ok(Some(match name {
        "and" => return Ok(values.iter().find(|v| !truth(v.as_ref())).or(values.last()).ok_or_else(wrong)?.clone()),
        "or" => return Ok(values.iter().find(|v| truth(v.as_ref())).or(values.last()).ok_or_else(wrong)?.clone()),
        "not" => (!truth(first()?.as_ref())).into(),
        "eq" => values.iter().skip(1).any(|v| Some(v) == values.first()).into(),
        "ne" => (values.first() != values.get(1)).into(),
        "lt" | "le" | "gt" | "ge" => {
            let (Some(Some(a)), Some(Some(b))) = (values.first(), values.get(1)) else { return Err(wrong()) };
            let order = match (a, b) {
                (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
                (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
                _ => return Err(format!("error calling {name}: incompatible types for comparison")),
            };
            order
                .is_some_and(|order| match name {
                    "lt" => order.is_lt(),
                    "le" => order.is_le(),
                    "gt" => order.is_gt(),
                    _ => order.is_ge(),
                })
                .into()
        }
        "len" => match first()? {
            Some(Value::Array(list)) => list.len().into(),
            Some(Value::Object(map)) => map.len().into(),
            Some(Value::String(text)) => text.len().into(),
            _ => return Err("error calling len: len of nil pointer".into()),
        },
        "index" => return index(first()?.clone(), values.get(1..).unwrap_or_default()),
        "print" | "html" | "js" | "urlquery" => join("").into(),
        "println" => (join(" ") + "\n").into(),
        "printf" => printf(values)?.into(),
        "exists" => matches!(index(first()?.clone(), values.get(1..).unwrap_or_default()), Ok(Some(_))).into(),
        "base64decode" => {
            use base64::Engine as _;
            let text = first()?.as_ref().and_then(Value::as_str).unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| error.to_string())?;
            String::from_utf8_lossy(&bytes).into_owned().into()
        }
        other => return Err(format!("{other} is not supported")),
    }))
}

fn index(value: Option<Value>, keys: &[Option<Value>]) -> Parsed<Option<Value>> {
    let mut value = value;
    for key in keys {
        value = match (value, key) {
            (Some(Value::Object(map)), Some(Value::String(key))) => map.get(key).cloned(),
            (Some(Value::Array(list)), Some(Value::Number(at))) => {
                let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
                match at.and_then(|at| list.get(at)) {
                    Some(item) => Some(item.clone()),
                    None => return Err("error calling index: reflect: slice index out of range".into()),
                }
            }
            (None | Some(Value::Null), _) => return Err("error calling index: index of untyped nil".into()),
            _ => return Err("error calling index: can't index item".into()),
        };
    }
    Ok(value)
}

/// `printf`'s verbs `%s %d %v %q %t %f %%`, with a width.
fn printf(values: &[Option<Value>]) -> Parsed<String> {
    let Some(Some(Value::String(format))) = values.first() else {
        return Err("wrong type for value; expected string".into());
    };
    let mut arguments = values[1..].iter();
    let mut text = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut width = String::new();
        while let Some(c) = chars.next_if(|c| c.is_ascii_digit() || "-+.".contains(*c)) {
            width.push(c);
        }
        let verb = chars.next().unwrap_or('%');
        if verb == '%' {
            text.push('%');
            continue;
        }
        let shown = match (verb, arguments.next()) {
            (verb, None) => format!("%!{verb}(MISSING)"),
            (_, Some(None)) => "<nil>".to_owned(),
            ('q', Some(Some(value))) => format!("{:?}", go_text(value)),
            (_, Some(Some(value))) => go_text(value),
        };
        let columns: usize =
            width.trim_start_matches(['-', '+', '0']).split('.').next().unwrap_or_default().parse().unwrap_or(0);
        let columns = columns.min(1024);
        if width.starts_with('-') {
            text.push_str(&format!("{shown:<columns$}"));
        } else {
            text.push_str(&format!("{shown:>columns$}"));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_print_what_go_prints() {
        let value = json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "n": 1}, {"metadata": {"name": "b"}, "n": 2}], "secret": "aGk="});
        for (template, wanted) in [
            ("{{.kind}}", "List"),
            ("{{range .items}}{{.metadata.name}} {{end}}", "a b "),
            ("{{range.items}}{{if(eq .n 1)}}{{.metadata.name}}{{end}}{{end}}", "a"),
            (r#"{{range $i, $e := .items}}{{$i}}={{$e.metadata.name}}{{"\n"}}{{end}}"#, "0=a\n1=b\n"),
            ("{{.nothere}}", "<no value>"),
            (r#"{{index (index .items 0).metadata.labels "x.y/z"}}"#, "1"),
            ("{{len .items}}", "2"),
            (r#"{{range .items}}{{if eq .n 1}}one{{else if gt .n 1}}more{{end}},{{end}}"#, "one,more,"),
            (r#"{{with .nothere}}x{{else}}none{{end}}"#, "none"),
            (r#"{{printf "%s-%d|%5s|" .kind 3 "a"}}"#, "List-3|    a|"),
            ("{{.secret | base64decode}}", "hi"),
            ("a {{- /* c */ -}} b", "ab"),
            ("a  {{- .kind -}}  b", "aListb"),
            ("{{$x := .kind}}{{$x}}{{$.kind}}", "ListList"),
            ("{{range .nothere}}x{{else}}empty{{end}}", "empty"),
            ("{{(index .items 1).metadata.name}}", "b"),
        ] {
            let template = Template::parse(template).unwrap_or_else(|e| panic!("{template}: {}", e.message()));
            assert_eq!(template.print(&value).unwrap_or_else(|e| e.message()), wanted, "{}", template.source);
        }
    }

    #[test]
    fn mistakes_are_told_in_upstreams_words() {
        for (template, wanted) in [
            ("{{.items", "error parsing template {{.items, template: output:1: unclosed action"),
            ("{{frob .}}", "error parsing template {{frob .}}, template: output:1: function \"frob\" not defined"),
        ] {
            assert_eq!(Template::parse(template).expect_err(template).message(), wanted);
        }
    }
}
