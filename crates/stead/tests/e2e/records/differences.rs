//! What is known to differ, with its reason. Each entry fails the test when it is no longer needed.
//!
//! ```text
//! @ seed-000 seed-004: the beginning of a command | of another one
//! # the reason
//! - lines of the record, as they are compared
//! + the lines that stand for them here
//! ```
//! `*` stands for any word in lines that only one side has. `@~` instead of `@`: the difference hangs on a moment, and is not there each time.

/// One difference.
#[derive(Debug)]
pub(super) struct Entry {
    commands: Vec<String>,
    theirs: Vec<String>,
    ours: Vec<String>,
    head: String,
    sometimes: bool,
    needed: bool,
}

/// Those of one record.
#[derive(Debug)]
pub(super) struct Differences(Vec<Entry>);

impl Differences {
    pub(super) fn of(record: &str, text: &str) -> Self {
        let mut entries: Vec<(bool, Entry)> = Vec::new();
        for line in text.lines() {
            let last = entries.last_mut().map(|(_, entry)| entry);
            match (line.split_once(' '), last) {
                (Some((mark @ ("@" | "@~"), rest)), _) => {
                    let (records, commands) = rest.split_once(": ").expect("@ RECORDS: COMMANDS");
                    let entry = Entry {
                        commands: commands.split(" | ").map(str::to_owned).collect(),
                        theirs: Vec::new(),
                        ours: Vec::new(),
                        head: line.to_owned(),
                        sometimes: mark == "@~",
                        needed: false,
                    };
                    entries.push((records.split(' ').any(|one| one == record), entry));
                }
                (Some(("-", line)), Some(entry)) => entry.theirs.push(line.to_owned()),
                (Some(("+", line)), Some(entry)) => entry.ours.push(line.to_owned()),
                (Some(("#", _)), _) | (None, _) => {}
                (Some(_), _) => panic!("differences: a line that belongs to nothing: {line}"),
            }
        }
        Self(entries.into_iter().filter_map(|(here, entry)| here.then_some(entry)).collect())
    }

    /// Whether both sides agree when the known differences of the command are left out.
    pub(super) fn excuse(&mut self, command: &str, theirs: &[String], ours: &[String]) -> bool {
        let (mut theirs, mut ours) = (theirs.to_vec(), ours.to_vec());
        let mut needed = Vec::new();
        for (index, entry) in self.0.iter().enumerate() {
            if !entry.commands.iter().any(|start| command.starts_with(start.as_str())) {
                continue;
            }
            let (block, with): (&[String], &[String]) =
                if entry.theirs.is_empty() { (&entry.ours, &[]) } else { (&entry.theirs, &entry.ours) };
            let (there, here) = (replace(&mut theirs, block, with), replace(&mut ours, block, with));
            if there != here {
                needed.push(index);
            }
        }
        let agreed = theirs == ours;
        if agreed {
            for index in needed {
                self.0[index].needed = true;
            }
        }
        agreed
    }

    pub(super) fn not_needed(&self) -> Vec<&str> {
        self.0.iter().filter(|entry| !entry.needed && !entry.sometimes).map(|entry| entry.head.as_str()).collect()
    }
}

/// Whether a line is that of the pattern, in which `*` stands for any word.
fn fits(line: &str, pattern: &str) -> bool {
    let (mut words, mut wanted) = (line.split(' '), pattern.split(' '));
    loop {
        match (words.next(), wanted.next()) {
            (None, None) => return true,
            (Some(word), Some(one)) if one == "*" || one == word => {}
            _ => return false,
        }
    }
}

/// Puts `with` where `block` stands and says how often that was.
fn replace(lines: &mut Vec<String>, block: &[String], with: &[String]) -> usize {
    let (mut at, mut count) = (0, 0);
    while !block.is_empty() && at + block.len() <= lines.len() {
        if lines[at..].iter().zip(block).all(|(line, pattern)| fits(line, pattern)) {
            lines.splice(at..at + block.len(), with.iter().cloned());
            at += with.len();
            count += 1;
        } else {
            at += 1;
        }
    }
    count
}
