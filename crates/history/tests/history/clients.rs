//! What clients have acknowledged.

use std::time::Duration;

use tokio_postgres::types::ToSql;
use walcast_history::{Acknowledged, ClientKey, ClientLimits, ClientName, Clients, Error, FeedRecord};
use walcast_model::{Cursor, Lsn, Seq};
use walcast_postgres::{Pool, Session};
use walcast_testkit::{for_each_version, shared_cluster};

use crate::world::{World, fast};

fn key(user: &str, client_id: &str) -> ClientKey {
    let name = ClientName { user: user.into(), client_id: client_id.into() };
    ClientKey { name, subscription: "s".into() }
}

fn at(user: &str, client_id: &str, cursor: Cursor) -> Acknowledged {
    Acknowledged {
        key: key(user, client_id),
        cursor,
        tables: "public.t".into(),
        adds: cursor != Cursor::ZERO,
        rights: Some("some".into()),
    }
}

fn cursor(lsn: u64, seq: i64) -> Cursor {
    Cursor::new(Lsn::new(lsn), Seq::new(seq))
}

/// Of a feed that somebody has claimed.
async fn clients(world: &World, limits: ClientLimits) -> (FeedRecord, Clients) {
    let storing = world.store(fast()).await;
    storing.until_claimed().await;
    storing.stop().await.unwrap();
    let record = world.record().await;
    let pool = Pool::new(world.config.clone(), "test clients", 2);
    (record.clone(), Clients::new(pool, &record, record.writer, limits))
}

#[tokio::test]
async fn what_is_stored_is_read_again_and_0_0_takes_it_back() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let (record, clients) = clients(&world, ClientLimits::default()).await;
        let known = async |user, id| clients.position(&key(user, id)).await.unwrap();
        let position = async |user, id| known(user, id).await.map(|known| (known.feed, known.cursor));
        assert_eq!(position("ada", "a").await, None);
        let batch =
            [at("ada", "a", cursor(70, 3)), at("bob", "a", cursor(80, 0)), at("ada", "b", Cursor::ZERO)];
        assert_eq!(clients.store(&batch).await.unwrap(), [0; 0]);
        assert_eq!(position("ada", "a").await, Some((record.id.clone(), cursor(70, 3))));
        assert_eq!(position("bob", "a").await, Some((record.id.clone(), cursor(80, 0))));
        // Who begins elsewhere has acknowledged nothing under the rights of now.
        let moved = Acknowledged { adds: false, rights: None, ..at("ada", "a", cursor(60, 0)) };
        clients.store(&[moved]).await.unwrap();
        let moved = known("ada", "a").await.unwrap();
        assert_eq!((moved.cursor, moved.rights.as_deref()), (cursor(60, 0), Some("some")));
        clients.store(&[Acknowledged { rights: None, ..at("ada", "a", cursor(61, 0)) }]).await.unwrap();
        assert_eq!(known("ada", "a").await.unwrap().rights, None);
        // It had acknowledged nothing, which takes no place.
        let of_ada = clients.of_user("ada", 10).await.unwrap();
        assert_eq!(of_ada.iter().map(|known| &*known.key.name.client_id).collect::<Vec<_>>(), ["a"]);
        clients.store(&[at("ada", "a", Cursor::ZERO)]).await.unwrap();
        assert_eq!(position("ada", "a").await, Some((record.id.clone(), Cursor::ZERO)));
        assert_eq!(clients.of_user("ada", 10).await.unwrap()[0].cursor, Cursor::ZERO);
    })
    .await;
}

#[tokio::test]
async fn limits_refuse_those_who_are_new_and_nobody_else() {
    let world = World::create(shared_cluster().await).await;
    let limits = ClientLimits { clients_per_user_max: 1, clients_max: 4, ..ClientLimits::default() };
    let (_, clients) = clients(&world, limits).await;
    let batch = ["a", "b"].map(|id| at("ada", id, cursor(5, 0)));
    assert_eq!(clients.store(&batch).await.unwrap(), [1]);
    assert_eq!(clients.store(&[at("ada", "a", cursor(6, 0))]).await.unwrap(), [0; 0]);
    // Without authentication all are of one user.
    let batch = ["a", "b", "c", "d"].map(|id| at("", id, cursor(5, 0)));
    assert_eq!(clients.store(&batch).await.unwrap(), [3]);
}

#[tokio::test]
async fn a_process_that_was_replaced_stores_nothing() {
    let world = World::create(shared_cluster().await).await;
    let (record, clients) = clients(&world, ClientLimits::default()).await;
    world.database.run("UPDATE walcast.feed SET writer = writer + 1").await;
    let stored = clients.store(&[at("ada", "a", cursor(5, 0))]).await;
    assert!(matches!(stored, Err(Error::FeedGone { feed }) if feed == record.id));
    assert_eq!(clients.position(&key("ada", "a")).await.unwrap(), None);
}

