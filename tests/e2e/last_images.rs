//! With `last_images` rows are whole without REPLICA IDENTITY FULL, where that can be known; where not, `unchanged` says
//! so. What is told is compared with what triggers saw in the source.

mod storage;
mod workload;

use walcast_testkit::{Daemon, LIMIT, TestDatabase, eventually, for_each_version};

use crate::observer::Observer;

/// Changes that differ from what the trigger saw: a value of the row, a value of the old row, or the change itself.
const WRONG: &str = "
SELECT count(*) FROM (
    SELECT row_number() OVER (ORDER BY lsn, seq) AS n, * FROM walcast.changes WHERE op <> 'truncate'
) AS c FULL JOIN (SELECT row_number() OVER (ORDER BY n) AS n, op, old, new FROM audit) AS a USING (n)
WHERE c.op IS DISTINCT FROM a.op
   OR c.old IS NOT NULL AND c.old IS DISTINCT FROM a.old
   OR c.row IS DISTINCT FROM
      a.new - coalesce(ARRAY(SELECT jsonb_array_elements_text(c.unchanged)), '{}'::text[])";

const UNCHANGED: &str = "SELECT count(*) FROM walcast.changes WHERE unchanged IS NOT NULL";
const OLD: &str = "SELECT count(*) FROM walcast.changes WHERE old IS NOT NULL";
/// Images that are not the row as it is in the source now, once everything is stored.
const STALE: &str = "SELECT count(*) FROM walcast.last_image AS i LEFT JOIN doc AS d ON d.id = (i.key::jsonb ->> 'id')::int \
                     WHERE to_jsonb(d) IS DISTINCT FROM i.row::jsonb";

async fn create(database: &TestDatabase) {
    database
        .run(
            "CREATE TABLE doc (id int PRIMARY KEY, v int, big text, more text);
             ALTER TABLE doc ALTER big SET STORAGE EXTERNAL, ALTER more SET STORAGE EXTERNAL;
             CREATE TABLE audit (n bigserial PRIMARY KEY, op text, old jsonb, new jsonb);
             CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO public.audit (op, old, new) VALUES (lower(TG_OP), to_jsonb(OLD), to_jsonb(NEW));
                 RETURN NULL;
             END $$;
             INSERT INTO doc VALUES (1, 0, repeat('a', 9000), repeat('b', 9000));
             CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON doc FOR EACH ROW EXECUTE FUNCTION audit()",
        )
        .await;
}

/// Waits until history has every change, and compares.
async fn settle(database: &TestDatabase, unchanged: &str) {
    let left =
        "SELECT (SELECT count(*) FROM audit) - (SELECT count(*) FROM walcast.changes WHERE op <> 'truncate')";
    database.until(left, "0").await;
    assert_eq!(database.scalar(WRONG).await.as_deref(), Some("0"));
    assert_eq!(database.scalar(UNCHANGED).await.as_deref(), Some(unchanged));
    assert_eq!(database.scalar(STALE).await.as_deref(), Some("0"));
}

