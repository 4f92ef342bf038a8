//! Made-up transactions, and what they say when flattened.

use std::convert::Infallible;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use walcast_model::{
    Column, CommitEnd, CommitStart, Cursor, Lsn, Oid, Op, Part, PartBuilder, Relation, RelationName,
    ReplicaIdentity, Seq, Timestamp, Transaction, Xid,
};

/// One change with everything that is known of it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Flat {
    pub(crate) cursor: Cursor,
    pub(crate) xid: Xid,
    pub(crate) committed_at: Timestamp,
    pub(crate) relation: Arc<Relation>,
    pub(crate) json: String,
    pub(crate) pieces: [Option<String>; 4],
    /// On the last change of a transaction.
    pub(crate) end: Option<CommitEnd>,
}

pub(crate) fn flatten<'a>(parts: impl IntoIterator<Item = &'a Part>) -> Vec<Flat> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut flat = Vec::new();
    for part in parts {
        let transaction = part.transaction();
        for (index, change) in part.changes().iter().enumerate() {
            let pieces = [part.key(change), part.row(change), part.old(change), part.unchanged(change)];
            flat.push(Flat {
                cursor: Cursor::new(transaction.start.lsn(), part.first().plus(index)),
                xid: transaction.xid,
                committed_at: transaction.committed_at,
                relation: Arc::clone(&change.relation),
                json: text(part.change_json(change)),
                pieces: pieces.map(|piece| piece.map(text)),
                end: part.end().filter(|_| index + 1 == part.changes().len()),
            });
        }
    }
    flat
}

pub(crate) fn relation(oid: u32) -> Arc<Relation> {
    let column = |name: &str, key| Column {
        name: name.into(),
        type_name: "text".into(),
        type_oid: Oid::new(25),
        key,
        nullable: !key,
    };
    let name = RelationName::new("sho\"p", format!("orders {oid}"));
    Arc::new(Relation::new(
        Oid::new(oid),
        name,
        ReplicaIdentity::Full,
        vec![column("id", true), column("ü", false)],
    ))
}

fn put(text: String) -> impl FnOnce(&mut Vec<u8>) -> Result<(), Infallible> {
    move |out| {
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Adds a change of a random kind with a row of about `row_bytes`.
pub(crate) fn add(part: &mut PartBuilder, relation: &Arc<Relation>, random: &mut StdRng, row_bytes: usize) {
    let id: u64 = random.random();
    let row = |text: &str| format!("{{\"id\":\"{id}\",\"ü\":\"{text}\"}}");
    let filler = "ä\\n".repeat(row_bytes / 4);
    let op = [Op::Insert, Op::Update, Op::Delete, Op::Truncate][random.random_range(0..4)];
    let mut change = part.change(op, relation);
    if op != Op::Truncate && random.random_bool(0.9) {
        change.key(put(format!("{{\"id\":\"{id}\"}}"))).unwrap();
    }
    if matches!(op, Op::Insert | Op::Update) {
        change.row(put(row(&filler))).unwrap();
    }
    if matches!(op, Op::Update | Op::Delete) && random.random_bool(0.3) {
        change.old(put(row("old"))).unwrap();
    }
    if op == Op::Update && random.random_bool(0.3) {
        change.unchanged(["big", "b\"ig"]);
    }
    change.finish().unwrap();
}

/// Makes transactions one after the other, as a source would.
pub(crate) struct Source {
    pub(crate) random: StdRng,
    pub(crate) lsn: u64,
    xid: u64,
    part_bytes_max: usize,
    relations: Vec<Arc<Relation>>,
}

impl Source {
    pub(crate) fn new(seed: u64, start: u64, part_bytes_max: usize) -> Self {
        let relations = (0..5).map(relation).collect();
        Self { random: StdRng::seed_from_u64(seed), lsn: start, xid: 1000, part_bytes_max, relations }
    }

    /// A transaction of `changes` changes in parts; its end is often the start of the next.
    pub(crate) fn transaction(&mut self, changes: usize, row_bytes: usize) -> Vec<Part> {
        let start =
            self.lsn + if self.random.random_bool(0.5) { 0 } else { self.random.random_range(8..300) };
        self.lsn = start + self.random.random_range(40..200);
        self.xid += 1;
        let transaction = Arc::new(Transaction {
            start: CommitStart::new(Lsn::new(start)),
            xid: Xid::new(self.xid),
            committed_at: Timestamp::from_postgres_micros(
                self.random.random_range(-1_000_000_000_000..1_000_000_000_000),
            ),
        });
        let mut parts = Vec::new();
        let mut part = PartBuilder::new(Arc::clone(&transaction), Seq::FIRST);
        for _ in 0..changes {
            if !part.is_empty() && part.json_bytes() >= self.part_bytes_max {
                let next = PartBuilder::new(Arc::clone(&transaction), part.next_seq());
                parts.push(std::mem::replace(&mut part, next).finish(None));
            }
            let relation = Arc::clone(&self.relations[self.random.random_range(0..self.relations.len())]);
            add(&mut part, &relation, &mut self.random, row_bytes);
        }
        parts.push(part.finish(Some(CommitEnd::new(Lsn::new(self.lsn)))));
        parts
    }

    /// `count` transactions of one to `changes_max` changes.
    pub(crate) fn transactions(&mut self, count: usize, changes_max: usize, row_bytes: usize) -> Vec<Part> {
        (0..count)
            .flat_map(|_| {
                let changes = self.random.random_range(1..=changes_max);
                self.transaction(changes, row_bytes)
            })
            .collect()
    }
}
