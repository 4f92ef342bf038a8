//! Four small tables: inserts, updates, key changes, deletes, upserts, savepoints that roll back, aborted transactions,
//! several tables in one transaction, and commit orders that differ from write orders.

use rand::Rng;
use rand::rngs::StdRng;

use crate::TestDatabase;

/// The tables of the workload, with every replica identity that a table can be published whole with.
pub const TABLES: [&str; 4] = ["public.accounts", "public.entries", "public.notes", "public.tags"];

/// Creates [`TABLES`] with `rows` rows each.
///
/// # Panics
///
/// When a statement fails.
pub async fn create(database: &TestDatabase, rows: usize) {
    database
        .run(&format!(
            "CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL DEFAULT 0, note text);
             CREATE TABLE entries (account int, number int, amount int, PRIMARY KEY (account, number));
             CREATE TABLE notes (id int, body text);
             ALTER TABLE notes REPLICA IDENTITY FULL;
             CREATE TABLE tags (id int PRIMARY KEY, label text NOT NULL UNIQUE, weight int);
             ALTER TABLE tags REPLICA IDENTITY USING INDEX tags_label_key;
             INSERT INTO accounts SELECT g, g, 'start' FROM generate_series(1, {rows}) g;
             INSERT INTO entries SELECT g, g, g FROM generate_series(1, {rows}) g;
             INSERT INTO notes SELECT g, 'note ' || g FROM generate_series(1, {rows}) g;
             INSERT INTO tags SELECT g, 'tag ' || g, g FROM generate_series(1, {rows}) g;"
        ))
        .await;
}

pub(super) fn transaction(rng: &mut StdRng, writer: usize) -> String {
    let mut sql = String::from("BEGIN;");
    if rng.random_bool(0.2) {
        sql.push_str("SET LOCAL synchronous_commit = off;");
    }
    for step in 0..rng.random_range(1..5) {
        let statement = statement(rng, writer);
        if rng.random_bool(0.2) {
            let keep = if rng.random_bool(0.5) { "RELEASE" } else { "ROLLBACK TO" };
            sql.push_str(&format!("SAVEPOINT s{step};{statement};{keep} s{step};"));
        } else {
            sql.push_str(&statement);
            sql.push(';');
        }
        if rng.random_bool(0.1) {
            sql.push_str("SELECT pg_sleep(0.005);");
        }
    }
    sql.push_str(if rng.random_bool(0.1) { "ROLLBACK" } else { "COMMIT" });
    sql
}

pub(super) fn statement(rng: &mut StdRng, writer: usize) -> String {
    let id = rng.random_range(1..60);
    let other = rng.random_range(1..60);
    let new = 1000 + writer * 1_000_000 + rng.random_range(0..200);
    match rng.random_range(0..14) {
        0 | 1 => format!("UPDATE accounts SET balance = balance + {other} WHERE id = {id}"),
        2 => format!(
            "INSERT INTO accounts VALUES ({new}, {other}, 'by {writer}') ON CONFLICT (id) DO UPDATE SET balance = {other}"
        ),
        3 => format!("UPDATE accounts SET id = id + 500000 WHERE id = {new}"),
        4 => format!("DELETE FROM accounts WHERE id IN ({new}, {new} + 500000)"),
        5 => format!("INSERT INTO entries VALUES ({new}, {other}, {id}) ON CONFLICT DO NOTHING"),
        6 => format!("UPDATE entries SET amount = amount + 1 WHERE account = {new}"),
        7 => format!("UPDATE entries SET number = number + 100 WHERE account = {new} AND number < 100"),
        8 => format!("DELETE FROM entries WHERE account = {new}"),
        9 => format!("INSERT INTO notes VALUES ({new}, repeat(md5('{id}'), {other}) || clock_timestamp())"),
        10 => format!("UPDATE notes SET body = body || '.' || clock_timestamp() WHERE id = {id}"),
        11 => format!("DELETE FROM notes WHERE id = {new}"),
        12 => format!("UPDATE tags SET weight = weight + 1, id = id + 1000 WHERE id % 1000 = {id}"),
        _ => format!(
            "INSERT INTO tags VALUES ({new}, 'new ' || {new}, 1) ON CONFLICT (label) DO UPDATE SET weight = tags.weight + 1"
        ),
    }
}