async fn run(database: &TestDatabase, statements: &[&str]) {
    for statement in statements {
        database.run(statement).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_whole_where_they_are_known_and_never_wrong() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        create(&database).await;
        let mut daemon = Daemon::of(&database)
            .flag("--tables", "public.doc")
            .flag("--last-images", "public.doc")
            .flag("--part-bytes", "4KiB")
            .start()
            .await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.doc"], None).await;
        observer.until("caught_up").await;

        // Never seen: named.
        run(&database, &["UPDATE doc SET v = 1 WHERE id = 1"]).await;
        settle(&database, "1").await;
        assert_eq!(database.scalar(OLD).await.as_deref(), Some("0"));

        // Seen: whole, in later transactions, within one, over key changes and rollbacks.
        run(
            &database,
            &[
                "INSERT INTO doc SELECT g, 0, repeat(chr(64 + g), 9000), NULL FROM generate_series(2, 6) g",
                "UPDATE doc SET v = 1 WHERE id BETWEEN 2 AND 6",
                "BEGIN; INSERT INTO doc VALUES (9, 0, repeat('i', 9000), repeat('j', 9000)); \
                 UPDATE doc SET v = 1 WHERE id = 9; UPDATE doc SET id = 90 WHERE id = 9; \
                 UPDATE doc SET v = 2 WHERE id = 90; DELETE FROM doc WHERE id = 90; COMMIT",
                "BEGIN; UPDATE doc SET big = repeat('z', 9000) WHERE id = 2; ROLLBACK",
                "UPDATE doc SET v = 2 WHERE id = 2",
                "UPDATE doc SET id = 20 WHERE id = 2",
                "UPDATE doc SET v = 3 WHERE id = 20",
                "INSERT INTO doc VALUES (2, 0, repeat('y', 9000), NULL)",
                "UPDATE doc SET v = 4 WHERE id IN (2, 20)",
                "DELETE FROM doc WHERE id = 3",
            ],
        )
        .await;
        settle(&database, "1").await;
        assert_ne!(database.scalar(OLD).await.as_deref(), Some("0"));

        // The daemon is killed in the middle, and what comes while it is away is completed by what it had stored.
        run(&database, &["UPDATE doc SET v = v + 1 WHERE id > 1", "UPDATE doc SET v = v + 1 WHERE id > 1"])
            .await;
        daemon.kill9().await;
        run(&database, &["UPDATE doc SET v = v + 1 WHERE id > 1", "UPDATE doc SET id = 40 WHERE id = 4"])
            .await;
        daemon.restart().await;
        run(&database, &["UPDATE doc SET v = v + 1 WHERE id > 1"]).await;
        settle(&database, "1").await;
        daemon.terminate().await;
        daemon.restart().await;
        run(&database, &["UPDATE doc SET v = v + 1 WHERE id > 1"]).await;
        settle(&database, "1").await;

        // Catch-up and live tell the same; the observer compares each old row with what it was told before.
        observer = observer.reconnect(&daemon.ws_url(), &["public.doc"]).await;
        observer.until("caught_up").await;
        let told = observer.transactions.len();
        run(&database, &["UPDATE doc SET v = v + 1 WHERE id > 1"]).await;
        observer.until_transactions(told + 1).await;
        settle(&database, "1").await;
        observer.assert_equals(&database, "public.doc").await;
        drop(observer);

        // What is stored is let go while nothing is written, and is counted.
        let unstored = async || daemon.metric("walcast_images_unstored").await;
        eventually("nothing is only in memory", LIMIT, async || (unstored().await == Some(0.0)).then_some(()))
            .await;
        for metric in ["looked_up_total", "found_total", "completed_total", "bytes"] {
            daemon.until_metric(&format!("walcast_images_{metric}"), 1.0).await;
        }

        // Rewritten without a change in the stream, with the definition that it had: nothing is known, until the row is
        // written whole.
        run(
            &database,
            &[
                "ALTER TABLE doc ALTER big TYPE text USING repeat('r', 9000) || id, ALTER big SET STORAGE EXTERNAL",
                "UPDATE doc SET v = 50 WHERE id = 20",
            ],
        )
        .await;
        settle(&database, "2").await;
        run(
            &database,
            &["UPDATE doc SET big = repeat('s', 9000) WHERE id = 20", "UPDATE doc SET v = 51 WHERE id = 20"],
        )
        .await;
        settle(&database, "2").await;

        // A key column of another name for a while, and a column that is dropped and comes back with other values.
        run(
            &database,
            &[
                "ALTER TABLE doc RENAME id TO ident",
                "UPDATE doc SET big = repeat('t', 9000) WHERE ident = 20",
                "ALTER TABLE doc RENAME ident TO id",
                "UPDATE doc SET v = 52 WHERE id = 20",
                "ALTER TABLE doc DROP more",
                "ALTER TABLE doc ADD more text DEFAULT repeat('u', 20)",
                "UPDATE doc SET v = 53 WHERE id = 20",
                "DELETE FROM doc WHERE id = 20",
            ],
        )
        .await;
        settle(&database, "4").await;

        // What comes right after a rewrite is not certain yet.
        run(&database, &["TRUNCATE doc", "INSERT INTO doc VALUES (20, 0, repeat('v', 9000))"]).await;
        settle(&database, "4").await;
        run(
            &database,
            &["INSERT INTO doc VALUES (21, 0, repeat('v', 9000))", "UPDATE doc SET v = 2 WHERE id = 21"],
        )
        .await;
        settle(&database, "4").await;
        // Not chosen any more: nothing stays that could become wrong.
        daemon.terminate().await;
        let other = Daemon::of(&database).flag("--tables", "public.doc").start().await;
        run(&database, &["UPDATE doc SET v = 9 WHERE id = 21"]).await;
        settle(&database, "5").await;
        assert_eq!(database.scalar("SELECT count(*) FROM walcast.last_image").await.as_deref(), Some("0"));
        drop(other);
    })
    .await;
}

/// The slot was dropped, and a value was written that is in no stream: the image from before it is not the row any more,
/// although table and publication are the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_image_outlives_a_feed_that_is_started_over() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        create(&database).await;
        let daemon = Daemon::of(&database)
            .flag("--tables", "public.doc")
            .flag("--last-images", "public.doc")
            .flag("--on-hole", "start-over");
        let mut daemon = daemon.start().await;
        run(
            &database,
            &["INSERT INTO doc VALUES (2, 0, repeat('o', 9000))", "UPDATE doc SET v = 1 WHERE id = 2"],
        )
        .await;
        settle(&database, "0").await;
        assert_ne!(database.scalar(OLD).await.as_deref(), Some("0"), "the image is good");
        daemon.terminate().await;
        database.drop_slot(&database.slot_name()).await;
        run(&database, &["UPDATE doc SET big = repeat('n', 9000) WHERE id = 2", "TRUNCATE audit"]).await;
        daemon.restart().await;
        run(&database, &["UPDATE doc SET v = 2 WHERE id = 2"]).await;
        settle(&database, "1").await;
        // Known again once it was written.
        run(
            &database,
            &["UPDATE doc SET big = repeat('m', 9000) WHERE id = 2", "UPDATE doc SET v = 3 WHERE id = 2"],
        )
        .await;
        settle(&database, "1").await;
    })
    .await;
}
