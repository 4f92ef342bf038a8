//! Reading on from any cursor, in pages of any size.

use walcast_history::{Error, PageLimits};
use walcast_model::{Cursor, Lsn, Part, Seq};
use walcast_testkit::{for_each_version, shared_cluster};

use crate::transactions::{Flat, Source, flatten};
use crate::world::{START, World};

fn rest(all: &[Flat], from: Cursor) -> Vec<Flat> {
    all.iter().filter(|change| change.cursor >= from).cloned().collect()
}

fn flatten_pages(pages: &[walcast_history::Page]) -> Vec<Flat> {
    flatten(pages.iter().flat_map(|page| &page.parts))
}

#[tokio::test]
async fn every_cursor_gives_exactly_the_rest() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let parts = Source::new(21, START, 300).transactions(40, 8, 30);
        world.store_all(&parts).await;
        let all = flatten(&parts);
        let mut cursors: Vec<Cursor> = all.iter().map(|change| change.cursor).collect();
        cursors.extend(parts.iter().map(Part::next_cursor));
        // Positions between transactions, and those that no change has.
        cursors.extend(all.iter().map(|change| Cursor::from(Lsn::new(change.cursor.lsn().get() + 1))));
        cursors.push(Cursor::ZERO);
        let limits = PageLimits { changes_max: 50, ..PageLimits::default() };
        for from in cursors {
            let pages = world.read_all(from, limits).await;
            assert_eq!(flatten_pages(&pages), rest(&all, from), "from {from}");
        }
    })
    .await;
}

#[tokio::test]
async fn pages_of_every_size_give_the_same() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let parts = Source::new(22, START, 300).transactions(15, 12, 30);
        world.store_all(&parts).await;
        let all = flatten(&parts);
        for changes_max in 1..=all.len() + 1 {
            let limits = PageLimits { changes_max, ..PageLimits::default() };
            let pages = world.read_all(Lsn::new(START).into(), limits).await;
            assert_eq!(flatten_pages(&pages), all, "{changes_max} changes a page");
            assert!(pages.iter().all(|page| flatten(&page.parts).len() <= changes_max));
        }
        for bytes_max in [0, 1, 64, 65, 100, 128, 200, 333, 500, 1000, 5000, 1 << 20] {
            let limits = PageLimits { bytes_max, part_bytes_max: bytes_max, ..PageLimits::default() };
            let pages = world.read_all(Lsn::new(START).into(), limits).await;
            assert_eq!(flatten_pages(&pages), all, "{bytes_max} bytes a page");
            let bytes =
                |change: &Flat| 64 + change.pieces.iter().take(3).flatten().map(String::len).sum::<usize>();
            for page in &pages {
                let sizes: Vec<usize> = flatten(&page.parts).iter().map(bytes).collect();
                let but_one: usize = sizes.iter().rev().skip(1).sum();
                assert!(sizes.len() <= 1 || but_one < bytes_max.max(1), "{sizes:?} in {bytes_max}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_read_ends_where_it_was_told_to() {
    let world = World::create(shared_cluster().await).await;
    let parts = Source::new(23, START, 300).transactions(10, 6, 30);
    world.store_all(&parts).await;
    let all = flatten(&parts);
    for change in &all {
        let to = change.cursor;
        let pages = world.read_until(Lsn::new(START).into(), to, PageLimits::default()).await;
        let expected: Vec<Flat> = all.iter().filter(|change| change.cursor < to).cloned().collect();
        assert_eq!(flatten_pages(&pages), expected, "to {to}");
    }
    let page = world.reader.read(all[3].cursor, all[2].cursor, PageLimits::default()).await.unwrap();
    assert!(page.parts.is_empty() && page.next == all[2].cursor);
}

#[tokio::test]
async fn a_missing_change_is_an_error_and_never_skipped() {
    let world = World::create(shared_cluster().await).await;
    let mut source = Source::new(24, START, 100_000);
    let parts = [source.transaction(5, 10), source.transaction(5, 10)].concat();
    world.store_all(&parts).await;
    let start = parts[0].transaction().start.lsn();
    let to = parts[1].next_cursor();
    for seq in 0..5 {
        let holes = world.database.session().await;
        holes.batch_execute("CREATE TABLE IF NOT EXISTS kept (LIKE walcast.change_history)").await.unwrap();
        let take = format!(
            "WITH gone AS (DELETE FROM walcast.change_history WHERE lsn = '{start}' AND seq = {seq} RETURNING *) \
             INSERT INTO kept SELECT * FROM gone"
        );
        holes.batch_execute(&take).await.unwrap();
        let error = world.reader.read(Lsn::new(START).into(), to, PageLimits::default()).await.unwrap_err();
        // Without its first change, a transaction that should begin at 0 does not.
        let at = if seq == 0 { Lsn::new(START).into() } else { Cursor::new(start, Seq::new(seq)) };
        assert!(matches!(error, Error::Hole { at: found } if found == at), "{seq}: {error}");
        holes
            .batch_execute("INSERT INTO walcast.change_history SELECT * FROM kept; DELETE FROM kept")
            .await
            .unwrap();
    }
    assert_eq!(flatten(&world.stored_parts().await), flatten(&parts));
}

/// Without statistics the planner would rather sort everything that follows than walk the key.
#[tokio::test]
async fn a_page_reads_no_more_than_itself() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let session = world.database.session().await;
        session
            .batch_execute(
                "SELECT walcast.ensure_partition(lsn, 4096) FROM unnest('{0/0,0/1000,0/2000,0/3000}'::pg_lsn[]) AS lsn;
                 INSERT INTO walcast.change_history (lsn, seq, xid, committed_at, relation, op, schema_name, table_name)
                 SELECT '0/0'::pg_lsn + g / 5, g % 5, g, now(), 1, 'truncate', 's', 't' FROM generate_series(0, 81919) AS g",
            )
            .await
            .unwrap();
        let read = "SELECT coalesce(sum(pg_stat_get_xact_tuples_returned(i.indexrelid)), 0)
                      + coalesce(sum(pg_stat_get_xact_tuples_returned(i.indrelid)), 0)
                    FROM pg_index AS i JOIN walcast.partition AS p ON p.oid = i.indrelid";
        for (from, to, expected) in [("0/0", "0/4000", 21), ("0/1FFE", "0/4000", 21), ("0/2100", "0/2101", 6)] {
            // In one transaction, because what was counted and not yet sent to the statistics is counted too.
            session.batch_execute("BEGIN").await.unwrap();
            let before: u64 = session.scalar(read).await.unwrap().parse().unwrap();
            let page = format!("SELECT count(*) FROM walcast.page('{from}', 0, '{to}', 0, 20, 1000000)");
            let count: u64 = session.scalar(&page).await.unwrap().parse().unwrap();
            let touched = session.scalar(read).await.unwrap().parse::<u64>().unwrap() - before;
            session.batch_execute("COMMIT").await.unwrap();
            assert!(count >= 5 && touched <= expected + 2, "{from}: {count} changes from {touched} entries");
        }
    })
    .await;
}
