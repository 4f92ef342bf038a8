use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use walcast_feed::Outages;
use walcast_history::{ClientKey, ClientName};
use walcast_model::Cursor;

use super::{Acks, Outcome, Position};
use crate::refusal::Refusal;
use crate::testing::{FakeClients, at};

fn key(user: &str, client_id: &str) -> ClientKey {
    let name = ClientName { user: user.to_owned(), client_id: client_id.to_owned() };
    ClientKey { name, subscription: "s".to_owned() }
}

fn here(cursor: Cursor, rights: Option<&str>) -> Position {
    Position { feed: None, cursor, rights: rights.map(Arc::from) }
}

fn acks() -> (Arc<FakeClients>, Acks, CancellationToken) {
    let store = Arc::new(FakeClients::default());
    let acks = Acks::new(store.clone(), Duration::from_secs(1), Outages::default());
    let cancel = CancellationToken::new();
    tokio::spawn({
        let (acks, cancel) = (acks.clone(), cancel.clone());
        async move { acks.run(cancel).await }
    });
    (store, acks, cancel)
}

#[tokio::test(start_paused = true)]
async fn what_comes_within_an_interval_is_stored_once_and_confirmed_when_it_is() {
    let (store, acks, _cancel) = acks();
    let claim = acks.claim(key("", "a"), String::new());
    let mut outcome = claim.watch();
    for position in 1..=50 {
        claim.acknowledge(at(position), None).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    outcome.wait_for(|outcome| *outcome == Outcome::Durable(at(50))).await.unwrap();
    assert_eq!(store.get(&claim.key), Some(at(50)));
    assert!(store.writes() <= 7, "{} writes in 5 s", store.writes());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_confirmed_while_history_is_away_and_nothing_is_lost() {
    let (store, acks, _cancel) = acks();
    store.go_away(true);
    let claim = acks.claim(key("", "a"), String::new());
    let mut outcome = claim.watch();
    claim.acknowledge(at(1), None).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    claim.acknowledge(at(2), None).unwrap();
    assert_eq!(*outcome.borrow_and_update(), Outcome::Nothing);
    // Its client has gone meanwhile, and comes back.
    drop(claim);
    let claim = acks.claim(key("", "a"), String::new());
    assert_eq!(claim.position().await.unwrap(), Some(here(at(2), None)));
    store.go_away(false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(store.get(&claim.key), Some(at(2)));
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_stored_when_the_daemon_goes_down() {
    let (store, acks, cancel) = acks();
    let (one, two) = (acks.claim(key("", "a"), String::new()), acks.claim(key("", "b"), String::new()));
    one.acknowledge(at(1), None).unwrap();
    one.watch().wait_for(|outcome| *outcome != Outcome::Nothing).await.unwrap();
    two.acknowledge(at(2), None).unwrap();
    cancel.cancel();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(store.get(&two.key), Some(at(2)));
}

#[tokio::test(start_paused = true)]
async fn whoever_came_last_under_a_name_has_it() {
    let (store, acks, _cancel) = acks();
    let first = acks.claim(key("ada", "a"), String::new());
    let second = acks.claim(key("ada", "a"), String::new());
    let other = acks.claim(key("bob", "a"), String::new());
    assert!(first.acknowledge(at(9), None).is_err());
    drop(first);
    second.acknowledge(at(1), None).unwrap();
    other.acknowledge(at(5), None).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((store.get(&second.key), store.get(&other.key)), (Some(at(1)), Some(at(5))));
}

#[tokio::test(start_paused = true)]
async fn an_initial_sync_takes_back_what_was_acknowledged_before_it_begins() {
    let (store, acks, _cancel) = acks();
    let claim = acks.claim(key("", "a"), String::new());
    for _ in 0..2 {
        claim.acknowledge(at(7), None).unwrap();
        claim.watch().wait_for(|outcome| *outcome == Outcome::Durable(at(7))).await.unwrap();
        claim.forget().await.unwrap();
        assert_eq!(store.get(&claim.key), Some(Cursor::ZERO));
        assert_eq!(claim.position().await.unwrap(), None);
    }
    // Of one that is not the last under its name nothing is taken back.
    let newer = acks.claim(key("", "a"), String::new());
    newer.acknowledge(at(8), None).unwrap();
    assert!(claim.forget().await.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(store.get(&newer.key), Some(at(8)));
}

#[tokio::test(start_paused = true)]
async fn nothing_counts_as_taken_back_while_something_newer_may_be_durable() {
    let (store, acks, _cancel) = acks();
    let claim = acks.claim(key("", "a"), String::new());
    claim.acknowledge(at(1), None).unwrap();
    claim.watch().wait_for(|outcome| *outcome == Outcome::Durable(at(1))).await.unwrap();
    claim.forget().await.unwrap();
    // It is stored, and nobody hears of it.
    store.hang(true);
    claim.acknowledge(at(5), None).unwrap();
    while store.get(&claim.key) != Some(at(5)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut forget = pin!(claim.forget());
    assert!(timeout(Duration::from_secs(60), &mut forget).await.is_err());
    store.hang(false);
    forget.await.unwrap();
    assert_eq!(store.get(&claim.key), Some(Cursor::ZERO));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_no_answer_to_what_came_after_it() {
    let acks = Acks::new(Arc::new(FakeClients::default()), Duration::ZERO, Outages::default());
    let claim = acks.claim(key("", "a"), String::new());
    claim.acknowledge(at(6), None).unwrap();
    let taken = acks.desk().take(1);
    let mut forget = pin!(claim.forget());
    assert!(forget.as_mut().now_or_never().is_none());
    acks.desk().settle(&taken[0], Outcome::Refused(Refusal::bad("too many")));
    assert!(forget.as_mut().now_or_never().is_none());
    acks.flush().await.unwrap();
    forget.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn where_a_client_begins_corrects_what_it_acknowledged_and_is_not_confirmed() {
    let (store, acks, _cancel) = acks();
    let claim = acks.claim(key("", "a"), String::new());
    claim.correct(at(5)).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((store.get(&claim.key), claim.watch().borrow().clone()), (None, Outcome::Nothing));
    claim.acknowledge(at(9), None).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let claim = acks.claim(key("", "a"), String::new());
    claim.correct(at(5)).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((store.get(&claim.key), claim.watch().borrow().clone()), (Some(at(5)), Outcome::Nothing));
}

#[tokio::test]
async fn where_a_client_began_is_no_position_unless_it_is_known() {
    let store = Arc::new(FakeClients::default());
    let acks = Acks::new(store.clone(), Duration::ZERO, Outages::default());
    let claim = acks.claim(key("", "a"), String::new());
    claim.correct(at(5)).unwrap();
    assert_eq!(claim.position().await.unwrap(), None);
    // Also while that is on its way.
    acks.desk().take(1);
    assert_eq!(claim.position().await.unwrap(), None);
    claim.acknowledge(at(9), None).unwrap();
    assert_eq!(claim.position().await.unwrap(), Some(here(at(9), None)));
    acks.flush().await.unwrap();
    claim.correct(at(5)).unwrap();
    assert_eq!(claim.position().await.unwrap(), Some(here(at(5), None)));
    store.go_away(true);
    assert!(claim.position().await.is_err(), "not known now");
    store.go_away(false);
    // What was taken back is no position, but its client is known.
    claim.correct(Cursor::ZERO).unwrap();
    assert_eq!(claim.position().await.unwrap(), None);
    acks.flush().await.unwrap();
    assert_eq!(claim.position().await.unwrap(), None);
    claim.correct(at(5)).unwrap();
    assert_eq!(claim.position().await.unwrap(), Some(here(at(5), None)));
}

#[tokio::test]
async fn where_a_client_began_was_acknowledged_under_no_other_rights() {
    let store = Arc::new(FakeClients::default());
    let acks = Acks::new(store.clone(), Duration::ZERO, Outages::default());
    let claim = acks.claim(key("ada", "a"), String::new());
    let position = async || claim.position().await.unwrap().unwrap();
    let acknowledge = |cursor, rights: &str| claim.acknowledge(cursor, Some(rights.into())).unwrap();
    acknowledge(at(5), "one");
    assert_eq!(position().await, here(at(5), Some("one")));
    acks.flush().await.unwrap();
    // Before what was acknowledged is stored, while it is being stored, and after it was.
    acknowledge(at(6), "two");
    claim.correct(at(7)).unwrap();
    assert_eq!(position().await, here(at(7), Some("two")));
    acknowledge(at(8), "three");
    acks.desk().take(1);
    claim.correct(at(9)).unwrap();
    assert_eq!(position().await, here(at(9), Some("three")));
    acks.flush().await.unwrap();
    claim.correct(at(10)).unwrap();
    assert_eq!(position().await, here(at(10), Some("three")));
    acks.flush().await.unwrap();
    assert_eq!((position().await.cursor, position().await.rights.as_deref()), (at(10), Some("three")));
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_stored_keeps_nobody_else_waiting() {
    let (store, acks, _cancel) = acks();
    let claims: Vec<_> =
        ["a", "poison", "b"].map(|name| acks.claim(key("", name), String::new())).into_iter().collect();
    for claim in &claims {
        claim.acknowledge(at(3), None).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        claims.iter().map(|claim| store.get(&claim.key)).collect::<Vec<_>>(),
        [Some(at(3)), None, Some(at(3))]
    );
    assert!(matches!(*claims[1].watch().borrow(), Outcome::Refused(_)));
}
