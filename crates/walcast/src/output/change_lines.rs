//! Changes as lines for people.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use walcast_model::{Op, RelationName, Timestamp, Xid, json};

use super::{BOLD, CYAN, DIM, GREEN, RED, YELLOW};

/// Characters of one value; of a longer one, its start.
const VALUE_CHARACTERS_MAX: usize = 48;
/// Characters of a change's columns together.
const COLUMNS_CHARACTERS_MAX: usize = 160;

/// How a time is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Clock {
    /// `14:05:00.123`: of what happens now.
    Time,
    /// `2026-11-21 14:05:00.123`: of what happened.
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
/// and columns. Colours are taken out where the output has none.
pub(crate) struct ChangeLines<W> {
    out: W,
    clock: Clock,
    /// The transaction of the line before, so that a part that follows does not name it again.
    last: Option<Xid>,
}

impl<W: Write> ChangeLines<W> {
    pub(crate) const fn new(out: W, clock: Clock) -> Self {
        Self { out, clock, last: None }
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
        if let Some(meta) = meta {
            self.last = Some(xid);
            writeln!(
                self.out,
                "{DIM}{} {:>7} {}{DIM:#}",
                self.time(committed_at),
                xid.get(),
                text(meta.as_bytes())
            )?;
        }
        for change in changes {
            let head = format!("{} {:>7}", self.time(committed_at), xid.get());
            if self.last.replace(xid) == Some(xid) {
                write!(self.out, "{:1$}", "", head.chars().count())?;
            } else {
                write!(self.out, "{DIM}{head}{DIM:#}")?;
            }
            self.change(&change)?;
        }
        self.out.flush()
    }

    /// Writes a row of an initial sync.
    ///
    /// # Errors
    /// When the output is gone.
    pub(crate) fn snapshot_row(&mut self, table: &RelationName, row: &[u8]) -> io::Result<()> {
        self.last = None;
        let columns = columns(row, None);
        writeln!(self.out, "{DIM}{:>20}{DIM:#} {:<8} {BOLD}{table}{BOLD:#} {columns}", "", "row")
    }

    fn time(&self, at: Timestamp) -> String {
        // 2026-11-21T14:05:00.123456Z, in years of any length.
        let text = at.to_string();
        let (date, time) = text.split_once('T').unwrap_or_default();
        let time = time.get(..12).unwrap_or(time);
        if self.clock == Clock::Time { time.to_owned() } else { format!("{date} {time}") }
    }

    fn change(&mut self, change: &ChangeLine<'_>) -> io::Result<()> {
        let style = style(change.op);
        write!(self.out, " {style}{:<8}{style:#} {BOLD}{}{BOLD:#}", change.op.as_str(), change.table)?;
        if let Some(key) = change.key {
            write!(self.out, " {CYAN}{}{CYAN:#}", columns(key, None))?;
        }
        let text = match (change.op, change.row, change.old) {
            (Op::Update, Some(row), Some(old)) => changed(row, old),
            (Op::Delete, None, Some(old)) => columns(old, change.key),
            (_, Some(row), _) => columns(row, change.key),
            _ => String::new(),
        };
        writeln!(self.out, "{}{text}", if text.is_empty() { "" } else { " " })
    }
}

fn style(op: Op) -> Style {
    match op {
        Op::Insert => GREEN,
        Op::Update => YELLOW,
        Op::Delete => RED,
        Op::Truncate => AnsiColor::Magenta.on_default(),
    }
}

/// The object's columns as `name=value`, without those that `except` has with the same value.
fn columns(object: &[u8], except: Option<&[u8]>) -> String {
    let shown =
        |field: &(&[u8], &[u8])| !json::fields(except.unwrap_or_default()).any(|other| other == *field);
    join(json::fields(object).filter(shown).map(|(name, value)| format!("{}={}", text(name), short(value))))
}

/// The columns of `row` that differ from `old`, as `name=old→new`.
fn changed(row: &[u8], old: &[u8]) -> String {
    let before = |name: &[u8]| json::fields(old).find(|(other, _)| *other == name).map(|(_, value)| value);
    join(json::fields(row).filter_map(|(name, value)| match before(name) {
        Some(before) if before == value => None,
        Some(before) => Some(format!("{}={}→{}", text(name), short(before), short(value))),
        None => Some(format!("{}={}", text(name), short(value))),
    }))
}

fn join(columns: impl Iterator<Item = String>) -> String {
    let mut line = String::new();
    for column in columns {
        if line.chars().count() + column.chars().count() > COLUMNS_CHARACTERS_MAX {
            line.push_str(" …");
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&column);
    }
    line
}

fn short(value: &[u8]) -> String {
    let value = text(value);
    if value.chars().count() <= VALUE_CHARACTERS_MAX {
        return value;
    }
    value.chars().take(VALUE_CHARACTERS_MAX - 1).chain(['…']).collect()
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
        let mut out = Vec::new();
        let at = Timestamp::from_postgres_micros(848_534_523_500_000);
        let mut lines = ChangeLines::new(anstream::StripStream::new(&mut out), clock);
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
        let cut = "x".repeat(46);
        let expected = format!(
            "00:02:03.500     751 insert   public.orders id=1 total=1.10\n\
             \u{20}                    update   public.orders id=1 total=1.10→2.00\n\
             \u{20}                    delete   public.orders id=1\n\
             \u{20}                    truncate public.orders\n\
             \u{20}                    insert   public.orders id=3 note=\"{cut}…\n"
        );
        assert_eq!(lines(Clock::Time, &changes), expected);
        assert!(lines(Clock::Date, &[none]).starts_with("2026-11-21 00:02:03.500     751 truncate"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let table = RelationName::new("public", "t");
        let row = b"{\"a\":\"\x1b[31m\xff\"}";
        let change = ChangeLine { op: Op::Insert, table: &table, key: None, row: Some(row), old: None };
        assert!(lines(Clock::Time, &[change]).ends_with("a=\"\u{FFFD}[31m\u{FFFD}\"\n"));
    }
}
