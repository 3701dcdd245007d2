//! What differs between two texts, as `diff -u` prints it. Pure; for machines without that program.

/// Lines that are shown around a change.
const CONTEXT: usize = 3;
/// How many pairs of lines are compared before everything between the common ends counts as changed.
const PAIRS_MAX: usize = 16 << 20;

/// One line of the way from one text to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'t> {
    Same(&'t str),
    Gone(&'t str),
    New(&'t str),
}

/// The differences under a head with both names; nothing when there are none.
pub(crate) fn unified(old_name: &str, new_name: &str, old: &str, new: &str) -> Option<String> {
    if old == new {
        return None;
    }
    let steps = steps(&lines(old), &lines(new));
    let mut text = format!("--- {old_name}\n+++ {new_name}\n");
    for (from, to) in hunks(&steps) {
        text.push_str(&hunk(&steps, from, to));
    }
    Some(text)
}

/// Lines with their ends.
fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// The shortest way between two texts, by the longest common sequence of lines.
fn steps<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<Step<'t>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (middle_old, middle_new) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut steps: Vec<Step<'t>> = old[..head].iter().map(|line| Step::Same(line)).collect();
    if middle_old.len().saturating_mul(middle_new.len()) > PAIRS_MAX {
        steps.extend(middle_old.iter().map(|line| Step::Gone(line)));
        steps.extend(middle_new.iter().map(|line| Step::New(line)));
    } else {
        steps.extend(between(middle_old, middle_new));
    }
    steps.extend(old[old.len() - tail..].iter().map(|line| Step::Same(line)));
    steps
}

fn between<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<Step<'t>> {
    // common[i][j]: how many lines old[i..] and new[j..] have in common, in order.
    let width = new.len() + 1;
    let mut common = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut steps = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            steps.push(Step::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            steps.push(Step::Gone(old[i]));
            i += 1;
        } else {
            steps.push(Step::New(new[j]));
            j += 1;
        }
    }
    steps
}

/// Ranges of steps with changes and what is around them.
fn hunks(steps: &[Step<'_>]) -> Vec<(usize, usize)> {
    let mut hunks: Vec<(usize, usize)> = Vec::new();
    for (at, _) in steps.iter().enumerate().filter(|(_, step)| !matches!(step, Step::Same(_))) {
        let (from, to) = (at.saturating_sub(CONTEXT), (at + CONTEXT + 1).min(steps.len()));
        match hunks.last_mut() {
            Some((_, end)) if from <= *end => *end = to,
            _ => hunks.push((from, to)),
        }
    }
    hunks
}

fn hunk(steps: &[Step<'_>], from: usize, to: usize) -> String {
    let count = |range: &[Step<'_>], other: fn(&Step<'_>) -> bool| range.iter().filter(|step| !other(step)).count();
    let is_new = |step: &Step<'_>| matches!(step, Step::New(_));
    let is_gone = |step: &Step<'_>| matches!(step, Step::Gone(_));
    let place = |before: usize, length: usize| match length {
        0 => format!("{before},0"),
        1 => (before + 1).to_string(),
        length => format!("{},{length}", before + 1),
    };
    let old = place(count(&steps[..from], is_new), count(&steps[from..to], is_new));
    let new = place(count(&steps[..from], is_gone), count(&steps[from..to], is_gone));
    let mut text = format!("@@ -{old} +{new} @@\n");
    for step in &steps[from..to] {
        let (sign, line) = match step {
            Step::Same(line) => (' ', line),
            Step::Gone(line) => ('-', line),
            Step::New(line) => ('+', line),
        };
        text.push(sign);
        text.push_str(line);
        if !line.ends_with('\n') {
            text.push_str("\n\\ No newline at end of file\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_those_of_diff() {
        let ten = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";
        for (old, new, wanted) in [
            ("", "a\nb\n", "@@ -0,0 +1,2 @@\n+a\n+b\n"),
            ("a\n", "", "@@ -1 +0,0 @@\n-a\n"),
            ("a\nb\nc\n", "a\nx\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"),
            (ten, &ten.replace("5\n", ""), "@@ -2,7 +2,6 @@\n 2\n 3\n 4\n-5\n 6\n 7\n 8\n"),
            (
                ten,
                &ten.replace("1\n2", "x\n2").replace("10", "y"),
                "@@ -1,4 +1,4 @@\n-1\n+x\n 2\n 3\n 4\n@@ -7,4 +7,4 @@\n 7\n 8\n 9\n-10\n+y\n",
            ),
            ("a", "a\n", "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"),
        ] {
            assert_eq!(unified("old", "new", old, new), Some(format!("--- old\n+++ new\n{wanted}")), "{old:?} {new:?}");
        }
        assert_eq!(unified("old", "new", ten, ten), None);
    }
}
