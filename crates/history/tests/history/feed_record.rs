//! The record of the feed.

use walcast_history::{Error, FeedRecord, Line, NewFeed, PageLimits};
use walcast_model::Lsn;
use walcast_testkit::shared_cluster;

use crate::transactions::Source;
use crate::world::{START, World, connect, new_feed};

#[tokio::test]
async fn it_says_what_it_was_made_from_and_hides_its_secret() {
    let world = World::create(shared_cluster().await).await;
    let record = world.record().await;
    let new = new_feed();
    assert_eq!(
        (&record.slot, &record.database, &record.system_identifier),
        (&new.slot, &new.database, &new.system_identifier)
    );
    assert_eq!(
        (record.line.timeline, record.position, record.oldest),
        (1, new.position.into(), new.position.into())
    );
    assert_eq!(record.secret.reveal().len(), 64);
    assert!(!format!("{record:?}").contains(record.secret.reveal()));
    let mut moved = record.clone();
    let line = Line { timeline: 2, began: Some(Lsn::new(7)), server_run: Some(8) };
    moved.adopt(&connect(&world.database).await, line).await.unwrap();
    assert_eq!(world.record().await, FeedRecord { line, ..record });
}

#[tokio::test]
async fn a_history_holds_one_feed_and_a_new_one_starts_it_over() {
    let world = World::create(shared_cluster().await).await;
    let before = world.record().await;
    world.store_all(&Source::new(1, START, 1000).transactions(5, 5, 50)).await;
    let mut session = connect(&world.database).await;
    let other = NewFeed { slot: "other".into(), ..new_feed() };
    assert!(
        matches!(FeedRecord::load(&session, "other").await, Err(Error::SlotDiffers { slot }) if slot == "walcast")
    );
    assert!(matches!(FeedRecord::create(&mut session, &other).await, Err(Error::SlotDiffers { .. })));
    let again = NewFeed { position: Lsn::new(5), ..new_feed() };
    let after = FeedRecord::create(&mut session, &again).await.unwrap();
    assert_ne!((&after.id, &after.secret), (&before.id, &before.secret));
    assert_eq!(
        world.database.scalar("SELECT count(*) FROM walcast.change_history").await.as_deref(),
        Some("0")
    );
    assert_eq!(after.oldest, Lsn::new(5).into());
    // Who reads the feed that was there before is not served what is of another one.
    world.store_all(&Source::new(2, 5, 1000).transactions(5, 5, 50)).await;
    assert!(matches!(world.reader.oldest().await, Err(Error::FeedGone { feed }) if feed == before.id));
    let end = world.record().await.position;
    let page = world.reader.read_kept(Lsn::new(5).into(), end, PageLimits::default()).await;
    assert!(matches!(page, Err(Error::FeedGone { .. })), "{page:?}");
    let page = world.reader.latest(Lsn::new(5).into(), end, PageLimits::default(), 1 << 20, |_| true).await;
    assert!(matches!(page, Err(Error::FeedGone { .. })), "{page:?}");
    let snapshot = "900:1000000:900".parse().unwrap();
    let first = world.reader.first_invisible(&snapshot, end).await;
    assert!(matches!(first, Err(Error::FeedGone { .. })), "{first:?}");
}

#[tokio::test]
async fn an_inspection_tells_size_and_ends() {
    let world = World::create(shared_cluster().await).await;
    let pool = walcast_postgres::Pool::new(world.config.clone(), "test", 1);
    let history = walcast_history::History::new(pool);
    let empty = history.inspect().await.unwrap();
    assert_eq!((empty.partitions, empty.oldest_change, empty.newest_change), (0, None, None));
    let parts = Source::new(1, START, 1000).transactions(5, 5, 50);
    world.store_all(&parts).await;
    let full = history.inspect().await.unwrap();
    let flat = crate::transactions::flatten(&parts);
    assert_eq!(full.oldest_change, flat.first().map(|change| change.cursor));
    assert_eq!(full.newest_change, flat.last().map(|change| change.cursor));
    assert_eq!((full.partitions, full.feed.unwrap().position), (1, parts.last().unwrap().next_cursor()));
    assert!(full.bytes > 8192);
}
