//! What clients are told of rows, beside what the server's `to_jsonb` prints of them.

use serde_json::value::RawValue;
use walcast_testkit::{TestDatabase, TestSession};

use crate::conformance::trial::Trial;
use crate::conformance::witness::{Told, Witness};

/// The settings under which the feed prints values.
const SETTINGS: &str = "
    SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET bytea_output = 'hex';
    SET extra_float_digits = 3; SET lc_monetary = 'C'; SET quote_all_identifiers = off; SET search_path = pg_catalog;
    SET client_encoding = 'UTF8'";

/// A session with those settings.
pub(super) async fn judge(url: &str) -> TestSession {
    let session = TestSession::connect(url).await;
    session.batch_execute(SETTINGS).await.expect("settings");
    session
}

/// The rows of a table by `to_jsonb` of each column, in the order of `id`.
pub(super) async fn printed(session: &TestSession, table: &str) -> Vec<String> {
    let columns = format!(
        "SELECT string_agg(format('%L || coalesce(to_jsonb(%I)::text, ''null'')', to_json(attname::text)::text || ':', attname),
                           $$ || ',' || $$ ORDER BY attnum)
         FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
    );
    let columns = session.scalar(&columns).await.expect("columns");
    let sql = format!("SELECT '{{' || {columns} || '}}' FROM {table} ORDER BY id");
    let rows = session.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// The new rows among what was told of a table, in the order in which they came.
pub(super) fn rows_of(told: &[Told], table: &str) -> Vec<String> {
    let of = |told: &Told| match told {
        Told::Change { text, .. } if text.split(' ').nth(1) == Some(table) => {
            let (_, row) = text.split_once(" row ")?;
            let row = serde_json::Deserializer::from_str(row).into_iter::<Box<RawValue>>().next()?;
            Some(row.expect("a row").get().to_owned())
        }
        _ => None,
    };
    told.iter().filter_map(of).collect()
}

/// Compares rows one by one, as whole ones fill the screen.
pub(super) fn assert_rows(got: &[String], expected: &[String], what: &str) {
    for (got, expected) in got.iter().zip(expected) {
        if got != expected {
            let at = got.bytes().zip(expected.bytes()).take_while(|(got, expected)| got == expected).count();
            let around = |text: &str| -> String {
                text.chars().skip(text.len().min(at).saturating_sub(80)).take(240).collect()
            };
            panic!("{what}: told\n  …{}\ninstead of\n  …{}", around(got), around(expected));
        }
    }
    assert_eq!(got.len(), expected.len(), "{what}: the number of rows");
}

/// The rows of a table that an initial sync sends, in the order of `id`: `is_of` tells them from other tables' rows.
pub(super) async fn synced(url: &str, is_of: impl Fn(&str) -> bool) -> Vec<String> {
    let mut sync = Witness::at(url, "0/0").await;
    sync.until("caught_up").await;
    let rows = sync.log.iter().filter_map(|told| match told {
        Told::Row(row) if is_of(row) => Some(row.clone()),
        _ => None,
    });
    let mut rows: Vec<String> = rows.collect();
    let id = |row: &String| -> u32 {
        let digits = row.split_once(r#""id":"#).map_or("", |(_, rest)| rest);
        digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
    };
    rows.sort_by_key(id);
    rows
}

/// How many values the daemon says it could not write as `to_jsonb` prints them.
pub(super) async fn fallbacks(trial: &Trial) -> u64 {
    trial.daemon.metric("walcast_replication_value_fallbacks_total").await.unwrap_or(0.0) as u64
}

/// Runs `sql` with a daemon that is not there, and starts it again.
pub(super) async fn while_stopped(trial: &mut Trial, steps: &[&str]) {
    trial.daemon.terminate().await;
    for step in steps {
        run(&trial.database, step).await;
    }
    trial.daemon.restart().await;
    trial.reconnect().await;
}

/// Each statement in a transaction of its own, unless `step` says otherwise.
pub(super) async fn run(database: &TestDatabase, step: &str) {
    database.session().await.batch_execute(step).await.unwrap_or_else(|error| panic!("{step}: {error:?}"));
}
