//! Texts in lines of 80 columns, or fewer where the terminal has fewer.

use std::io::{self, IsTerminal};
use std::ops::Range;

/// The width that texts for people are made for.
pub(crate) const WIDTH: usize = 80;
/// A terminal that is narrower is not filled further down than this.
const WIDTH_MIN: usize = 40;
/// What stands in quotes is not cut in a sentence up to this length, in a statement never.
const QUOTED_MAX: usize = 40;

/// A text of which the first `indent` columns are taken; words are never cut, nor commands and what stands in quotes, as long
/// as that is short. Lines of its own stay, with their indentation.
pub(crate) fn wrap(text: &str, indent: usize) -> String {
    let lines = text.split('\n').enumerate().map(|(index, line)| {
        let (own, body) = indented(line);
        let hang = if index == 0 { indent } else { indent + own + 2 };
        let lead = if index == 0 { String::new() } else { format!("\n{:1$}", "", indent + own) };
        lead + &filled(body, &units(body, QUOTED_MAX), indent + own, hang, WIDTH)
    });
    lines.collect()
}

/// The same for text that is to be copied: its own lines stay, and nothing in quotes is cut, so that a statement is the
/// same when it is pasted.
pub(crate) fn wrap_statement(text: &str, indent: usize) -> String {
    let lines = text.lines().map(|line| {
        // A comment would end with its line.
        if line.starts_with("--") {
            return line.to_owned();
        }
        filled(line, &units(line, usize::MAX), indent, indent, WIDTH)
    });
    lines.collect::<Vec<_>>().join(&format!("\n{:indent$}", ""))
}

