//! A feed that ends where its source's life branched, and the one that continues it.

use walcast_history::{Branch, BranchReason, Error, FeedRecord, Line};
use walcast_model::Lsn;
use walcast_testkit::shared_cluster;

use crate::transactions::{Source, flatten};
use crate::world::{START, World, connect};

const LINE: Line = Line { timeline: 2, began: Some(Lsn::new(7)), server_run: Some(8) };

#[tokio::test]
async fn a_branch_sets_aside_what_is_behind_it_and_narrows_what_came_before() {
    let world = World::create(shared_cluster().await).await;
    let parts = Source::new(1, START, 1000).transactions(20, 5, 50);
    world.store_all(&parts).await;
    let mut session = connect(&world.database).await;
    let first = world.record().await;
    let all = flatten(&parts);
    assert_eq!(first.last, all.last().map(|change| change.cursor));
    assert!(first.is_whole(&session).await.unwrap());

    let middle = parts[parts.len() / 2].transaction().start.lsn();
    let behind = all.iter().filter(|change| change.cursor.lsn() >= middle).count() as u64;
    let restarted = Branch { at: Lsn::MAX, valid_to: Lsn::MAX, line: LINE, reason: BranchReason::Restarted };
    let (second, lost) = first.branch(&mut session, restarted).await.unwrap();
    assert_eq!((second.position, lost), (first.position, 0));
    let promoted = Branch { at: middle, valid_to: middle, line: LINE, reason: BranchReason::Promoted };
    let (third, lost) = second.branch(&mut session, promoted).await.unwrap();
    assert_eq!((third.position, lost, third.line), (middle.into(), behind, LINE));
    assert_eq!(world.record().await.position, middle.into());
    assert!(world.record().await.is_whole(&session).await.unwrap());
    let kept = "SELECT count(*) FROM walcast.lost_change";
    assert_eq!(world.database.scalar(kept).await, Some(behind.to_string()));

    let mut ancestors = FeedRecord::ancestors(&session).await.unwrap();
    ancestors.sort_by_key(|ancestor| ancestor.feed == second.id);
    let found: Vec<_> = ancestors.into_iter().map(|ancestor| (ancestor.feed, ancestor.valid_to)).collect();
    assert_eq!(found, [(first.id.clone(), middle), (second.id.clone(), middle)]);
    FeedRecord::narrow(&session, Lsn::new(middle.get() - 1)).await.unwrap();
    let ancestors = FeedRecord::ancestors(&session).await.unwrap();
    assert!(ancestors.iter().all(|ancestor| ancestor.valid_to.get() == middle.get() - 1));

    // Who still stores the first one is told.
    let again = first.branch(&mut session, promoted).await;
    assert!(matches!(again, Err(Error::FeedGone { .. })), "{again:?}");
}

#[tokio::test]
async fn the_last_change_is_missed_when_it_was_deleted_and_the_past_is_then_given_up() {
    let world = World::create(shared_cluster().await).await;
    let parts = Source::new(1, START, 1000).transactions(5, 5, 50);
    world.store_all(&parts).await;
    let mut session = connect(&world.database).await;
    let mut record = world.record().await;
    let last = record.last.unwrap();
    world
        .database
        .run(&format!(
            "DELETE FROM walcast.change_history WHERE (lsn, seq) = ('{}', {})",
            last.lsn(),
            last.seq()
        ))
        .await;
    assert!(!record.is_whole(&session).await.unwrap());
    record.forget_past(&mut session).await.unwrap();
    // A cursor between the last transaction and an idle position lacks nothing.
    let oldest = Lsn::new(last.lsn().get() + 1).into();
    assert!(oldest < record.position);
    assert_eq!((record.oldest, world.record().await), (oldest, record.clone()));
    assert!(record.is_whole(&session).await.unwrap());
}

#[tokio::test]
async fn transactions_are_listed_once_each_and_the_last_ones_when_there_are_too_many() {
    let world = World::create(shared_cluster().await).await;
    let parts = Source::new(1, START, 1000).transactions(20, 5, 50);
    world.store_all(&parts).await;
    let mut session = connect(&world.database).await;
    let mut all: Vec<_> = parts.iter().map(|part| part.transaction().as_ref().clone()).collect();
    all.dedup();
    let mut record = world.record().await;
    let oldest = record.oldest.lsn();
    let found = record.transactions(&session, Lsn::ZERO, Lsn::MAX, 1000).await.unwrap();
    assert_eq!(found, (all.clone(), oldest));
    let last = record.transactions(&session, Lsn::ZERO, Lsn::MAX, 3).await.unwrap();
    assert_eq!(last.0, all[all.len() - 3..]);
    let one = all[4].start.lsn();
    let up_to = record.transactions(&session, one, all[6].start.lsn(), 1000).await.unwrap();
    assert_eq!(up_to.0, all[4..6]);
    // The rows that are left of what was given up, because the last one is gone, are not all that there was.
    let delete = format!("DELETE FROM walcast.change_history WHERE lsn = '{}'", all[19].start.lsn());
    world.database.run(&delete).await;
    record.forget_past(&mut session).await.unwrap();
    assert!(record.oldest > all[19].start.lsn().into());
    let given_up = record.transactions(&session, Lsn::ZERO, Lsn::MAX, 1000).await.unwrap();
    assert_eq!(given_up, (Vec::new(), record.oldest.lsn()));
}
