//! Rows as large as applications should not make them.

use walcast_testkit::for_each_version;

use super::told::{assert_rows, judge, printed, rows_of, synced};
use crate::conformance::trial::{Trial, daemon_of};

/// MiB of a row: `WALCAST_ROW_MB`, by default 6.
fn megabytes() -> usize {
    std::env::var("WALCAST_ROW_MB").map_or(6, |mb| mb.parse().expect("a number of MiB"))
}

/// The daemon's program is that of `WALCAST_PROGRAM` when it is set, such as a release build whose memory is measured.
#[tokio::test]
async fn a_row_of_many_megabytes_arrives_whole_and_memory_stays_within_a_few_times_its_size() {
    for_each_version(async |cluster| {
        let mb = megabytes();
        let columns: Vec<String> = (0..100).map(|n| format!("c{n} text")).collect();
        let database = walcast_testkit::TestDatabase::create(cluster).await;
        database
            .run(&format!(
                "CREATE TABLE mark (n int PRIMARY KEY); CREATE TABLE long (id int PRIMARY KEY, t text, b bytea);
                 CREATE TABLE wide (id int PRIMARY KEY, {})",
                columns.join(", ")
            ))
            .await;
        let mut builder = daemon_of(&database);
        if let Ok(program) = std::env::var("WALCAST_PROGRAM") {
            builder = builder.program(program);
        }
        let daemon = builder.start().await;
        let mut trial = Trial::of(database, daemon).await;
        let idle = trial.daemon.peak_memory_bytes().unwrap_or(0);
        // Half of it as text with characters to escape, and the rest as bytes that are two digits each.
        let long = format!(
            "INSERT INTO long SELECT 1, repeat('line \"one\"' || chr(10) || 'zwölf ', {0}), decode(repeat('00ff5c22', {1}), 'hex')",
            mb * (1 << 20) / 2 / 18,
            mb * (1 << 20) / 4 / 4
        );
        let cells: Vec<String> = (0..100).map(|n| format!("repeat('{n:02}x', {})", mb * (1 << 20) / 100 / 3)).collect();
        let wide = format!("INSERT INTO wide SELECT 1, {}", cells.join(", "));
        let server = judge(trial.database.url()).await;
        for (table, insert) in [("public.long", &long), ("public.wide", &wide)] {
            let started = std::time::Instant::now();
            let told = trial.told(&[insert]).await;
            let took = started.elapsed();
            assert_rows(&rows_of(&told, table), &printed(&server, table).await, table);
            let peak = trial.daemon.peak_memory_bytes().unwrap_or(0);
            println!("{table}: {mb} MiB in {took:?}, peak memory {} MiB of {} MiB idle", peak >> 20, idle >> 20);
        }
        trial.finish().await;
        let peak = trial.daemon.peak_memory_bytes().unwrap_or(0);
        println!("catch-up from history after a restart: peak memory {} MiB", peak >> 20);
        let now = printed(&server, "public.long").await;
        assert_rows(&synced(&trial.daemon.ws_url(), |row| row.contains(r#""b":"#)).await, &now, "the initial sync");
        let peak = trial.daemon.peak_memory_bytes().unwrap_or(0);
        println!("initial sync: peak memory {} MiB", peak >> 20);
        // Two tables of such rows are in the feed, in the initial sync and on the socket at the same time.
        assert!(peak < idle + ((mb as u64 * 16 + 64) << 20), "{} MiB for rows of {mb} MiB", peak >> 20);
    })
    .await;
}
