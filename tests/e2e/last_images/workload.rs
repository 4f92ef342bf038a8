//! A random workload of several writers on tables of every replica identity: each change is compared with what a trigger
//! saw, whatever happens to the daemon and to its history, which is another database.

#![expect(clippy::unwrap_used, reason = "helpers of tests: clippy's exception knows only test functions")]

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};
use walcast_testkit::{Cluster, Daemon, TestDatabase, TestSession, for_each_version};

/// By name: whether `old` and large values are there in every update and delete, as images make sure of. After a TRUNCATE
/// it is not certain at once that the new file is the one that the catalog names.
const TABLES: [(&str, bool); 5] =
    [("by_key", true), ("by_index", true), ("by_row", true), ("by_nothing", true), ("emptied", false)];

const SETUP: &str = "
CREATE TABLE audit (n bigserial PRIMARY KEY, t text, op text, old jsonb, new jsonb);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.audit (t, op, old, new) VALUES (TG_TABLE_NAME, lower(TG_OP), to_jsonb(OLD), to_jsonb(NEW));
    RETURN NULL;
END $$;
DO $$ DECLARE t text; BEGIN
    FOREACH t IN ARRAY ARRAY['by_key', 'by_index', 'by_row', 'by_nothing', 'emptied'] LOOP
        EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, state int NOT NULL, big text, more text)', t);
        EXECUTE format('ALTER TABLE %I ALTER big SET STORAGE EXTERNAL, ALTER more SET STORAGE EXTERNAL', t);
        EXECUTE format('CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION audit()', t);
    END LOOP;
END $$;
CREATE UNIQUE INDEX by_index_identity ON by_index (id, state);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_identity;
ALTER TABLE by_row REPLICA IDENTITY FULL;
ALTER TABLE by_nothing REPLICA IDENTITY NOTHING;";

/// The same numbers for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn statement(&mut self) -> String {
        let table = TABLES[self.below(TABLES.len() as u64) as usize].0;
        let (id, other, n) = (self.below(8), self.below(8), self.below(1000));
        let large = format!("repeat(md5('{n}'), 80)");
        match self.below(10) {
            0..3 => format!("INSERT INTO {table} VALUES ({id}, 0, {large}, {large}) ON CONFLICT DO NOTHING"),
            _ if table == "by_nothing" => format!("INSERT INTO {table} VALUES ({}, 0, {large}, '')", n + 10),
            3..5 => format!("UPDATE {table} SET state = state + 1 WHERE id = {id}"),
            5 => format!("UPDATE {table} SET big = {large} WHERE id = {id}"),
            6 => format!("UPDATE {table} SET more = NULL, state = {n} WHERE id = {id}"),
            7 => format!("UPDATE {table} SET id = {other}, more = {large} WHERE id = {id}"),
            8 => format!("DELETE FROM {table} WHERE id = {id}"),
            _ if table == "emptied" && n < 200 => format!(
                "TRUNCATE emptied; INSERT INTO emptied VALUES ({id}, 0, {large}, {large}); \
                 UPDATE emptied SET state = {n} WHERE id = {id}"
            ),
            _ => format!("UPDATE {table} SET state = 0"),
        }
    }
}

/// Transactions of which some are rolled back, and some fail: a key is taken, or two writers wait for each other.
async fn write(session: TestSession, seed: u64, transactions: u32) {
    let mut numbers = Numbers(seed);
    for _ in 0..transactions {
        let statements: Vec<String> = (0..=numbers.below(4)).map(|_| numbers.statement()).collect();
        let end = if numbers.below(8) == 0 { "ROLLBACK" } else { "COMMIT" };
        let sql = format!("BEGIN; {}; {end}", statements.join("; "));
        if session.batch_execute(&sql).await.is_err() {
            session.batch_execute("ROLLBACK").await.unwrap();
        }
    }
}

