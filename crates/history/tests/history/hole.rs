//! Changes that are missing for good, as who reads the slot has found.

use walcast_history::{Branch, BranchReason, FeedRecord, History, Hole, Line, schema};
use walcast_model::Lsn;
use walcast_postgres::{Pool, Session};
use walcast_testkit::{for_each_version, shared_cluster};

use crate::world::{START, World, connect, new_feed};

/// Where it was found.
const AT: Lsn = Lsn::new(START + 1000);
const WRITER: i64 = 7;

async fn keep(record: &FeedRecord, session: &Session, publication: &str) -> bool {
    record.keep_hole(session, WRITER, AT, publication, "it was missing").await.unwrap()
}

/// A feed that is claimed by [`WRITER`], and has a hole.
async fn with_hole(world: &World, session: &Session) -> FeedRecord {
    world.database.run(&format!("UPDATE walcast.feed SET writer = {WRITER}")).await;
    assert!(keep(&world.record().await, session, "walcast").await);
    world.record().await
}

#[tokio::test]
async fn it_is_kept_once_by_the_process_that_has_the_feed_and_goes_with_it() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let mut session = connect(&world.database).await;
        let unclaimed = world.record().await;
        assert!(!keep(&unclaimed, &session, "walcast").await, "somebody else has the feed");
        assert_eq!(world.record().await.hole, None);
        let record = with_hole(&world, &session).await;
        let hole = record.hole.clone().expect("a hole");
        let Hole { found_at, complete_to, publication, reason } = hole.clone();
        assert_eq!((complete_to, publication.as_str(), reason.as_str()), (AT, "walcast", "it was missing"));
        let said = format!("changes after {AT} are missing: it was missing; found at {found_at}");
        assert_eq!(hole.to_string(), said);
        // It is found again and again.
        assert!(keep(&record, &session, "walcast").await);
        assert_eq!(world.record().await.hole, Some(hole.clone()));
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(record.hole_with(&names(&["walcast", "walcast_inserts"])), Some(&hole));
        assert_eq!(record.hole_with(&names(&["other"])), None);
        // Of another one, which is read now.
        assert!(keep(&record, &session, "other").await);
        assert_eq!(world.record().await.hole.expect("a hole").publication, "other");
        let next = FeedRecord::create(&mut session, &new_feed()).await.unwrap();
        assert_eq!(next.hole, None);
        assert!(!keep(&record, &session, "walcast").await, "the feed is another one");
        assert_eq!(world.record().await.hole, None);
    })
    .await;
}

#[tokio::test]
async fn it_is_no_part_of_another_life_of_the_source_wherever_that_began() {
    let line = Line { timeline: 2, began: Some(AT), server_run: Some(8) };
    let branch = |at, reason| Branch { at, valid_to: at, line, reason };
    let (before, behind) = (Lsn::new(START), Lsn::new(AT.get() + 1));
    for (at, reason, is_there) in [
        (before, BranchReason::Promoted, false),
        // The change that is missing was written after this.
        (behind, BranchReason::Promoted, false),
        (behind, BranchReason::Differs, false),
        (Lsn::MAX, BranchReason::WentBack, false),
        // It may live the same life.
        (Lsn::MAX, BranchReason::Restarted, true),
    ] {
        let world = World::create(shared_cluster().await).await;
        let mut session = connect(&world.database).await;
        let record = with_hole(&world, &session).await;
        let (next, _) = record.branch(&mut session, branch(at, reason)).await.unwrap();
        assert_eq!(next.hole, record.hole.filter(|_| is_there), "{at} {reason:?}");
        assert_eq!(world.record().await, next);
    }
}

/// The daemon that has read the slot past it forgets it; not what was found meanwhile.
#[tokio::test]
async fn it_is_forgotten_when_the_slot_was_read_past_it_and_one_that_was_found_since_is_not() {
    let world = World::create(shared_cluster().await).await;
    let session = connect(&world.database).await;
    let mut record = with_hole(&world, &session).await;
    let hole = record.hole.clone().expect("a hole");
    let later = Lsn::new(AT.get() + 8);
    assert!(record.keep_hole(&session, WRITER, later, "walcast", "again").await.unwrap());
    record.forget_hole(&session, &hole).await.unwrap();
    let found = world.record().await.hole.expect("the later one");
    assert_eq!((found.complete_to, found.reason.as_str()), (later, "again"));
    record.forget_hole(&session, &found).await.unwrap();
    assert_eq!(record.hole, None);
    assert_eq!(world.record().await.hole, None);
}

/// `walcast status` shows a history that no walcast of this version has come to yet.
#[tokio::test]
async fn a_schema_without_it_can_be_inspected() {
    let world = World::create(shared_cluster().await).await;
    let record = world.record().await;
    let older = "DELETE FROM walcast.schema_version WHERE version >= 12; ALTER TABLE walcast.feed DROP COLUMN hole_at,
                 DROP COLUMN hole_lsn, DROP COLUMN hole_publication, DROP COLUMN hole_reason";
    world.database.run(older).await;
    let history = History::new(Pool::new(world.config.clone(), "test", 1));
    let inspection = history.inspect().await.unwrap();
    assert_eq!((inspection.schema_version, inspection.feed), (11, Some(record.clone())));
    assert_eq!(schema::apply(&mut connect(&world.database).await).await.unwrap(), [12]);
    assert_eq!(world.record().await, record);
}
