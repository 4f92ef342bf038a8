//! Changes as the bytes of `COPY … (FORMAT binary)`, in bounded chunks. No I/O.
//!
//! Format: PostgreSQL documentation, "COPY", section "Binary Format"; the columns' forms: `pg_lsn_send`, `int8send`,
//! `timestamptz_send`, `textsend` in the server's source.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use walcast_model::{Change, CommitEnd, Part, Seq};

/// What the encoder's rows are to be sent to.
pub(crate) const COPY: &str = "COPY walcast.change_history (lsn, seq, xid, committed_at, relation, commit_end, op, \
    schema_name, table_name, key, \"row\", old, unchanged, meta) FROM STDIN (FORMAT binary)";

const COLUMNS: i16 = 14;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// A chunk is sent when it is about this long, in bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// No chunk is longer than this, in bytes.
pub(crate) const CHUNK_BYTES_MAX: usize = 1 << 20;
/// A text of this length, in bytes, is sent as slices of the part that holds it; a shorter one is copied.
const SLICE_BYTES_MIN: usize = 128 << 10;

/// Encodes changes one after the other; what is complete is taken with [`Encoder::next_chunk`].
#[derive(Debug)]
pub(crate) struct Encoder {
    current: BytesMut,
    complete: VecDeque<Bytes>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        let mut current = BytesMut::with_capacity(2 * CHUNK_BYTES);
        current.put_slice(SIGNATURE);
        // Flags, and the length of the header's extension.
        current.put_i32(0);
        current.put_i32(0);
        Self { current, complete: VecDeque::new() }
    }

    /// Appends one change of a part. `last`: it is the last of its transaction.
    pub(crate) fn change(&mut self, part: &Part, change: &Change, seq: Seq, last: Option<CommitEnd>) {
        let transaction = part.transaction();
        let name = change.relation.name();
        self.current.reserve(160);
        self.current.put_i16(COLUMNS);
        self.number(transaction.start.lsn().get());
        self.number(seq.get() as u64);
        self.number(transaction.xid.get());
        self.number(transaction.committed_at.postgres_micros() as u64);
        self.number(change.relation.digest().get() as u64);
        match last {
            Some(end) => self.number(end.lsn().get()),
            None => self.null(),
        }
        self.short(change.op.as_str());
        self.short(&name.schema);
        self.short(&name.table);
        for text in [part.key(change), part.row(change), part.old(change), part.unchanged(change)] {
            match text {
                Some(text) => self.text(part.json(), text),
                None => self.null(),
            }
        }
        match part.meta() {
            Some(meta) => self.short(meta.json()),
            None => self.null(),
        }
        if self.current.len() >= CHUNK_BYTES {
            self.cut();
        }
    }

    /// Appends the trailer; everything is complete then.
    pub(crate) fn finish(&mut self) {
        self.current.put_i16(-1);
        self.cut();
    }

    /// The next complete chunk, at most [`CHUNK_BYTES_MAX`] long.
    pub(crate) fn next_chunk(&mut self) -> Option<Bytes> {
        self.complete.pop_front()
    }

    fn number(&mut self, bits: u64) {
        self.current.put_i32(8);
        self.current.put_u64(bits);
    }

    fn null(&mut self) {
        self.current.put_i32(-1);
    }

    /// A name, a word or what a transaction says about itself: far below any limit.
    fn short(&mut self, text: &str) {
        self.current.put_i32(text.len() as i32);
        self.current.put_slice(text.as_bytes());
    }

    fn text(&mut self, json: &Bytes, text: &[u8]) {
        // Over 2 GiB the length would be negative: the server refuses it (and anything over 1 GB) by itself.
        self.current.put_i32(i32::try_from(text.len()).unwrap_or(i32::MAX));
        if text.len() < SLICE_BYTES_MIN {
            self.current.put_slice(text);
            if self.current.len() >= CHUNK_BYTES {
                self.cut();
            }
            return;
        }
        self.cut();
        let whole = json.slice_ref(text);
        for start in (0..whole.len()).step_by(CHUNK_BYTES_MAX) {
            self.complete.push_back(whole.slice(start..whole.len().min(start + CHUNK_BYTES_MAX)));
        }
    }

    fn cut(&mut self) {
        if !self.current.is_empty() {
            self.complete.push_back(self.current.split().freeze());
            self.current.reserve(2 * CHUNK_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use walcast_model::{
        CommitEnd, CommitStart, Lsn, Oid, Op, Part, PartBuilder, Relation, RelationName, ReplicaIdentity,
        Seq, Timestamp, Transaction, Xid,
    };

    use super::{CHUNK_BYTES_MAX, Encoder};

    fn part(row_bytes: usize) -> Part {
        let name = RelationName::new("public", "t");
        let relation = Arc::new(Relation::new(Oid::new(1), name, ReplicaIdentity::Default, Vec::new()));
        let start = CommitStart::new(Lsn::new(0x1000));
        let transaction =
            Transaction { start, xid: Xid::new(7), committed_at: Timestamp::from_postgres_micros(-2) };
        let mut builder = PartBuilder::new(Arc::new(transaction), Seq::FIRST);
        let mut change = builder.change(Op::Insert, &relation);
        let write = |out: &mut Vec<u8>| -> Result<(), Infallible> {
            out.resize(out.len() + row_bytes, b'x');
            Ok(())
        };
        change.row(write).unwrap();
        change.finish().unwrap();
        builder.finish(Some(CommitEnd::new(Lsn::new(0x2000))))
    }

    #[test]
    fn a_row_has_the_documented_bytes() {
        let part = part(2);
        let mut encoder = Encoder::new();
        encoder.change(&part, &part.changes()[0], part.first(), part.end());
        encoder.finish();
        let bytes = encoder.next_chunk().unwrap();
        let mut expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x0e".to_vec();
        let digest = part.changes()[0].relation.digest().get();
        for number in [0x1000_i64, 0, 7, -2, digest, 0x2000] {
            expected.extend_from_slice(&8_i32.to_be_bytes());
            expected.extend_from_slice(&number.to_be_bytes());
        }
        for text in [Some("insert"), Some("public"), Some("t"), None, Some("xx"), None, None, None] {
            expected.extend_from_slice(&text.map_or(-1, |text| text.len() as i32).to_be_bytes());
            expected.extend_from_slice(text.unwrap_or_default().as_bytes());
        }
        expected.extend_from_slice(&[0xff, 0xff]);
        assert_eq!(bytes, expected);
        assert_eq!(encoder.next_chunk(), None);
    }

    #[test]
    fn a_huge_row_is_neither_copied_nor_sent_in_one_chunk() {
        let part = part(5 * CHUNK_BYTES_MAX / 2);
        let mut encoder = Encoder::new();
        encoder.change(&part, &part.changes()[0], part.first(), None);
        encoder.finish();
        let chunks: Vec<_> = std::iter::from_fn(|| encoder.next_chunk()).collect();
        assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES_MAX));
        let memory = part.json().as_ptr_range();
        assert_eq!(chunks.iter().filter(|chunk| memory.contains(&chunk.as_ptr())).count(), 3);
    }
}
