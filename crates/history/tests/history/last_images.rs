//! `walcast.last_image` is what the marks of the stored changes come to, exactly as of the position.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walcast_feed::{Feed, FeedLimits};
use walcast_history::{
    Appender, Branch, BranchReason, Error, FeedRecord, ImageReader, ImagedTables, Line, WantedImage,
};
use walcast_model::last_image::{ImageEffect, ImageMark, Storage, StorageId};
use walcast_model::{
    CommitEnd, CommitStart, Cursor, Lsn, Oid, Op, Part, PartBuilder, Relation, Seq, Timestamp, Transaction,
    Xid,
};
use walcast_postgres::Pool;
use walcast_testkit::{LIMIT, for_each_version, shared_cluster, within};

use crate::transactions::relation;
use crate::world::{START, World, connect, fast, new_feed};

/// One change: what it does, the key before, the row after, its mark.
struct Told {
    op: Op,
    relation: Arc<Relation>,
    key: Option<&'static str>,
    row: Option<&'static str>,
    mark: Option<(i64, ImageEffect)>,
}

fn told(op: Op, key: &'static str, row: &'static str, mark: Option<(i64, ImageEffect)>) -> Told {
    let some = |text: &'static str| (!text.is_empty()).then_some(text);
    Told { op, relation: relation(1), key: some(key), row: some(row), mark }
}

fn transaction(number: u64, changes: &[Told]) -> Part {
    let start = START + number * 100;
    let transaction = Transaction {
        start: CommitStart::new(Lsn::new(start)),
        xid: Xid::new(number),
        committed_at: Timestamp::default(),
    };
    let mut part = PartBuilder::new(Arc::new(transaction), Seq::FIRST);
    for told in changes {
        let put = |text: &'static str| {
            move |out: &mut Vec<u8>| -> Result<(), Infallible> {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }
        };
        let mut change = part.change(told.op, &told.relation);
        if let Some(key) = told.key {
            change.key(put(key)).unwrap();
        }
        if let Some(row) = told.row {
            change.row(put(row)).unwrap();
        }
        if let Some((storage, effect)) = told.mark {
            let storage = Storage { id: StorageId::new(storage), since: Lsn::new(7) };
            change.image(ImageMark { storage: Arc::new(storage), effect });
        }
        change.finish().unwrap();
    }
    part.finish(Some(CommitEnd::new(Lsn::new(start + 50))))
}

async fn store(world: &World, parts: Vec<Part>, tables: ImagedTables) -> Result<(), Error> {
    let record = world.record().await;
    let (mut writer, feed) = Feed::new(record.position, FeedLimits::default());
    let (acknowledge, _) = watch::channel(Lsn::ZERO);
    let appender = Appender::new(world.config.clone(), record, feed, fast(), acknowledge).with_images(tables);
    writer.push(parts).await;
    let cancel = CancellationToken::new();
    let run = tokio::spawn(appender.run(std::future::ready(()), cancel.clone()));
    writer.until_stored(writer.head()).await;
    cancel.cancel();
    within("the appender stops", LIMIT, run).await.unwrap()
}

fn all() -> ImagedTables {
    ImagedTables::new(|_| true)
}

/// The images of keys 1 to 4, under this storage.
async fn images(world: &World, storage: i64) -> Vec<Option<String>> {
    let reader = ImageReader::new(Pool::new(world.config.clone(), "test", 1));
    let wanted = |id: u32| WantedImage {
        relation: relation(1).oid(),
        digest: relation(1).digest(),
        storage: StorageId::new(storage),
        key: Bytes::from(format!("{{\"id\":{id}}}")),
    };
    let wanted: Vec<WantedImage> = (1..=4).map(wanted).collect();
    let (position, images) = reader.find(&wanted, Cursor::ZERO).await.unwrap();
    assert_eq!(position, world.record().await.position);
    images.into_iter().map(|image| image.map(|image| String::from_utf8(image.to_vec()).unwrap())).collect()
}

use ImageEffect::{Clear, Forget, Keep};

