//! What one evaluation costs, and one lookup among many predicates: `cargo bench -p walcast-filter`.
//!
//! Prints the best of several runs, in nanoseconds.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use walcast_filter::{Collation, Filter, Predicate, PredicateIndex, Row, Schema};
use walcast_model::{Column, Oid, Relation, RelationName, ReplicaIdentity};

const RUNS: usize = 200;
const EVALUATIONS: usize = 2_000;

const COLUMNS: [(&str, u32); 10] = [
    ("id", 20),
    ("owner_id", 20),
    ("title", 25),
    ("email", 1043),
    ("price", 1700),
    ("active", 16),
    ("created_at", 1184),
    ("score", 701),
    ("tags", 1009),
    ("data", 3802),
];

const ROW: &str = r#"{"id":9007199254740993,"owner_id":4711,"title":"A title of ordinary length","email":"someone@example.com","price":1234.50,"active":true,"created_at":"2026-11-21T01:02:03.123456+00:00","score":0.30000000000000004,"tags":["plain", "with space", "x"],"data":{"id": 1, "name": "x", "tags": ["a", "b"], "nested": {"a": null, "b": 1.50}}}"#;

const FILTERS: [&str; 12] = [
    "id = 9007199254740993",
    "owner_id = 4711",
    "title = 'A title of ordinary length'",
    "title LIKE '%ordinary%'",
    "price BETWEEN 1000 AND 2000",
    "active",
    "created_at > '2026-01-01 00:00+00'",
    "score > 0.3",
    "'x' = ANY (tags)",
    "data ->> 'name' = 'x'",
    "data @> '{\"nested\": {\"b\": 1.5}}'",
    "owner_id = 4711 AND active AND price > 10 AND title <> 'x'",
];

fn schema() -> Schema {
    let column = |(name, oid): &(&str, u32)| Column {
        name: (*name).into(),
        type_name: String::new(),
        type_oid: Oid::new(*oid),
        key: *name == "id",
        nullable: *name != "data",
    };
    let name = RelationName::new("public", "files");
    let columns = COLUMNS.iter().map(column).collect();
    let relation = Arc::new(Relation::new(Oid::new(1), name, ReplicaIdentity::Full, columns));
    let builder = Schema::builder(relation).with_database(Collation::Locale, true);
    ["title", "email", "tags"]
        .into_iter()
        .fold(builder, |builder, name| builder.with_collation(name, Collation::Locale))
        .build()
}

fn bound(schema: &Schema, text: &str) -> Predicate {
    Filter::parse(text).and_then(|filter| filter.bind(schema)).expect("a valid filter")
}

/// The best time of one call, of runs that no other process disturbed.
fn best(calls: usize, runs: usize, mut call: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..runs {
        let start = Instant::now();
        for _ in 0..calls {
            call();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / calls as f64);
    }
    best
}

fn bench_evaluation(schema: &Schema) {
    println!(
        "one evaluation of a row of {} bytes: by itself, and when its columns were found before",
        ROW.len()
    );
    for text in FILTERS {
        let predicate = bound(schema, text);
        let alone = best(EVALUATIONS, RUNS, || {
            black_box(predicate.evaluate(black_box(ROW.as_bytes())));
        });
        let row = Row::new(predicate.relation(), ROW.as_bytes());
        let found = best(EVALUATIONS, RUNS, || {
            black_box(predicate.evaluate_row(black_box(&row)));
        });
        println!("  {alone:>6.0} ns {found:>6.0} ns  {text}");
    }
    let row = best(EVALUATIONS, RUNS, || {
        black_box(Row::new(schema.relation(), black_box(ROW.as_bytes())));
    });
    println!("  {row:>6.0} ns            finding all columns of a row");
}

/// A row among predicates of which one matches; then adding and removing one.
fn bench_index(schema: &Schema, what: &str, count: usize, filter: impl Fn(usize) -> String) {
    let mut index = PredicateIndex::new();
    for id in 0..count {
        index.insert(&Arc::new(bound(schema, &filter(id))), id);
    }
    let row = Row::new(schema.relation(), ROW.as_bytes());
    let mut matching = 0;
    let lookup = best(EVALUATIONS / 10, RUNS, || {
        let candidates = index.candidates(&[black_box(&row)]);
        matching = candidates
            .filter(|candidate| candidate.predicate.evaluate_row(&row).matches() == Ok(true))
            .count();
    });
    let another = Arc::new(bound(schema, &filter(count + 1)));
    let change = best(EVALUATIONS / 10, RUNS, || {
        index.insert(&another, count + 1);
        index.remove(&another, &(count + 1));
    });
    let mut line = format!("  {count:>7} of {what}: {matching} of {} match, ", index.len());
    let _ = write!(line, "{lookup:.0} ns a row, {change:.0} ns to add and remove one");
    println!("{line}");
}

fn main() {
    let schema = schema();
    bench_evaluation(&schema);
    println!("candidates of a row, and their evaluation, among distinct predicates");
    for count in [10, 1_000, 100_000] {
        let owner = |id: usize| if id == 5 { 4711 } else { id + 1_000_000 };
        bench_index(&schema, "owner_id = …", count, |id| format!("owner_id = {}", owner(id)));
        bench_index(&schema, "owner_id = … AND active", count, |id| {
            format!("owner_id = {} AND active", owner(id))
        });
        bench_index(&schema, "price BETWEEN … AND …", count, |id| {
            let low = if id == 5 { 1234 } else { 10 * id + 2000 };
            format!("price BETWEEN {low} AND {}", low + 5)
        });
    }
}