/// What a command says of itself at its end, `taken` columns of its first line being taken: sentences, lists, hints and
/// statements, each line with what goes on below it further to the right.
pub(crate) fn wrap_message(text: &str, taken: usize, width: usize) -> String {
    let lines = text.split('\n').enumerate().map(|(index, line)| {
        let (own, body) = indented(line);
        // A comment would end with its line.
        if body.starts_with("-- ") {
            return line.to_owned();
        }
        let mark = ["hint: ", "SQL: ", "run: ", "do: "].into_iter().find(|mark| body.starts_with(mark));
        let hang = match mark {
            Some(mark) => own + mark.len(),
            None if index == 0 => taken,
            None => own + 2,
        };
        let is_statement = matches!(mark, Some("SQL: " | "run: ")) || body.ends_with(';');
        let kept = if is_statement { usize::MAX } else { QUOTED_MAX };
        let start = if index == 0 { taken } else { own };
        let lead = if index == 0 { String::new() } else { " ".repeat(own) };
        lead + &filled(body, &units(body, kept), start, hang, width)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The width for a message on standard error; `None` where it is no terminal: who reads a log wants whole lines.
pub(crate) fn message_width() -> Option<usize> {
    if !io::stderr().is_terminal() {
        return None;
    }
    // A terminal may not know its size.
    let columns = terminal_size::terminal_size_of(io::stderr()).map(|(columns, _)| usize::from(columns.0));
    Some(columns.map_or(WIDTH, |columns| columns.clamp(WIDTH_MIN, WIDTH)))
}

fn indented(line: &str) -> (usize, &str) {
    let body = line.trim_start_matches(' ');
    (line.len() - body.len(), body)
}

/// The pieces between which a line may be broken. Commands stay whole, and what stands in quotes and has at most `kept`
/// characters.
fn units(line: &str, kept: usize) -> Vec<Range<usize>> {
    let (mut units, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(c) = line.get(at..).and_then(|rest| rest.chars().next()) {
        let (before, rest) = line.split_at(at);
        if c == ' ' {
            if !is_command(before, rest) {
                units.push(start..at);
                start = at + 1;
            }
        } else if let Some(length) = quoted(before, rest, kept) {
            at += length;
            continue;
        }
        at += c.len_utf8();
    }
    units.push(start..line.len());
    units
}

/// Whether a space stands in a command of ours: `walcast setup --start-over`.
fn is_command(before: &str, rest: &str) -> bool {
    let word = before.rsplit(' ').next().unwrap_or_default();
    word.trim_start_matches(['`', '(']) == "walcast" || rest.starts_with(" --")
}

/// The length of what stands in quotes at the beginning of `rest`.
fn quoted(before: &str, rest: &str, kept: usize) -> Option<usize> {
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    // An apostrophe opens nothing.
    if before.chars().next_back().is_some_and(char::is_alphanumeric) {
        return None;
    }
    let inside = rest.get(1..)?.find(quote)?;
    (rest.get(..inside)?.chars().count() <= kept).then_some(inside + 2)
}

/// The units in lines, from column `start` on, the next lines from `hang` on.
fn filled(line: &str, units: &[Range<usize>], start: usize, hang: usize, width: usize) -> String {
    let mut out = String::new();
    let (mut column, mut is_first) = (start, true);
    for unit in units {
        let text = line.get(unit.clone()).unwrap_or_default();
        let length = text.chars().count();
        if !is_first && column + 1 + length > width {
            out.push_str(&format!("\n{:hang$}", ""));
            column = hang;
        } else if !is_first {
            out.push(' ');
            column += 1;
        }
        out.push_str(text);
        column += length;
        is_first = false;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{wrap, wrap_message, wrap_statement};

    #[test]
    fn texts_are_wrapped_between_words_and_statements_are_the_same_when_they_are_pasted() {
        let text = format!("{} {} end", "x".repeat(60), "y".repeat(90));
        assert_eq!(wrap(&text, 14), format!("{}\n{:14}{}\n{:14}end", "x".repeat(60), "", "y".repeat(90), ""));
        assert_eq!(wrap("short text", 9), "short text");
        assert_eq!(
            wrap(&format!("a list\n  of {}", "long ".repeat(16)), 4),
            format!("a list\n      of {}\n        long ", "long ".repeat(14).trim_end())
                .trim_end()
                .to_owned()
                + " long "
        );
        let name = format!("\"{}\"", "a b ".repeat(20));
        let statement = format!("SELECT 'it''s a';\nGRANT SELECT ON {name} TO \"the role\";");
        let wrapped = format!("SELECT 'it''s a';\n  GRANT SELECT ON\n  {name}\n  TO \"the role\";");
        assert_eq!(wrap_statement(&statement, 2), wrapped);
        let comment = format!("-- {}", "long ".repeat(20));
        assert_eq!(wrap_statement(&comment, 2), comment);
    }

    #[test]
    fn a_message_keeps_its_lists_and_its_commands_whole() {
        let message = "2 things are missing; what mends each is below it, and this line is longer than a terminal is wide
  walcast's role may not create publication \"walcast one\", and nobody else has done so until now either
      SQL: CREATE PUBLICATION \"walcast one\" WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = false);
hint: when that is done and everything else that is said above as well, run walcast setup --start-over --yes again
-- in database a comment that is much longer than eighty columns, which would end with its line if it was cut
DROP SCHEMA walcast CASCADE;";
        insta::assert_snapshot!(wrap_message(message, 9, 80), @r#"
        2 things are missing; what mends each is below it, and this line is
                 longer than a terminal is wide
          walcast's role may not create publication "walcast one", and nobody else has
            done so until now either
              SQL: CREATE PUBLICATION "walcast one" WITH (publish =
                   'insert, update, delete, truncate', publish_via_partition_root =
                   false);
        hint: when that is done and everything else that is said above as well, run
              walcast setup --start-over --yes again
        -- in database a comment that is much longer than eighty columns, which would end with its line if it was cut
        DROP SCHEMA walcast CASCADE;
        "#);
        let lines = wrap_message(message, 9, 80);
        let long = |line: &&str| line.chars().count() > 80 && !line.starts_with("--");
        assert_eq!(lines.lines().find(long), None);
    }
}
