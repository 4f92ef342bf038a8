//! Copies of tables, folded from the feed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::change::{Fields, Op, Told, shortened};
use super::definition::Definition;

/// The schema whose tables are renamed and dropped, and not copied.
pub(crate) const SHIFTING: &str = "shifting.";

/// A row of a copy.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    fields: BTreeMap<Box<str>, Box<str>>,
    /// What the row was last written under.
    definition: Arc<Definition>,
}

impl Row {
    fn new(fields: &Fields, definition: &Arc<Definition>) -> Self {
        let fields = fields.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { fields, definition: Arc::clone(definition) }
    }

    /// The JSON text of a column.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| &**value)
    }

    fn text(&self) -> String {
        let fields: Vec<String> =
            self.fields.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }
}

/// A table's copy.
#[derive(Clone, Debug)]
struct Table {
    definition: Arc<Definition>,
    /// By key as text; without a key by the whole row, which may be there several times.
    rows: BTreeMap<String, Vec<Row>>,
    /// Updates and deletes were not in the feed at some time since its beginning.
    partial: bool,
}

/// What a change did to a copy.
#[derive(Debug)]
pub(crate) enum Applied {
    Row { before: Option<Row>, after: Option<Row> },
    Truncated,
}

/// Copies of the tables of a subscription.
#[derive(Clone, Debug, Default)]
pub struct Copies(BTreeMap<Box<str>, Table>);

/// The key of a row, or all of it when there is none.
fn key_of(
    definition: &Definition,
    get: impl Fn(&str) -> Option<String>,
    whole: impl Fn() -> String,
) -> String {
    if !definition.has_key() {
        return whole();
    }
    let values: Vec<String> =
        definition.keys().map(|name| get(name).unwrap_or_else(|| "?".to_owned())).collect();
    values.join(",")
}

fn key_of_row(definition: &Definition, row: &Row) -> String {
    key_of(definition, |name| row.get(name).map(str::to_owned), || row.text())
}

impl Copies {
    /// The tables there are, with the number of their rows.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, usize)> {
        self.0.iter().map(|(name, table)| (&**name, table.rows.values().map(Vec::len).sum()))
    }

    /// The rows of a table; `None` when it is not known.
    pub(crate) fn rows_of(&self, table: &str) -> Option<impl Iterator<Item = &Row>> {
        self.0.get(table).map(|table| table.rows.values().flatten())
    }

    /// The rows of a table as JSON texts with ordered columns.
    #[must_use]
    pub fn texts(&self, table: &str) -> Vec<String> {
        self.rows_of(table).into_iter().flatten().map(Row::text).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes note of a definition.
    pub(crate) fn define(&mut self, name: &str, definition: &Arc<Definition>) {
        if name.starts_with(SHIFTING) {
            return;
        }
        let table = self.0.entry(name.into()).or_insert_with(|| Table {
            definition: Arc::clone(definition),
            rows: BTreeMap::new(),
            partial: false,
        });
        table.partial |= !definition.is_whole();
        if table.definition == *definition {
            return;
        }
        let keys_differ = !table.definition.keys().eq(definition.keys());
        table.definition = Arc::clone(definition);
        if keys_differ {
            let rows = std::mem::take(&mut table.rows);
            for row in rows.into_values().flatten() {
                table.rows.entry(key_of_row(definition, &row)).or_default().push(row);
            }
        }
    }

    /// A row of an initial sync.
    pub(crate) fn load(&mut self, name: &str, fields: &Fields) -> Result<(), String> {
        if name.starts_with(SHIFTING) {
            return Ok(());
        }
        let table = self.0.get_mut(name).ok_or_else(|| format!("rows of {name} before its relation"))?;
        let row = Row::new(fields, &table.definition);
        let expected = table.definition.columns.iter().map(|column| column.name.as_str());
        if !fields.names().eq(expected) {
            return Err(format!("a row of {name} does not have the columns of its relation: {}", row.text()));
        }
        let rows = table.rows.entry(key_of_row(&table.definition, &row)).or_default();
        if !rows.is_empty() && table.definition.has_key() {
            return Err(format!("a row of {name} came twice in the snapshot: {}", row.text()));
        }
        rows.push(row);
        Ok(())
    }

    /// Applies a change that its definition allows.
    pub(crate) fn apply(&mut self, change: &Told) -> Result<Option<Applied>, String> {
        if change.table.starts_with(SHIFTING) {
            return Ok(None);
        }
        let Some(table) = self.0.get_mut(&change.table) else {
            return Err(format!("rows of {} before its relation", change.table));
        };
        table.apply(change).map(Some)
    }

    /// Compares the copy of a table with its rows on the server, each an object of `to_jsonb`; `generated` columns are not
    /// in the feed. A row that was written under another definition is compared in the columns that both definitions
    /// have. `Ok` has the number of rows, and is `None` for a copy that is partial.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn compare(
        &self,
        name: &str,
        there: &[Fields],
        generated: &BTreeSet<String>,
    ) -> Result<Option<usize>, String> {
        let Some(table) = self.0.get(name) else {
            return if there.is_empty() {
                Ok(Some(0))
            } else {
                Err(format!("{name}: no copy, {} rows on the server", there.len()))
            };
        };
        if table.partial {
            return Ok(None);
        }
        table.compare(there, generated).map_err(|difference| format!("{name}: {difference}")).map(Some)
    }
}

