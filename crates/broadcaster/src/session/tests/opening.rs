//! From the request to the first message, or to the refusal.

use walcast_protocol::{ErrorCode, ServerMessage};

use super::super::Wait;
use crate::acks::Position;
use crate::gate::Gate;
use crate::limits::Limits;
use crate::testing::{Bench, Insert, at, part, table, words};

#[tokio::test]
async fn nothing_is_served_before_the_gate_is_open() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let world = std::sync::Arc::get_mut(&mut bench.world).unwrap();
    world.gate = Gate::closed();
    let mut session = bench.session(r#""tables":[{"table":"*"}],"cursor":"0/1""#).unwrap();
    let (messages, wait) = bench.take(&mut session);
    assert_eq!((words(&messages), wait), (vec!["waiting".to_owned()], Some(Wait::Gate)));
    assert_eq!(session.position(), None);
    assert_eq!(words(&bench.take(&mut session).0), [""; 0]);
    bench.world.gate.open();
    assert_eq!(words(&bench.take(&mut session).0), ["subscribed Live 0/1"]);
}

#[tokio::test]
async fn a_cursor_that_cannot_be_served_is_refused_with_the_reason() {
    let mut bench = Bench::new(1, Limits::default());
    bench.past.oldest = at(15);
    let a = table("a", &[]);
    let parts = [10, 20, 30].map(|start| part(start, 0, &[Insert(start, a.clone())], Some(start + 10)));
    bench.append(parts.to_vec(), 0).await;
    bench.route();
    let refused = |fields: &str| {
        let mut session = bench.session(&format!(r#""tables":[{{"table":"public.a"}}],{fields}"#)).unwrap();
        session.barrier(at(40));
        let (messages, wait) = bench.take(&mut session);
        let Some(ServerMessage::Error(error)) = messages.last() else { panic!("{messages:?} {wait:?}") };
        assert_eq!(wait, None);
        (error.code.clone(), error.oldest)
    };
    assert_eq!(refused(r#""cursor":"0/E""#), (ErrorCode::CursorTooOld, Some(at(15))));
    assert_eq!(refused(r#""cursor":"0/29""#), (ErrorCode::CursorAhead, None));
    let other = bench.session(r#""tables":[{"table":"*"}],"cursor":"0/F","feed":"f_2""#).unwrap_err();
    assert_eq!(other.code, ErrorCode::FeedChanged);
    let mut unknown = bench.session(r#""tables":[{"table":"public.zz"}],"cursor":"0/F""#).unwrap();
    assert_eq!(words(&bench.take(&mut unknown).0), ["error unknown_table"]);
    let mut column =
        bench.session(r#""tables":[{"table":"public.a","columns":["q"]}],"cursor":"0/F""#).unwrap();
    assert_eq!(words(&bench.take(&mut column).0), ["error bad_message"]);
    let mut served = bench.session(r#""tables":[{"table":"public.a"}],"cursor":"0/F""#).unwrap();
    assert_eq!(words(&bench.take(&mut served).0)[0], "subscribed Catchup 0/F");
}

#[tokio::test]
async fn a_client_that_knows_more_than_a_daemon_that_has_just_started_waits_for_it() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let a = table("a", &[]);
    let mut session = bench.session(r#""tables":[{"table":"*"}],"cursor":"0/1E""#).unwrap();
    let (messages, wait) = bench.take(&mut session);
    assert_eq!((words(&messages), wait), (vec!["waiting".to_owned()], Some(Wait::Head(at(30)))));
    bench.append(vec![part(10, 0, &[Insert(1, a.clone())], Some(20))], 0).await;
    assert_eq!(bench.take(&mut session).1, Some(Wait::Head(at(30))));
    bench.append(vec![part(20, 0, &[Insert(2, a.clone())], Some(30))], 0).await;
    bench.append(vec![part(30, 0, &[Insert(3, a)], Some(40))], 0).await;
    bench.route();
    session.barrier(at(40));
    assert_eq!(
        words(&bench.take(&mut session).0),
        ["subscribed Live 0/1E", "relation a id", r#"transaction 0/28 {"id":3}"#, "caught_up 0/28"]
    );
}

#[tokio::test]
async fn latest_begins_with_the_whole_of_a_transaction_that_is_coming_in() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let a = table("a", &[]);
    let earlier = part(5, 0, &[Insert(1, a.clone())], Some(10));
    bench.append(vec![earlier, part(10, 0, &[Insert(2, a.clone())], None)], 0).await;
    bench.route();
    let mut session = bench.session(r#""tables":[{"table":"*"}],"cursor":"latest""#).unwrap();
    let mut messages = bench.take(&mut session).0;
    bench.append(vec![part(10, 1, &[Insert(3, a)], Some(20))], 0).await;
    bench.route();
    messages.extend(bench.take(&mut session).0);
    assert_eq!(
        words(&messages),
        [
            "subscribed Live 0/A",
            "relation a id",
            r#"transaction 0/A:1 {"id":2} more"#,
            r#"transaction 0/14 {"id":3}"#
        ]
    );
}

#[tokio::test]
async fn what_was_acknowledged_is_judged_like_any_other_cursor() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let a = table("a", &[]);
    bench.append(vec![part(10, 0, &[Insert(1, a)], Some(20))], 0).await;
    bench.route();
    let begins = |bench: &Bench| {
        let fields = r#""tables":[{"table":"public.a"}],"client_id":"c","cursor":"acked""#;
        let mut session = bench.session(fields).unwrap();
        assert_eq!(session.storable(), None);
        let messages = words(&bench.take(&mut session).0);
        (messages[0].clone(), session.storable())
    };
    assert_eq!(begins(&bench), ("subscribed Snapshot 0/0".into(), None));
    // Of this daemon, and of this feed.
    for feed in [None, Some("f_1".parse().unwrap())] {
        bench.acked = Some(Position { feed, cursor: at(10), rights: None });
        let (first, storable) = begins(&bench);
        assert_eq!(first, "subscribed Live 0/A");
        assert!(storable.is_some_and(|(first, last)| first == at(10) && last >= at(20)), "{storable:?}");
    }
    bench.acked = Some(Position { feed: Some("f_0".parse().unwrap()), cursor: at(10), rights: None });
    assert_eq!(begins(&bench).0, "error feed_changed");
    let world = std::sync::Arc::get_mut(&mut bench.world).unwrap();
    world.lineage = crate::Lineage::new([("f_0".parse().unwrap(), at(10))]);
    assert_eq!(begins(&bench).0, "subscribed Live 0/A");
}
