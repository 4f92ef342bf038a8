//! Random histories of small tables: applying what was folded is the same as applying every change.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value};
use walcast_model::{
    Column, CommitEnd, CommitStart, Lsn, Oid, Op, Part, PartBuilder, Relation, RelationName, ReplicaIdentity,
    Seq, Timestamp, Transaction, Xid,
};

use super::{Fold, Unfoldable};

fn relation(oid: u32, keys: &[&str], others: &[&str], identity: ReplicaIdentity) -> Arc<Relation> {
    let column = |name: &&str, key| Column {
        name: (*name).into(),
        type_name: "text".into(),
        type_oid: Oid::new(25),
        key,
        nullable: !key,
    };
    let columns =
        keys.iter().map(|name| column(name, true)).chain(others.iter().map(|name| column(name, false)));
    let name = RelationName::new("public", format!("t{oid}"));
    Arc::new(Relation::new(Oid::new(oid), name, identity, columns.collect()))
}

/// One change, in the pieces that it is made of.
#[derive(Clone, Debug)]
struct Made {
    op: Op,
    relation: Arc<Relation>,
    key: Option<String>,
    row: Option<String>,
    old: Option<String>,
    unchanged: Vec<&'static str>,
}

fn made(op: Op, relation: &Arc<Relation>, key: &str, row: &str) -> Made {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Made {
        op,
        relation: Arc::clone(relation),
        key: some(key),
        row: some(row),
        old: None,
        unchanged: Vec::new(),
    }
}

/// Transactions one after the other; each is given in parts of two changes.
struct Log {
    lsn: u64,
}

impl Log {
    fn transaction(&mut self, changes: &[Made]) -> Vec<Part> {
        self.lsn += 100;
        let transaction = Arc::new(Transaction {
            start: CommitStart::new(Lsn::new(self.lsn)),
            xid: Xid::new(self.lsn),
            committed_at: Timestamp::default(),
        });
        let put = |text: &str| {
            let text = text.to_owned();
            move |out: &mut Vec<u8>| -> Result<(), Infallible> {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }
        };
        let mut parts = Vec::new();
        let mut part = PartBuilder::new(Arc::clone(&transaction), Seq::FIRST);
        for (index, made) in changes.iter().enumerate() {
            if index > 0 && index % 2 == 0 {
                let next = PartBuilder::new(Arc::clone(&transaction), part.next_seq());
                parts.push(std::mem::replace(&mut part, next).finish(None));
            }
            let mut change = part.change(made.op, &made.relation);
            if let Some(text) = &made.key {
                let Ok(()) = change.key(put(text));
            }
            if let Some(text) = &made.row {
                let Ok(()) = change.row(put(text));
            }
            if let Some(text) = &made.old {
                let Ok(()) = change.old(put(text));
            }
            change.unchanged(made.unchanged.iter().copied());
            change.finish().unwrap();
        }
        parts.push(part.finish(Some(CommitEnd::new(Lsn::new(self.lsn + 50)))));
        parts
    }
}

type Rows = BTreeMap<String, Map<String, Value>>;

/// A client's copy, by table and key, and the changes of tables without a key.
#[derive(Clone, PartialEq, Debug, Default)]
struct Copy {
    tables: BTreeMap<String, Rows>,
    listed: BTreeMap<String, Vec<String>>,
}

fn object(text: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(text).unwrap()
}

impl Copy {
    /// `is_compacted`: a row may be written whether it is there or not, and deleted whether it is there or not.
    fn apply(&mut self, parts: &[Part], is_compacted: bool) {
        for part in parts {
            for change in part.changes() {
                let relation = &change.relation;
                let name = relation.name().to_string();
                let has_key = relation.columns().iter().any(|column| column.key);
                if !has_key {
                    let list = self.listed.entry(name).or_default();
                    if change.op == Op::Truncate {
                        list.clear();
                    }
                    list.push(String::from_utf8(part.change_json(change).to_vec()).unwrap());
                    continue;
                }
                let rows = self.tables.entry(name).or_default();
                if change.op == Op::Truncate {
                    rows.clear();
                    continue;
                }
                let key = Value::from(object(part.key(change).unwrap())).to_string();
                let before = rows.remove(&key);
                assert!(
                    is_compacted || before.is_some() == (change.op != Op::Insert),
                    "{:?} of {key}",
                    change.op
                );
                let Some(row) = part.row(change).map(object) else { continue };
                let new_key: Map<String, Value> = relation
                    .columns()
                    .iter()
                    .filter(|column| column.key)
                    .map(|column| (column.name.clone(), row[&column.name].clone()))
                    .collect();
                let mut now = Map::new();
                if let Some(names) = part.unchanged(change) {
                    for name in serde_json::from_slice::<Vec<String>>(names).unwrap() {
                        let before = before.as_ref().expect("a row with unchanged columns is there");
                        now.insert(name.clone(), before[&name].clone());
                    }
                }
                now.extend(row);
                rows.insert(Value::from(new_key).to_string(), now);
            }
        }
        // A table of which every row came and went need not be heard of.
        self.tables.retain(|_, rows| !rows.is_empty());
    }
}

