//! Rows of one table, from the server's text to chunks of JSON.

use std::sync::Arc;

use bytes::Bytes;
use walcast_model::Relation;
use walcast_pgoutput::json::ValueWriter;

use crate::copy_text;
use crate::error::Error;
use crate::limits::SnapshotLimits;

/// Collects rows until a chunk is full.
pub(crate) struct Chunks {
    relation: Arc<Relation>,
    /// Of each cell: the column's index in the relation, and how its values are written.
    columns: Vec<(usize, ValueWriter)>,
    json: Vec<u8>,
    count: usize,
    unescaped: Vec<u8>,
    odd_values: u64,
    bytes_max: usize,
    rows_max: usize,
}

impl Chunks {
    pub(crate) fn new(
        relation: Arc<Relation>,
        columns: Vec<(usize, ValueWriter)>,
        limits: &SnapshotLimits,
    ) -> Self {
        Self {
            relation,
            columns,
            json: Vec::new(),
            count: 0,
            unescaped: Vec::new(),
            odd_values: 0,
            bytes_max: limits.chunk_bytes_max,
            rows_max: limits.chunk_rows_max.max(1),
        }
    }

    /// Adds one row in the text format of COPY.
    pub(crate) fn push(&mut self, line: &[u8]) -> Result<(), Error> {
        let Self { relation, columns, json, unescaped, odd_values, .. } = self;
        if self.count > 0 {
            json.push(b',');
        }
        json.push(b'{');
        let mut found = 0;
        if !columns.is_empty() {
            found = copy_text::cells(line, unescaped, |cell, text| {
                let Some((column, writer)) = columns.get(cell) else { return };
                if cell > 0 {
                    json.push(b',');
                }
                json.extend_from_slice(relation.column_json(*column).as_bytes());
                match text {
                    None => json.extend_from_slice(b"null"),
                    Some(text) if writer.write(text, json).is_ok() => {}
                    Some(text) => {
                        // As in the stream: a value is never a reason to stop, and its text says what there is to
                        // say. Writing a text never fails.
                        *odd_values += 1;
                        let _ = ValueWriter::text().write(text, json);
                    }
                }
            });
        }
        if found != columns.len() {
            let table = relation.name();
            return Err(Error::Unexpected(format!(
                "a row of {table} with {found} cells, not {}",
                columns.len()
            )));
        }
        json.push(b'}');
        self.count += 1;
        Ok(())
    }

    /// Values so far that were not what their type prints, and went out as strings.
    pub(crate) const fn odd_values(&self) -> u64 {
        self.odd_values
    }

    /// Whether the chunk is to be sent before the next row comes.
    pub(crate) fn is_full(&self) -> bool {
        self.json.len() >= self.bytes_max || self.count >= self.rows_max
    }

    /// The only row that was added, in no more memory than it takes: many are kept of one request. The next row begins anew.
    pub(crate) fn take_row(&mut self) -> Option<Bytes> {
        if self.count == 0 {
            return None;
        }
        let row = Bytes::copy_from_slice(&self.json);
        self.count = 0;
        self.json.clear();
        self.json.shrink_to(self.bytes_max);
        if self.unescaped.capacity() > self.bytes_max {
            self.unescaped = Vec::new();
        }
        Some(row)
    }

    /// The chunk and the number of its rows; `None` when there is none. The next row begins another.
    pub(crate) fn take(&mut self) -> Option<(Bytes, usize)> {
        if self.count == 0 {
            return None;
        }
        // As large as the last one, since the rows of a table are alike; a giant row is not held on to.
        let capacity = self.json.capacity().min(2 * self.bytes_max);
        let json = std::mem::replace(&mut self.json, Vec::with_capacity(capacity));
        if self.unescaped.capacity() > self.bytes_max {
            self.unescaped = Vec::new();
        }
        Some((Bytes::from(json), std::mem::take(&mut self.count)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use walcast_model::{Column, Oid, Relation, RelationName, ReplicaIdentity};
    use walcast_pgoutput::json::ValueWriter;

    use super::Chunks;
    use crate::limits::SnapshotLimits;

    #[test]
    fn a_row_that_is_kept_takes_as_much_as_it_has_whatever_came_before_it() {
        let column = Column {
            name: "t".into(),
            type_name: "text".into(),
            type_oid: Oid::new(25),
            key: true,
            nullable: false,
        };
        let name = RelationName::new("public", "t");
        let relation = Arc::new(Relation::new(Oid::new(1), name, ReplicaIdentity::Default, vec![column]));
        let limits = SnapshotLimits::default();
        let mut chunks = Chunks::new(relation, vec![(0, ValueWriter::text())], &limits);
        let mut kept = Vec::new();
        for length in [2 * limits.chunk_bytes_max, 1, 5, limits.chunk_bytes_max / 2, 1, 1] {
            chunks.push("x".repeat(length).as_bytes()).unwrap();
            let row = chunks.take_row().unwrap();
            assert_eq!(row.len(), length + r#"{"t":""}"#.len());
            kept.push(row);
        }
        assert!(chunks.take_row().is_none());
        for row in kept {
            let length = row.len();
            let memory = row.try_into_mut().expect("nobody else has it").capacity();
            assert!(memory <= length + 16, "{memory} bytes for {length}");
        }
    }
}