async fn burst(database: &TestDatabase, seed: u64, transactions: u32) {
    let mut writers = Vec::new();
    for writer in 0..3 {
        writers.push(tokio::spawn(write(database.session().await, seed * 100 + writer, transactions)));
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

/// A change: what it does, the row before and after; and what it says that it leaves out.
type Change = (String, Option<Map<String, Value>>, Option<Map<String, Value>>, Vec<String>);
/// The changes of each row by table and key before, in their order: rows with a key come one after another.
type Changes = HashMap<(String, i64), Vec<Change>>;

async fn changes(database: &TestDatabase, sql: &str) -> Changes {
    let object = |text: Option<&str>| text.map(|text| serde_json::from_str(text).unwrap());
    let mut changes = Changes::new();
    for row in database.session().await.query(sql, &[]).await.unwrap() {
        let (old, new): (Option<Map<_, _>>, Option<Map<_, _>>) = (object(row.get(3)), object(row.get(4)));
        let unchanged = row.get::<_, Option<&str>>(5).map(|names| serde_json::from_str(names).unwrap());
        let change = (row.get(2), old, new, unchanged.unwrap_or_default());
        changes.entry((row.get(0), row.get(1))).or_default().push(change);
    }
    changes
}

/// Waits until all is stored, and compares. How many rows were completed.
async fn compare(source: &TestDatabase, history: &TestDatabase) -> BTreeMap<&'static str, usize> {
    let published = "(t <> 'by_nothing' OR op = 'insert')";
    let count = source.scalar(&format!("SELECT count(*) FROM audit WHERE {published}")).await.unwrap();
    history.until("SELECT count(*) FROM walcast.changes WHERE op <> 'truncate'", &count).await;
    let sql = format!(
        "SELECT t, (coalesce(old, new))['id']::bigint, op, old::text, new::text, NULL::text FROM audit \
         WHERE {published} ORDER BY n"
    );
    let seen = changes(source, &sql).await;
    let sql = "SELECT table_name, (coalesce(key, \"row\"))['id']::bigint, op, old::text, \"row\"::text, unchanged::text \
               FROM walcast.changes WHERE op <> 'truncate' ORDER BY lsn, seq";
    let told = changes(history, sql).await;
    assert_eq!(seen.len(), told.len());
    let mut completed = BTreeMap::new();
    for (row, seen) in &seen {
        let told = &told[row];
        assert_eq!(seen.len(), told.len(), "{row:?}");
        let (table, is_whole) = *TABLES.iter().find(|(table, _)| *table == row.0).unwrap();
        for (seen, told) in seen.iter().zip(told) {
            let (op, old, new, unchanged) = told;
            assert_eq!(*op, seen.0, "{row:?}");
            if old.is_some() {
                assert_eq!(*old, seen.1, "{row:?}: the row before");
                *completed.entry(table).or_default() += 1;
            }
            let mut expected = seen.2.clone();
            for name in unchanged {
                expected.as_mut().and_then(|row| row.remove(name)).expect("a column");
            }
            assert_eq!(*new, expected, "{row:?}: the row");
            let is_known = unchanged.is_empty() && (old.is_some() || op == "insert");
            assert!(is_known || !is_whole, "{row:?}: {told:?}");
        }
    }
    completed
}

async fn run(cluster: &Cluster) {
    let (database, history) = (TestDatabase::create(cluster).await, TestDatabase::create(cluster).await);
    database.run(SETUP).await;
    let tables = TABLES.map(|(table, _)| format!("public.{table}")).join(",");
    let mut daemon = Daemon::of(&database)
        .flag("--history-url", history.url())
        .flag("--tables", &tables)
        .flag("--last-images", "*")
        .flag("--part-bytes", "4KiB")
        .flag("--feed-memory", "1MiB")
        .start()
        .await;
    burst(&database, 1, 40).await;
    compare(&database, &history).await;

    // One transaction, several times what fits into memory, that writes the same keys again and again.
    let again = "UPDATE by_key SET state = state + 1; UPDATE by_index SET state = state + 1;";
    let fill = "INSERT INTO by_key SELECT g, 0, repeat('k', 4000), NULL FROM generate_series(20, 40) g; \
                INSERT INTO by_index SELECT g, 0, repeat('i', 4000), NULL FROM generate_series(20, 40) g;";
    database.run(fill).await;
    database.run(&again.repeat(12)).await;
    compare(&database, &history).await;

    // History stands still while images are needed of it, and nothing is in memory.
    let lock = history.session().await;
    lock.batch_execute("BEGIN; LOCK TABLE walcast.last_image IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let writing = burst(&database, 2, 20);
    let needed = "SELECT count(*) > 0 FROM pg_stat_activity \
                  WHERE datname = current_database() AND application_name = 'walcast last images' AND wait_event_type = 'Lock'";
    tokio::join!(writing, history.until(needed, "t"));
    lock.batch_execute("COMMIT").await.unwrap();
    compare(&database, &history).await;

    // The daemon is killed in the middle, twice.
    for seed in 3..5 {
        let writing = burst(&database, seed, 40);
        let killing = async {
            let stored = history.scalar("SELECT count(*) FROM walcast.changes").await.unwrap();
            history.until(&format!("SELECT count(*) > {stored} FROM walcast.changes"), "t").await;
            daemon.kill9().await;
        };
        tokio::join!(writing, killing);
        daemon.restart().await;
    }
    let completed = compare(&database, &history).await;
    for table in ["by_key", "by_index", "by_row"] {
        assert!(completed.get(table).is_some_and(|rows| *rows > 100), "{completed:?}");
    }
    // What is kept is what is there now.
    for table in ["by_key", "by_index", "emptied"] {
        let kept = "SELECT coalesce(jsonb_object_agg(i.row::jsonb ->> 'id', i.row::jsonb), '{}')::text \
                    FROM walcast.last_image AS i JOIN walcast.imaged_table USING (relation) WHERE table_name = '{t}'";
        let kept = history.scalar(&kept.replace("{t}", table)).await.unwrap();
        let there =
            format!("SELECT coalesce(jsonb_object_agg(id, to_jsonb(t)), '{{}}')::text FROM {table} AS t");
        let there = database.scalar(&there).await.unwrap();
        let [kept, there]: [Map<String, Value>; 2] =
            [kept, there].map(|text| serde_json::from_str(&text).unwrap());
        for (id, row) in &kept {
            assert_eq!(there.get(id), Some(row), "the image of {id} in {table}");
        }
        assert!(
            table == "emptied" || kept.len() == there.len(),
            "{table}: {} of {}",
            kept.len(),
            there.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_changes_are_completed_rightly_whatever_happens_to_daemon_and_history() {
    for_each_version(async |cluster| run(cluster).await).await;
}
