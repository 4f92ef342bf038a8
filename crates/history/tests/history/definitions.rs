//! From where on no change came with some definitions: what a search that looks at every change finds.

use rand::Rng;
use walcast_history::{AppendLimits, Without};
use walcast_model::{Cursor, Lsn, Part, RelationDigest, Seq};
use walcast_testkit::{for_each_version, shared_cluster};

use crate::transactions::{Source, flatten, relation};
use crate::world::{START, World, fast};

/// After the last transaction that has one of these definitions at or after `from` and before `to`.
fn expected(parts: &[Part], definitions: &[RelationDigest], from: Cursor, to: Cursor) -> Cursor {
    let flat = flatten(parts);
    let is_one = |cursor: Cursor, digest| cursor >= from && cursor < to && definitions.contains(&digest);
    let last = flat.iter().rev().find(|change| is_one(change.cursor, change.relation.digest()));
    let Some(last) = last else { return from };
    let end =
        flat.iter().filter(|change| change.cursor.lsn() == last.cursor.lsn()).find_map(|change| change.end);
    end.map_or_else(|| Cursor::new(last.cursor.lsn(), last.cursor.seq().plus(1)), Cursor::after)
}

#[tokio::test]
async fn the_first_position_without_some_definitions_is_found_in_whatever_partition_they_came_last() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let mut source = Source::new(11, START, 4096);
        let mut parts = source.transactions(120, 6, 40);
        // One that is being stored: its end is not known yet.
        let mut open = source.transaction(40, 400);
        assert!(open.len() > 1, "it comes in parts");
        open.pop();
        parts.extend(open);
        let limits = AppendLimits { history_partition_wal_bytes: 4096, append_changes_max: 20, ..fast() };
        let mut storing = world.store(limits).await;
        storing.writer.push(parts.clone()).await;
        let end = parts.last().unwrap().next_cursor();
        storing.until_stored(end).await;
        let partitions = world.database.scalar("SELECT count(*) FROM walcast.partition").await.unwrap();
        assert!(partitions.parse::<u32>().unwrap() > 2, "{partitions}");
        let known = world.reader.definitions().await.unwrap();
        let of = |oid: u32| relation(oid).digest();
        assert_eq!(known.len(), 5);
        assert!((0..5).all(|oid| known.iter().any(|relation| relation.digest() == of(oid))));
        let cursors: Vec<Cursor> = flatten(&parts).iter().map(|change| change.cursor).chain([end]).collect();
        for round in 0..200 {
            let mut pick = || cursors[source.random.random_range(0..cursors.len())];
            let (from, to) = (pick(), if round % 2 == 0 { end } else { pick() });
            let bits: u32 = source.random.random_range(0..32);
            let mut definitions: Vec<RelationDigest> =
                (0..5).filter(|bit| bits >> bit & 1 == 1).map(of).collect();
            // One that the history never had.
            definitions.push(RelationDigest::new(7));
            let found = world.reader.first_without(&definitions, from, to).await.unwrap();
            let expected = if from < to { expected(&parts, &definitions, from, to) } else { from };
            assert_eq!(found, Without::From(expected), "{bits:b} from {from} to {to}");
        }
        // Partitions of before it was noted which definitions they have are searched as well.
        let forget = "UPDATE walcast.partition_record SET names_relations = false; DELETE FROM walcast.partition_relation";
        world.database.run(forget).await;
        let from = Cursor::new(Lsn::new(START), Seq::FIRST);
        let found = world.reader.first_without(&[of(3)], from, end).await.unwrap();
        assert_eq!(found, Without::From(expected(&parts, &[of(3)], from, end)));
        storing.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_takes_too_long_to_find_is_a_later_position_and_never_an_earlier_one() {
    let world = World::create(shared_cluster().await).await;
    let mut source = Source::new(12, START, 4096);
    let parts = source.transactions(20, 3, 40);
    world.store_all(&parts).await;
    let end = parts.last().unwrap().next_cursor();
    let from = Cursor::from(Lsn::new(START));
    let before = world.reader.first_without(&[relation(1).digest()], from, end).await.unwrap();
    // Somebody is in the way, for longer than it is searched.
    let mut other = crate::world::connect(&world.database).await;
    let lock = other.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE walcast.change_history IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let found = world.reader.first_without(&[relation(1).digest()], from, end).await.unwrap();
    assert_eq!(found, Without::GivenUp(end));
    assert!(before.cursor() <= end);
    lock.rollback().await.unwrap();
    // And the session is good for others.
    assert_eq!(world.reader.first_without(&[relation(1).digest()], from, end).await.unwrap(), before);
}
