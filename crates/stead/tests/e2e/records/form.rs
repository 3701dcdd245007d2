//! The form of the records: what is typed, in order, and what a real cluster answered.
//!
//! ```text
//! # a remark; `#### a heading`
//! --- file NAME ... --- end of file    a manifest
//! @ COMMAND                            prepares, is not compared
//! ? COMMAND => TEXT                    waits until the command prints the text
//! & COMMAND                            a second terminal: starts here ...
//! ^ COMMAND                            ... and is ended here with SIGINT; its output follows
//! $ COMMAND                            `      # with a terminal` behind it: on a terminal
//! < what is typed or comes on standard input
//! standard output
//! ! standard error
//! = exit code
//! ```

/// One thing to do.
#[derive(Debug)]
pub(super) enum Step {
    File { name: String, text: String },
    Prepare(String),
    Until { command: String, wanted: String },
    Start(String),
    End { command: String, answer: Answer },
    Command { line: String, terminal: bool, input: String, answer: Answer },
}

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) output: String,
    pub(super) errors: String,
    pub(super) code: i32,
}

const TERMINAL: &str = "      # with a terminal";

pub(super) fn steps(text: &str) -> Vec<Step> {
    let mut lines = text.lines();
    let mut steps = Vec::new();
    while let Some(line) = lines.next() {
        let step = match line.split_once(' ') {
            Some(("---", rest)) => {
                let name = rest.strip_prefix("file ").expect("--- file NAME").to_owned();
                let text = lines.by_ref().take_while(|line| *line != "--- end of file").map(|line| format!("{line}\n"));
                Step::File { name, text: text.collect() }
            }
            Some(("@", command)) => Step::Prepare(command.to_owned()),
            Some(("?", rest)) => {
                let (command, wanted) = rest.split_once(" => ").expect("? COMMAND => TEXT");
                Step::Until { command: command.to_owned(), wanted: wanted.to_owned() }
            }
            Some(("&", command)) => Step::Start(command.to_owned()),
            Some(("^", command)) => Step::End { command: command.to_owned(), answer: answer(&mut lines).1 },
            Some(("$", command)) => {
                let (input, answer) = answer(&mut lines);
                let line = command.strip_suffix(TERMINAL);
                let terminal = line.is_some();
                Step::Command { line: line.unwrap_or(command).to_owned(), terminal, input, answer }
            }
            _ if line.is_empty() || line.starts_with('#') => continue,
            _ => panic!("a line that belongs to nothing: {line}"),
        };
        steps.push(step);
    }
    steps
}

/// What was typed, and the answer, up to the exit code.
fn answer<'a>(lines: &mut impl Iterator<Item = &'a str>) -> (String, Answer) {
    let (mut input, mut answer) = (String::new(), Answer::default());
    for line in lines {
        let (text, to) = match line.split_once(' ') {
            Some(("=", code)) => {
                answer.code = code.parse().expect("= exit code");
                return (input, answer);
            }
            Some(("<", typed)) => (typed, &mut input),
            Some(("!", error)) => (error, &mut answer.errors),
            _ => (line, &mut answer.output),
        };
        to.push_str(text);
        to.push('\n');
    }
    panic!("a command without its exit code");
}
