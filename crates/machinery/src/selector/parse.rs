//! The texts of selectors into requirements and terms.

use super::{FieldTerm, Operator, Requirement};
use crate::field::go_quote;
use crate::names;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Word,
    In,
    NotIn,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    Open,
    Close,
    Comma,
    /// Symbols that mean nothing together.
    Wrong,
    End,
}

struct Tokens<'t> {
    rest: &'t str,
    token: Token,
    text: &'t str,
}

fn is_symbol(c: char) -> bool {
    "=!(),><".contains(c)
}

impl<'t> Tokens<'t> {
    fn new(text: &'t str) -> Self {
        let mut tokens = Self { rest: text, token: Token::End, text: "" };
        tokens.advance();
        tokens
    }

    /// The current token as a value: `in` and `notin` are words there.
    fn value(&self) -> Token {
        match self.token {
            Token::In | Token::NotIn => Token::Word,
            other => other,
        }
    }

    fn advance(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let symbol = self.rest.starts_with(is_symbol);
        let ends = |c: char| is_symbol(c) || " \t\r\n".contains(c);
        let length = if symbol {
            match self.rest.get(..2) {
                Some("==" | "!=") => 2,
                _ => 1,
            }
        } else {
            self.rest.find(ends).unwrap_or(self.rest.len())
        };
        (self.text, self.rest) = self.rest.split_at(length);
        self.token = match self.text {
            "" => Token::End,
            "in" => Token::In,
            "notin" => Token::NotIn,
            "!" => Token::Not,
            "=" => Token::Equals,
            "==" => Token::DoubleEquals,
            "!=" => Token::NotEquals,
            ">" => Token::Greater,
            "<" => Token::Less,
            "(" => Token::Open,
            ")" => Token::Close,
            "," => Token::Comma,
            _ if symbol => Token::Wrong,
            _ => Token::Word,
        };
    }

    fn take(&mut self) -> &'t str {
        let text = self.text;
        self.advance();
        text
    }
}

pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, String> {
    let mut tokens = Tokens::new(text);
    let mut list = Vec::new();
    loop {
        match tokens.value() {
            Token::End => return Ok(list),
            Token::Word | Token::Not => {}
            _ => return Err(format!("found '{}', expected: !, identifier, or 'end of string'", tokens.text)),
        }
        let requirement = requirement(&mut tokens).map_err(|e| format!("unable to parse requirement: {e}"))?;
        list.push(requirement);
        match tokens.token {
            Token::End => return Ok(list),
            Token::Comma => tokens.advance(),
            _ => return Err(format!("found '{}', expected: ',' or 'end of string'", tokens.text)),
        }
        if !matches!(tokens.value(), Token::Word | Token::Not) {
            return Err(format!("found '{}', expected: identifier after ','", tokens.text));
        }
    }
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<Requirement, String> {
    let negated = tokens.token == Token::Not;
    if negated {
        tokens.advance();
    }
    if tokens.value() != Token::Word {
        return Err(format!("found '{}', expected: identifier", tokens.text));
    }
    let key = tokens.take();
    let wrong = names::label_key(key);
    if !wrong.is_empty() {
        return Err(format!("<nil>: Invalid value: {}: {}", go_quote(key), wrong.join("; ")));
    }
    if negated {
        return Requirement::new(key, Operator::DoesNotExist, Vec::new());
    }
    let operator = match tokens.token {
        Token::End | Token::Comma => return Requirement::new(key, Operator::Exists, Vec::new()),
        Token::In => Operator::In,
        Token::NotIn => Operator::NotIn,
        Token::Equals => Operator::Equals,
        Token::DoubleEquals => Operator::DoubleEquals,
        Token::NotEquals => Operator::NotEquals,
        Token::Greater => Operator::GreaterThan,
        Token::Less => Operator::LessThan,
        _ => return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", tokens.text)),
    };
    tokens.advance();
    let values = match operator {
        Operator::In | Operator::NotIn => set(tokens)?,
        _ => vec![single(tokens)?],
    };
    Requirement::new(key, operator, values)
}

fn single(tokens: &mut Tokens<'_>) -> Result<String, String> {
    match tokens.value() {
        Token::End | Token::Comma => Ok(String::new()),
        Token::Word => Ok(tokens.take().to_owned()),
        _ => Err(format!("found '{}', expected: identifier", tokens.text)),
    }
}

/// `(a,b)`; an empty place counts as the empty value.
fn set(tokens: &mut Tokens<'_>) -> Result<Vec<String>, String> {
    if tokens.token != Token::Open {
        return Err(format!("found '{}' expected: '('", tokens.text));
    }
    tokens.advance();
    if !matches!(tokens.value(), Token::Word | Token::Comma | Token::Close) {
        return Err(format!("found '{}', expected: ',', ')' or identifier", tokens.text));
    }
    let mut values = Vec::new();
    loop {
        match tokens.value() {
            Token::Word => {
                values.push(tokens.take().to_owned());
                if !matches!(tokens.value(), Token::Comma | Token::Close) {
                    return Err(format!("found '{}', expected: ',' or ')'", tokens.text));
                }
            }
            Token::Comma | Token::Close => values.push(String::new()),
            _ => return Err(format!("found '{}', expected: ',', or identifier", tokens.text)),
        }
        if tokens.token == Token::Close {
            tokens.advance();
            return Ok(values);
        }
        tokens.advance();
    }
}

pub(super) fn field_terms(text: &str) -> Result<Vec<FieldTerm>, String> {
    let mut parts = split(text);
    parts.sort_unstable();
    parts.into_iter().filter(|part| !part.is_empty()).map(|part| field_term(text, part)).collect()
}

/// At commas that no backslash stands before.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn field_term(whole: &str, part: &str) -> Result<FieldTerm, String> {
    let misunderstood = || format!("invalid selector: '{whole}'; can't understand '{part}'");
    let at = part.char_indices().find(|(at, c)| *c == '=' || part[*at..].starts_with("!="));
    let (at, _) = at.ok_or_else(misunderstood)?;
    let (field, rest) = part.split_at(at);
    let negated = rest.starts_with('!');
    let value = rest.strip_prefix("!=").or_else(|| rest.strip_prefix("==")).unwrap_or(&rest[1..]);
    Ok(FieldTerm { field: field.to_owned(), value: unescaped(value)?, negated })
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let sequence: String = ['\\'].into_iter().chain(other).collect();
                    return Err(format!("invalid field selector: invalid escape sequence: {sequence}"));
                }
            },
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {}", u32::from(c))),
            c => out.push(c),
        }
    }
    Ok(out)
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}