#[tokio::test]
async fn a_batch_that_comes_late_changes_nothing_that_was_stored_instead() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let (record, clients) = clients(&world, ClientLimits::default()).await;
        let late = async |batch: i64, client_id: &str| {
            let sql = "SELECT walcast.acknowledge($1, $2, $3, 9, 9, 60, '{ada}', ARRAY[$4::text], '{s}', '{0/FF}', \
                                                  '{0}', '{t}', '{true}', '{x}')";
            let parameters: [&(dyn ToSql + Sync); 4] =
                [&record.id.as_str(), &record.writer, &batch, &client_id];
            let session = Session::connect(&world.config, "test late").await.unwrap();
            let outcome = session.query(sql, &parameters).await;
            outcome.map(drop).map_err(|error| error.code().unwrap().code().to_owned())
        };
        clients.store(&[at("ada", "a", cursor(5, 0))]).await.unwrap();
        clients.store(&[at("ada", "a", cursor(6, 0))]).await.unwrap();
        let position = async |id: &str| clients.position(&key("ada", id)).await.unwrap().map(|known| known.cursor);
        // Neither who is known goes elsewhere, nor becomes known who has taken back what nobody had heard of.
        for id in ["a", "b"] {
            for batch in [1, 2] {
                assert_eq!(late(batch, id).await, Err("WC003".to_owned()), "{id} {batch}");
            }
        }
        assert_eq!((position("a").await, position("b").await), (Some(cursor(6, 0)), None));
        // It would have been stored, had nothing been since.
        assert_eq!(late(3, "a").await, Ok(()));
        assert_eq!(position("a").await, Some(cursor(0xff, 0)));
        // Another process begins to count anew.
        let (_, next) = self::clients(&world, ClientLimits::default()).await;
        next.store(&[at("ada", "a", cursor(7, 0))]).await.unwrap();
        assert_eq!(position("a").await, Some(cursor(7, 0)));
        assert_eq!(late(4, "a").await, Err("WC001".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn a_subscription_that_a_kept_client_no_longer_has_is_forgotten() {
    let world = World::create(shared_cluster().await).await;
    let keep_clients = vec!["ada/kept".parse().unwrap()];
    let limits =
        ClientLimits { client_expiry: Duration::from_secs(60), keep_clients, ..ClientLimits::default() };
    let (_, clients) = clients(&world, limits).await;
    let of = |subscription: &str| ClientKey { subscription: subscription.into(), ..key("ada", "kept") };
    let batch = ["s", "former"]
        .map(|subscription| Acknowledged { key: of(subscription), ..at("ada", "kept", cursor(5, 0)) });
    clients.store(&batch).await.unwrap();
    let later = "UPDATE walcast.client SET seen_at = seen_at - interval '2 minutes', came_at = came_at - interval '2 minutes'";
    // Away as a whole.
    world.database.run(later).await;
    assert_eq!(clients.expire().await.unwrap(), 0);
    // Just back with one of the two: the other one may follow.
    clients.seen(&[of("s")]).await.unwrap();
    assert_eq!(clients.expire().await.unwrap(), 0);
    // It does, and is away again.
    clients.store(&batch[1..]).await.unwrap();
    world.database.run(&format!("{later} WHERE subscription = 'former'")).await;
    assert_eq!(clients.expire().await.unwrap(), 0);
    // Two minutes later the client is still there without it.
    world.database.run(later).await;
    world
        .database
        .run("UPDATE walcast.client SET seen_at = clock_timestamp() WHERE subscription = 's'")
        .await;
    clients.seen(&[of("s")]).await.unwrap();
    assert_eq!(clients.expire().await.unwrap(), 1);
    let of_ada = clients.of_user("ada", 10).await.unwrap();
    assert_eq!(of_ada.iter().map(|known| &*known.key.subscription).collect::<Vec<_>>(), ["s"]);
}

#[tokio::test]
async fn who_was_not_seen_for_long_is_forgotten_unless_it_is_kept() {
    let world = World::create(shared_cluster().await).await;
    let keep_clients = vec!["ada/kept".parse().unwrap()];
    let limits =
        ClientLimits { client_expiry: Duration::from_secs(60), keep_clients, ..ClientLimits::default() };
    let (_, clients) = clients(&world, limits).await;
    let batch = ["kept", "gone", "here"].map(|id| at("ada", id, cursor(5, 0)));
    clients.store(&batch).await.unwrap();
    // Named with its user: another one's is another client.
    clients.store(&[at("bob", "kept", cursor(5, 0))]).await.unwrap();
    assert_eq!(clients.expire().await.unwrap(), 0);
    world.database.run("UPDATE walcast.client SET seen_at = seen_at - interval '2 minutes'").await;
    clients.seen(&[key("ada", "here")]).await.unwrap();
    assert_eq!(clients.expire().await.unwrap(), 2);
    let of_ada = clients.of_user("ada", 10).await.unwrap();
    assert_eq!(of_ada.iter().map(|known| &*known.key.name.client_id).collect::<Vec<_>>(), ["here", "kept"]);
}
