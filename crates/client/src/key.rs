//! Which row: the columns of its key, with values that can be compared.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind};

/// A row as it came: its columns, unread.
pub(crate) type Columns<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// The columns of a JSON object; `None` when it is none.
pub(crate) fn columns(row: &RawValue) -> Option<Columns<'_>> {
    serde_json::from_str(row.get()).ok()
}

/// The key of a row. Two that are equal find the same row; two that are not may do so as well: `1.0` and `1`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    /// In order.
    columns: Vec<String>,
    /// As text: the daemon reads `"1"` and `1` alike.
    values: Vec<String>,
    /// As it was given.
    json: String,
}

impl Key {
    /// # Errors
    /// When it does not become a JSON object with at least one column.
    pub(crate) fn new(key: &impl Serialize) -> Result<Self, Error> {
        let argument = |error: String| {
            Error::new(ErrorKind::Argument, format!("{error}; a key is an object such as {{\"id\": 1}}"))
        };
        let json = serde_json::to_string(key).map_err(|error| argument(error.to_string()))?;
        let columns: Columns<'_> = serde_json::from_str(&json)
            .map_err(|_| argument(format!("{} is no key", json.chars().take(60).collect::<String>())))?;
        if columns.is_empty() {
            return Err(argument("the key has no column".to_owned()));
        }
        let (columns, values) =
            columns.into_iter().map(|(column, value)| (column.into_owned(), text(value))).unzip();
        Ok(Self { columns, values, json })
    }

    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    pub(crate) fn values(&self) -> &[String] {
        &self.values
    }

    pub(crate) fn json(&self) -> &str {
        &self.json
    }
}

/// What a row has in these columns; `None` when it lacks one.
pub(crate) fn values_of(row: &Columns<'_>, columns: &[String]) -> Option<Vec<String>> {
    columns.iter().map(|column| row.get(column.as_str()).map(|value| text(value))).collect()
}

/// What a string says, and all other values as they are written.
fn text(value: &RawValue) -> String {
    let text = value.get();
    if text.starts_with('"') {
        serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::RawValue};

    use super::{Key, columns, values_of};

    #[test]
    fn a_key_is_found_in_a_row_whatever_the_order_of_its_columns() {
        let key = Key::new(&json!({"b": 7, "a": "x\ty"})).unwrap();
        let row =
            RawValue::from_string(r#"{"z":null,"a":"x\u0009y","b":"7","c":12345678901234567890.50}"#.into());
        let row = row.unwrap();
        assert_eq!(values_of(&columns(&row).unwrap(), key.columns()).as_deref(), Some(key.values()));
        let other = RawValue::from_string(r#"{"a":"x"}"#.into()).unwrap();
        assert_eq!(values_of(&columns(&other).unwrap(), key.columns()), None);
        for no_key in [json!(1), json!([1]), json!({}), json!(null)] {
            assert!(Key::new(&no_key).is_err(), "{no_key}");
        }
    }
}