/// Tables `1` (key of one column, large values that are not always written), `2` (key of two, FULL), `3` (no key).
struct World {
    random: StdRng,
    tables: [Arc<Relation>; 3],
    /// Keys that are there: rows of tables 1 and 2.
    rows: [BTreeMap<(u32, u32), (u32, u32)>; 2],
    next: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let tables = [
            relation(1, &["id"], &["v", "big"], ReplicaIdentity::Default),
            relation(2, &["a", "b"], &["v", "big"], ReplicaIdentity::Full),
            relation(3, &[], &["v"], ReplicaIdentity::Nothing),
        ];
        Self { random: StdRng::seed_from_u64(seed), tables, rows: Default::default(), next: 0 }
    }

    fn key(table: usize, (a, b): (u32, u32)) -> String {
        if table == 0 { format!(r#"{{"id":{a}}}"#) } else { format!(r#"{{"a":{a},"b":"{b},\"}}"}}"#) }
    }

    fn row(table: usize, key: (u32, u32), (v, big): (u32, u32), with_big: bool) -> String {
        let key = Self::key(table, key);
        let big = if with_big { format!(r#","big":"large {big}""#) } else { String::new() };
        format!(r#"{},"v":{v}{big}}}"#, key.strip_suffix('}').unwrap())
    }

    fn change(&mut self) -> Made {
        self.next += 1;
        let next = self.next;
        let table = self.random.random_range(0..3_usize);
        if table == 2 {
            let op = if self.random.random_range(0..12) == 0 { Op::Truncate } else { Op::Insert };
            let row = if op == Op::Insert { format!(r#"{{"v":{next}}}"#) } else { String::new() };
            return made(op, &self.tables[2], "", &row);
        }
        let relation = Arc::clone(&self.tables[table]);
        let rows = &mut self.rows[table];
        let key = (self.random.random_range(0..6), self.random.random_range(0..2) * table as u32);
        let present = rows.get(&key).copied();
        let full_old = |change: &mut Made, before| {
            if table == 1 {
                change.old = Some(Self::row(1, key, before, true));
            }
        };
        match (present, self.random.random_range(0..40)) {
            (_, 0) => {
                rows.clear();
                made(Op::Truncate, &relation, "", "")
            }
            (None, _) => {
                rows.insert(key, (next, next));
                made(
                    Op::Insert,
                    &relation,
                    &Self::key(table, key),
                    &Self::row(table, key, (next, next), true),
                )
            }
            (Some(before), 1..10) => {
                rows.remove(&key);
                let mut change = made(Op::Delete, &relation, &Self::key(table, key), "");
                full_old(&mut change, before);
                change
            }
            (Some(before), choice) => {
                let free = (0..6).map(|a| (a, key.1)).find(|other| !rows.contains_key(other));
                let new_key = free.filter(|_| choice < 20).unwrap_or(key);
                // Without FULL a large value that was not written is not carried.
                let writes_big = choice % 2 == 0;
                let now = (next, if writes_big { next } else { before.1 });
                rows.remove(&key);
                rows.insert(new_key, now);
                let carried = writes_big || table == 1;
                let row = Self::row(table, new_key, now, carried);
                let mut change = made(Op::Update, &relation, &Self::key(table, key), &row);
                if !carried {
                    change.unchanged = vec!["big"];
                }
                full_old(&mut change, before);
                change
            }
        }
    }

    fn transaction(&mut self, log: &mut Log) -> Vec<Part> {
        let count = self.random.random_range(1..6);
        let changes: Vec<Made> = (0..count).map(|_| self.change()).collect();
        log.transaction(&changes)
    }
}

#[test]
fn applying_what_was_folded_is_the_same_as_applying_every_change() {
    let (mut folded_changes, mut all_changes, mut as_they_are) = (0, 0, 0);
    for seed in 0..500 {
        let (mut world, mut log) = (World::new(seed), Log { lsn: 0 });
        let (mut whole, mut compacted) = (Copy::default(), Copy::default());
        // What the client has before it begins to fall behind.
        for _ in 0..world.random.random_range(0..8) {
            let parts = world.transaction(&mut log);
            whole.apply(&parts, false);
        }
        compacted.clone_from(&whole);
        let mut fold = Fold::default();
        for _ in 0..world.random.random_range(1..30) {
            let parts = world.transaction(&mut log);
            let before = whole.clone();
            whole.apply(&parts, false);
            all_changes += parts.iter().map(|part| part.changes().len()).sum::<usize>();
            let refused = fold.transaction(&parts, |_| true).is_err();
            if refused || world.random.random_range(0..12) == 0 {
                let out = std::mem::take(&mut fold).finish(1);
                folded_changes += out.iter().map(|part| part.changes().len()).sum::<usize>();
                compacted.apply(&out, true);
                assert_eq!(compacted, if refused { before } else { whole.clone() }, "seed {seed}");
                // Some clients apply it twice: they were cut off before they could store the cursor.
                if compacted.listed.is_empty() {
                    let mut twice = compacted.clone();
                    let has_unchanged =
                        out.iter().any(|part| part.changes().iter().any(|c| part.unchanged(c).is_some()));
                    if !has_unchanged {
                        twice.apply(&out, true);
                        assert_eq!(twice, compacted, "seed {seed}");
                    }
                }
            }
            if refused {
                as_they_are += 1;
                compacted.apply(&parts, false);
            }
        }
        compacted.apply(&fold.finish(1000), true);
        assert_eq!(compacted, whole, "seed {seed}");
    }
    assert!(as_they_are > 25, "{as_they_are} transactions could not be folded");
    assert!(folded_changes * 3 < all_changes * 2, "{folded_changes} changes of {all_changes} are left");
}

#[test]
fn a_swap_of_keys_is_not_guessed_at() {
    let full = relation(1, &["id"], &["v"], ReplicaIdentity::Full);
    let mut log = Log { lsn: 0 };
    let update = |from: u32, to: u32, v: u32, old_v: u32| Made {
        old: Some(format!(r#"{{"id":{from},"v":{old_v}}}"#)),
        ..made(Op::Update, &full, &format!(r#"{{"id":{from}}}"#), &format!(r#"{{"id":{to},"v":{v}}}"#))
    };
    // One statement under a deferrable constraint: after its first change two rows have key 2.
    let parts = log.transaction(&[update(1, 2, 10, 10), update(2, 1, 20, 20)]);
    assert_eq!(Fold::default().transaction(&parts, |_| true), Err(Unfoldable::Ambiguous));
}

#[test]
fn a_row_that_comes_back_does_not_keep_what_it_had_before() {
    let table = relation(1, &["id"], &["v", "big"], ReplicaIdentity::Default);
    let mut log = Log { lsn: 0 };
    let (key, row) = (r#"{"id":1}"#, r#"{"id":1,"v":1}"#);
    let returns = Made { unchanged: vec!["big"], ..made(Op::Insert, &table, key, row) };
    let left = log.transaction(&[made(Op::Delete, &table, key, "")]);
    let back = log.transaction(&[returns]);
    let mut fold = Fold::default();
    fold.transaction(&left, |_| true).unwrap();
    assert_eq!(fold.transaction(&back, |_| true), Err(Unfoldable::ReturnedValue));
    // By itself it is a row that was not there.
    let mut fold = Fold::default();
    fold.transaction(&back, |_| true).unwrap();
    let json =
        r#"{"op":"insert","table":"public.t1","key":{"id":1},"row":{"id":1,"v":1},"unchanged":["big"]}"#;
    assert_eq!(fold.finish(1000)[0].json().as_ref(), json.as_bytes());
}

#[test]
fn a_definition_with_another_key_begins_another_fold_and_one_with_another_column_does_not() {
    let first = relation(1, &["id"], &["v"], ReplicaIdentity::Default);
    let wider = relation(1, &["id"], &["v", "w"], ReplicaIdentity::Default);
    let rekeyed = relation(1, &["v"], &["w"], ReplicaIdentity::Default);
    let (mut log, mut fold) = (Log { lsn: 0 }, Fold::default());
    let insert = log.transaction(&[made(Op::Insert, &first, r#"{"id":1}"#, r#"{"id":1,"v":1}"#)]);
    let update = log.transaction(&[made(Op::Update, &wider, r#"{"id":1}"#, r#"{"id":1,"v":1,"w":2}"#)]);
    let other = log.transaction(&[made(Op::Insert, &rekeyed, r#"{"v":5}"#, r#"{"v":5,"w":2}"#)]);
    assert_eq!(fold.transaction(&insert, |_| true), Ok(()));
    assert_eq!(fold.transaction(&update, |_| true), Ok(()));
    assert_eq!(fold.transaction(&other, |_| true), Err(Unfoldable::Definition));
    let parts = fold.finish(1000);
    let json = r#"{"op":"insert","table":"public.t1","key":{"id":1},"row":{"id":1,"v":1,"w":2}}"#;
    assert_eq!(parts[0].json().as_ref(), json.as_bytes());
    assert_eq!(parts[0].changes()[0].relation.digest(), wider.digest());
    assert_eq!(parts[0].end(), Some(CommitEnd::new(Lsn::new(250))));
}

#[test]
fn what_is_not_wanted_is_left_out_and_memory_is_counted() {
    let table = relation(1, &["id"], &["v"], ReplicaIdentity::Default);
    let (mut log, mut fold) = (Log { lsn: 0 }, Fold::default());
    let insert = log.transaction(&[made(Op::Insert, &table, r#"{"id":1}"#, r#"{"id":1,"v":1}"#)]);
    fold.transaction(&insert, |_| false).unwrap();
    assert_eq!(fold.bytes(), 0);
    fold.transaction(&insert, |_| true).unwrap();
    let held = fold.bytes();
    assert!(held > 20);
    // Refused, it leaves nothing behind.
    fold.transaction(&insert, |_| true).unwrap_err();
    assert_eq!(fold.bytes(), held);
    let delete = log.transaction(&[made(Op::Delete, &table, r#"{"id":1}"#, "")]);
    fold.transaction(&delete, |_| true).unwrap();
    assert!(fold.bytes() < held);
    assert!(fold.finish(1000).is_empty());
}
