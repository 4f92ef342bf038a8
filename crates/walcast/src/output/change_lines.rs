//! Changes as lines for people.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use walcast_model::{Op, RelationName, Timestamp, Xid, json};

use super::{BOLD, CYAN, DIM, GREEN, RED, YELLOW};

/// Characters of one value on a terminal; of a longer one, its start.
const VALUE_CHARACTERS_MAX: usize = 32;

/// How a time is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Clock {
    /// `14:05:00.123Z`: of what happens now.
    Time,
    /// `2026-11-21 14:05:00.123Z`: of what happened.
    Date,
}

/// One change, its texts as the feed has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangeLine<'a> {
    pub(crate) op: Op,
    pub(crate) table: &'a RelationName,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) row: Option<&'a [u8]>,
    pub(crate) old: Option<&'a [u8]>,
}

/// Writes a line for each change: time and transaction on the first one of each transaction, then operation, table, key
/// and columns. Colours are taken out where the output has none. On a terminal a line is cut to its width; elsewhere it is
/// whole.
pub(crate) struct ChangeLines<W> {
    out: W,
    clock: Clock,
    /// How wide the terminal is now; `None` where there is none.
    columns: fn() -> Option<usize>,
    /// The transaction of the line before, so that a part that follows does not name it again.
    last: Option<Xid>,
}

impl<W: Write> ChangeLines<W> {
    pub(crate) const fn new(out: W, clock: Clock, columns: fn() -> Option<usize>) -> Self {
        Self { out, clock, columns, last: None }
    }

    /// Writes the changes of a transaction, or of a part of one.
    ///
    /// `meta` is what the transaction says about itself: a JSON object.
    ///
    /// # Errors
    /// When the output is gone.
    pub(crate) fn transaction<'a>(
        &mut self,
        xid: Xid,
        committed_at: Timestamp,
        meta: Option<&str>,
        changes: impl Iterator<Item = ChangeLine<'a>>,
    ) -> io::Result<()> {
        let columns = (self.columns)();
        let head = format!("{} {:>7}", self.time(committed_at), xid.get());
        if let Some(meta) = meta {
            self.last = Some(xid);
            let mut line = Line::new(columns);
            line.push(DIM, &head);
            line.push(DIM, &format!(" {}", text(meta.as_bytes())));
            line.write(&mut self.out)?;
        }
        for change in changes {
            let mut line = Line::new(columns);
            let is_first = self.last.replace(xid) != Some(xid);
            line.push(DIM, if is_first { &head } else { "" });
            line.pad(head.chars().count());
            change_into(&mut line, &change);
            line.write(&mut self.out)?;
        }
        self.out.flush()
    }

    /// Writes a row of an initial sync.
    ///
    /// # Errors
    /// When the output is gone.
    pub(crate) fn snapshot_row(&mut self, table: &RelationName, row: &[u8]) -> io::Result<()> {
        self.last = None;
        let mut line = Line::new((self.columns)());
        line.pad(21);
        line.push(PLAIN, "row      ");
        line.push(BOLD, &table.to_string());
        for (name, value) in json::fields(row) {
            let value = line.value(value);
            line.push(PLAIN, &format!(" {}={value}", text(name)));
        }
        line.write(&mut self.out)
    }

    fn time(&self, at: Timestamp) -> String {
        // 2026-11-21T14:05:00.123456Z, in years of any length.
        let text = at.to_string();
        let (date, time) = text.split_once('T').unwrap_or_default();
        let time = time.get(..12).unwrap_or(time);
        if self.clock == Clock::Time { format!("{time}Z") } else { format!("{date} {time}Z") }
    }
}

/// A line that is not written yet, as wide as there is room.
struct Line {
    pieces: Vec<(Style, String)>,
    /// Characters of it that are seen.
    width: usize,
    columns_max: Option<usize>,
    is_cut: bool,
}

impl Line {
    const fn new(columns_max: Option<usize>) -> Self {
        Self { pieces: Vec::new(), width: 0, columns_max, is_cut: false }
    }

    /// Adds a text; what there is no room for is left out, and `…` says so.
    fn push(&mut self, style: Style, text: &str) {
        if self.is_cut || text.is_empty() {
            return;
        }
        let (width, left) =
            (text.chars().count(), self.columns_max.map(|max| max.saturating_sub(self.width)));
        if left == Some(0) {
            // The last character makes room for it.
            self.is_cut = true;
            self.pieces.last_mut().map(|(_, text)| text.pop());
            return self.pieces.push((style, "…".to_owned()));
        }
        let shown = match left {
            Some(left) if width > left => {
                self.is_cut = true;
                text.chars().take(left.saturating_sub(1)).chain(['…']).collect()
            }
            _ => text.to_owned(),
        };
        self.width += width;
        self.pieces.push((style, shown));
    }

    /// Spaces up to a column.
    fn pad(&mut self, column: usize) {
        self.push(PLAIN, &" ".repeat(column.saturating_sub(self.width)));
    }

    /// A value, of which a terminal is shown no more than its start.
    fn value(&self, value: &[u8]) -> String {
        let value = text(value);
        if self.columns_max.is_none() || value.chars().count() <= VALUE_CHARACTERS_MAX {
            return value;
        }
        value.chars().take(VALUE_CHARACTERS_MAX - 1).chain(['…']).collect()
    }

    /// A column's name, its value before where that is known and another one, and its value.
    fn field(&mut self, style: Style, name: &[u8], before: Option<&[u8]>, value: &[u8]) {
        let before = before.filter(|before| *before != value);
        let before = before.map(|before| format!("{}→", self.value(before))).unwrap_or_default();
        let value = self.value(value);
        self.push(style, &format!(" {}={before}{value}", text(name)));
    }