impl Table {
    fn apply(&mut self, change: &Told) -> Result<Applied, String> {
        let definition = Arc::clone(&self.definition);
        match change.op {
            Op::Truncate => {
                self.rows.clear();
                self.partial = !definition.is_whole();
                Ok(Applied::Truncated)
            }
            Op::Insert => {
                let row = Row::new(&required(&change.row)?, &definition);
                self.insert(row.clone())?;
                Ok(Applied::Row { before: None, after: Some(row) })
            }
            Op::Update => {
                let before = self.remove(change)?;
                let mut row = Row::new(&required(&change.row)?, &definition);
                for name in &change.unchanged {
                    // Of a column that got its name since, the feed cannot know the value.
                    let kept = before.as_ref().filter(|before| {
                        before.definition.column(name).map(|column| &column.type_name)
                            == definition.column(name).map(|column| &column.type_name)
                    });
                    if let Some(value) = kept.and_then(|before| before.get(name)) {
                        row.fields.insert(name.as_str().into(), value.into());
                    }
                }
                self.insert(row.clone())?;
                Ok(Applied::Row { before, after: Some(row) })
            }
            Op::Delete => {
                let before = self.remove(change)?;
                Ok(Applied::Row { before, after: None })
            }
        }
    }

    fn insert(&mut self, row: Row) -> Result<(), String> {
        let key = key_of_row(&self.definition, &row);
        let rows = self.rows.entry(key).or_default();
        if self.definition.has_key() && !rows.is_empty() {
            if !self.partial {
                return Err(format!(
                    "a row is there already: {} before {}",
                    rows[0].text(),
                    shortened(&row.text())
                ));
            }
            rows.clear();
        }
        rows.push(row);
        Ok(())
    }

    fn remove(&mut self, change: &Told) -> Result<Option<Row>, String> {
        let key = match (&change.key, &change.old) {
            (Some(key), _) => {
                key_of(&self.definition, |name| key.get(name).map(str::to_owned), || key.text())
            }
            (None, Some(old)) => Row::new(old, &self.definition).text(),
            (None, None) => return Err("neither key nor old row".to_owned()),
        };
        let Some(rows) = self.rows.get_mut(&key) else {
            return if self.partial { Ok(None) } else { Err(format!("the row is not there: key {key}")) };
        };
        let row = rows.pop();
        if rows.is_empty() {
            self.rows.remove(&key);
        }
        if let (Some(row), Some(old)) = (&row, &change.old)
            && row.definition == self.definition
            && !self.partial
            && old.iter().any(|(name, value)| row.get(name).is_some_and(|known| known != value))
        {
            return Err(format!("the old row is not what was told before: {}", shortened(&row.text())));
        }
        Ok(row)
    }

    fn compare(&self, there: &[Fields], generated: &BTreeSet<String>) -> Result<usize, String> {
        let mut left = self.rows.clone();
        let mut problems = Vec::new();
        for fields in there {
            let expected = Row::new(fields, &self.definition);
            let visible = || {
                let mut row = expected.clone();
                row.fields.retain(|name, _| !generated.contains(&**name));
                row.text()
            };
            let key = key_of(&self.definition, |name| expected.get(name).map(str::to_owned), visible);
            let Some(row) = left.get_mut(&key).and_then(Vec::pop) else {
                problems.push(format!("missing here: {}", shortened(&expected.text())));
                continue;
            };
            for (name, value) in fields.iter().filter(|(name, _)| !generated.contains(*name)) {
                let current = self.definition.column(name);
                let written = row.definition.column(name);
                let comparable = row.definition == self.definition
                    || current.is_some() && current.map(|c| &c.type_name) == written.map(|c| &c.type_name);
                match row.get(name) {
                    Some(known) if comparable && known != value => {
                        problems.push(format!(
                            "key {key}: column {name} is {} here and {} on the server",
                            shortened(known),
                            shortened(value)
                        ));
                    }
                    None if row.definition == self.definition && current.is_none() => {
                        problems.push(format!("key {key}: column {name} is in no relation message"));
                    }
                    _ => {}
                }
            }
        }
        let extra = left.values().flatten();
        problems.extend(extra.map(|row| format!("not on the server: {}", shortened(&row.text()))));
        if problems.is_empty() {
            return Ok(there.len());
        }
        let (count, here) = (problems.len(), self.rows.values().map(Vec::len).sum::<usize>());
        problems.truncate(4);
        let problems = problems.join("\n    ");
        Err(format!("{count} differences, {here} rows here, {} on the server\n    {problems}", there.len()))
    }
}

fn required(fields: &Option<Fields>) -> Result<Fields, String> {
    fields.clone().ok_or_else(|| "it has no row".to_owned())
}