#[tokio::test]
async fn images_are_what_the_stored_changes_come_to() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let keep = Some((1, Keep));
        let one = transaction(
            1,
            &[
                told(Op::Insert, r#"{"id":1}"#, r#"{"id":1,"ü":"a"}"#, keep),
                told(Op::Insert, r#"{"id":2}"#, r#"{"id":2,"ü":"b"}"#, keep),
                told(Op::Update, r#"{"id":2}"#, r#"{"id":3,"ü":"b"}"#, keep),
                told(Op::Insert, r#"{"id":4}"#, r#"{"id":4,"ü":"d"}"#, keep),
            ],
        );
        store(&world, vec![one], all()).await.unwrap();
        let text = |text: &str| Some(text.to_owned());
        let (a, b, d) =
            (text(r#"{"id":1,"ü":"a"}"#), text(r#"{"id":3,"ü":"b"}"#), text(r#"{"id":4,"ü":"d"}"#));
        assert_eq!(images(&world, 1).await, [a.clone(), None, b.clone(), d]);
        // Of another storage there is none.
        assert_eq!(images(&world, 2).await, [None, None, None, None]);
        let reader = ImageReader::new(Pool::new(world.config.clone(), "test", 1));
        let stored = async |oid| reader.stored(oid, Cursor::ZERO).await.unwrap();
        let storage = Storage { id: StorageId::new(1), since: Lsn::new(7) };
        assert_eq!((stored(relation(1).oid()).await, stored(Oid::new(9)).await), (Some(storage), None));

        // In another process: one row is deleted, another is not whole.
        let two = transaction(
            2,
            &[
                told(Op::Delete, r#"{"id":4}"#, "", Some((1, Forget))),
                told(Op::Update, r#"{"id":3}"#, r#"{"id":3}"#, Some((1, Forget))),
            ],
        );
        store(&world, vec![two], all()).await.unwrap();
        assert_eq!(images(&world, 1).await, [a, None, None, None]);

        // Another storage: what was there goes, whichever rows change.
        let three =
            transaction(3, &[told(Op::Insert, r#"{"id":2}"#, r#"{"id":2,"ü":"c"}"#, Some((2, Keep)))]);
        let four = transaction(
            4,
            &[
                told(Op::Truncate, "", "", Some((2, Clear))),
                told(Op::Insert, r#"{"id":4}"#, r#"{"id":4,"ü":"e"}"#, Some((2, Keep))),
            ],
        );
        store(&world, vec![three], all()).await.unwrap();
        assert_eq!(images(&world, 1).await, [None, None, None, None]);
        assert_eq!(images(&world, 2).await, [None, text(r#"{"id":2,"ü":"c"}"#), None, None]);
        store(&world, vec![four], all()).await.unwrap();
        assert_eq!(images(&world, 2).await, [None, None, None, text(r#"{"id":4,"ü":"e"}"#)]);

        // A change without a mark removes all.
        let five = transaction(5, &[told(Op::Delete, r#"{"id":9}"#, "", None)]);
        store(&world, vec![five], all()).await.unwrap();
        assert_eq!(
            world.database.scalar("SELECT count(*) FROM walcast.last_image").await.as_deref(),
            Some("0")
        );
    })
    .await;
}

/// A pool may hold a session to the primary before a failover: that is not asked a second time.
#[tokio::test]
async fn a_history_that_is_older_than_what_was_stored_is_refused_with_its_session() {
    let world = World::create(shared_cluster().await).await;
    let row = told(Op::Insert, r#"{"id":1}"#, r#"{"id":1,"ü":"a"}"#, Some((1, Keep)));
    store(&world, vec![transaction(1, &[row])], all()).await.unwrap();
    let reader = ImageReader::new(Pool::new(world.config.clone(), "old images", 1));
    let here = world.record().await.position;
    let later = Cursor::new(here.lsn(), here.seq().plus(1));
    let session = "SELECT min(pid)::text FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'old images'";
    let oid = relation(1).oid();
    let wanted = WantedImage {
        relation: oid,
        digest: relation(1).digest(),
        storage: StorageId::new(1),
        key: Bytes::from_static(b"{\"id\":1}"),
    };
    reader.stored(oid, here).await.unwrap();
    for refused in [
        reader.find(std::slice::from_ref(&wanted), later).await.map(|_| ()).unwrap_err(),
        reader.stored(oid, later).await.map(|_| ()).unwrap_err(),
    ] {
        assert!(refused.to_string().contains("older copy"), "{refused}");
    }
    world.database.until(&format!("SELECT ({session}) IS NULL"), "t").await;
    assert!(reader.find(&[wanted], here).await.unwrap().1[0].is_some());
}

#[tokio::test]
async fn a_process_that_does_not_keep_images_drops_them_before_it_stores() {
    let world = World::create(shared_cluster().await).await;
    let row = told(Op::Insert, r#"{"id":1}"#, r#"{"id":1,"ü":"a"}"#, Some((1, Keep)));
    store(&world, vec![transaction(1, &[row])], all()).await.unwrap();
    assert!(images(&world, 1).await[0].is_some());
    store(&world, vec![transaction(2, &[told(Op::Truncate, "", "", None)])], ImagedTables::default())
        .await
        .unwrap();
    assert_eq!(images(&world, 1).await, [None, None, None, None]);
}

#[tokio::test]
async fn none_is_left_where_history_does_not_go_on_as_it_stood() {
    let left =
        "SELECT (SELECT count(*) FROM walcast.last_image) + (SELECT count(*) FROM walcast.imaged_table)";
    for what in ["started over", "branched", "given up"] {
        let world = World::create(shared_cluster().await).await;
        let row = told(Op::Insert, r#"{"id":1}"#, r#"{"id":1,"ü":"a"}"#, Some((1, Keep)));
        store(&world, vec![transaction(1, &[row])], all()).await.unwrap();
        assert!(images(&world, 1).await[0].is_some());
        let (mut record, mut session) = (world.record().await, connect(&world.database).await);
        match what {
            "started over" => drop(FeedRecord::create(&mut session, &new_feed()).await.unwrap()),
            "branched" => {
                let line = Line { timeline: 2, began: None, server_run: None };
                let branch =
                    Branch { at: Lsn::MAX, valid_to: Lsn::MAX, line, reason: BranchReason::Restarted };
                drop(record.branch(&mut session, branch).await.unwrap());
            }
            _ => {
                world.database.run("DELETE FROM walcast.change_history").await;
                record.forget_past(&mut session).await.unwrap();
            }
        }
        assert_eq!(world.database.scalar(left).await.as_deref(), Some("0"), "{what}");
    }
}