    fn write(self, out: &mut impl Write) -> io::Result<()> {
        for (style, text) in &self.pieces {
            write!(out, "{style}{text}{style:#}")?;
        }
        writeln!(out)
    }
}

fn change_into(line: &mut Line, change: &ChangeLine<'_>) {
    line.push(style(change.op), &format!(" {:<8}", change.op.as_str()));
    line.push(BOLD, &format!(" {}", change.table));
    let (key, old) = (change.key.unwrap_or_default(), change.old);
    for (name, value) in json::fields(key) {
        // An update that moves the row has the key of before.
        match change.row.and_then(|row| field(row, name)) {
            Some(now) => line.field(CYAN, name, Some(value), now),
            None => line.field(CYAN, name, None, value),
        }
    }
    let shown = if change.op == Op::Delete { change.row.or(old) } else { change.row };
    for (name, value) in json::fields(shown.unwrap_or_default()) {
        if field(key, name).is_some() {
            continue;
        }
        match old.filter(|_| change.op == Op::Update).and_then(|old| field(old, name)) {
            Some(before) if before == value => {}
            before => line.field(PLAIN, name, before, value),
        }
    }
}

/// The value of a column.
fn field<'a>(object: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    json::fields(object).find(|(other, _)| *other == name).map(|(_, value)| value)
}

/// As the terminal has it.
const PLAIN: Style = Style::new();

fn style(op: Op) -> Style {
    match op {
        Op::Insert => GREEN,
        Op::Update => YELLOW,
        Op::Delete => RED,
        Op::Truncate => AnsiColor::Magenta.on_default(),
    }
}

/// JSON text holds no control characters but those that an SQL_ASCII database lets through; a terminal must not see them.
fn text(json: &[u8]) -> String {
    String::from_utf8_lossy(json).chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use walcast_model::{Op, RelationName, Timestamp, Xid};

    use super::{ChangeLine, ChangeLines, Clock};

    fn lines(clock: Clock, changes: &[ChangeLine<'_>]) -> String {
        lines_of(clock, changes, || None)
    }

    fn lines_of(clock: Clock, changes: &[ChangeLine<'_>], columns: fn() -> Option<usize>) -> String {
        let mut out = Vec::new();
        let at = Timestamp::from_postgres_micros(848_534_523_500_000);
        let mut lines = ChangeLines::new(anstream::StripStream::new(&mut out), clock, columns);
        lines.transaction(Xid::new(751), at, None, changes.iter().copied()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_transaction_is_a_line_for_each_change_and_names_itself_once() {
        let table = RelationName::new("public", "orders");
        let none = ChangeLine { op: Op::Truncate, table: &table, key: None, row: None, old: None };
        let long = format!(r#"{{"id":3,"note":"{}"}}"#, "x".repeat(100));
        let changes = [
            ChangeLine {
                op: Op::Insert,
                key: Some(br#"{"id":1}"#),
                row: Some(br#"{"id":1,"total":1.10}"#),
                ..none
            },
            ChangeLine {
                op: Op::Update,
                key: Some(br#"{"id":1}"#),
                row: Some(br#"{"id":1,"total":2.00,"note":null}"#),
                old: Some(br#"{"id":1,"total":1.10,"note":null}"#),
                ..none
            },
            ChangeLine { op: Op::Delete, key: Some(br#"{"id":1}"#), ..none },
            none,
            ChangeLine { op: Op::Insert, key: Some(br#"{"id":3}"#), row: Some(long.as_bytes()), ..none },
        ];
        let head = "00:02:03.500Z     751 insert   public.orders id=1 total=1.10\n\
             \u{20}                     update   public.orders id=1 total=1.10→2.00\n\
             \u{20}                     delete   public.orders id=1\n\
             \u{20}                     truncate public.orders\n";
        let last = "                      insert   public.orders id=3 note=\"";
        let whole = format!("{head}{last}{}\"\n", "x".repeat(100));
        assert_eq!(lines(Clock::Time, &changes), whole);
        let cut = format!("{head}{last}{}…\n", "x".repeat(23));
        assert_eq!(lines_of(Clock::Time, &changes, || Some(80)), cut);
        let narrow = lines_of(Clock::Date, &changes, || Some(50));
        let widths: Vec<usize> = narrow.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width <= 50) && widths.contains(&50), "{narrow}");
        // The table ends where the line does, and more follows.
        let full = lines_of(Clock::Time, &changes[..1], || Some(44));
        assert_eq!(full, "00:02:03.500Z     751 insert   public.order…\n");
        assert!(lines(Clock::Date, &[none]).starts_with("2026-11-21 00:02:03.500Z     751 truncate"));
    }

    #[test]
    fn a_key_that_changes_is_told_from_what_to_what() {
        let table = RelationName::new("public", "t");
        let moved = ChangeLine {
            op: Op::Update,
            table: &table,
            key: Some(br#"{"id":8}"#),
            row: Some(br#"{"id":1000,"n":1}"#),
            old: None,
        };
        assert!(lines(Clock::Time, &[moved]).ends_with(" update   public.t id=8→1000 n=1\n"));
        let known = ChangeLine { old: Some(br#"{"id":8,"n":1}"#), ..moved };
        assert!(lines(Clock::Time, &[known]).ends_with(" update   public.t id=8→1000\n"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let table = RelationName::new("public", "t");
        let row = b"{\"a\":\"\x1b[31m\xff\"}";
        let change = ChangeLine { op: Op::Insert, table: &table, key: None, row: Some(row), old: None };
        assert!(lines(Clock::Time, &[change]).ends_with("a=\"\u{FFFD}[31m\u{FFFD}\"\n"));
    }
}
