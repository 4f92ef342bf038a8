use proptest::prelude::{Just, Strategy, any, prop, proptest};
use walcast_model::{Cursor, Part};
use walcast_protocol::{ErrorCode, ServerMessage};
use walcast_snapshot::SnapshotEvent;

use super::Wait;
use crate::gate::Gate;
use crate::limits::Limits;
use crate::testing::{Bench, Insert, at, inside, part, published, table, words};

/// A log of transactions, each split into parts of some changes of the tables `a`, `b` and `c`; ids count up.
fn log() -> impl Strategy<Value = Vec<Part>> {
    let changes = prop::collection::vec(0..3_usize, 1..4);
    let transactions = prop::collection::vec((prop::collection::vec(changes, 1..4), any::<bool>()), 1..7);
    transactions.prop_map(|transactions| {
        let tables = [table("a", &["x", "y"]), table("b", &["x", "y"]), table("c", &["x", "y"])];
        let (mut parts, mut start, mut id) = (Vec::new(), 10, 0);
        for (splits, gap) in transactions {
            let (mut first, last) = (0, splits.len() - 1);
            let end = start + 10;
            for (index, split) in splits.into_iter().enumerate() {
                let inserts: Vec<Insert> = split
                    .into_iter()
                    .map(|table| {
                        id += 1;
                        Insert(id, tables[table].clone())
                    })
                    .collect();
                parts.push(part(start, first, &inserts, (index == last).then_some(end)));
                first += inserts.len() as i64;
            }
            // Often the next commit record starts where this one ends.
            start = if gap { end + 7 } else { end };
        }
        parts
    })
}

/// Every change of the log that a subscription to `tables` sees from `cursor` on: its id.
fn rest(parts: &[Part], tables: &[&str], cursor: Cursor) -> Vec<u64> {
    let mut ids = Vec::new();
    for part in parts {
        for (index, change) in part.changes().iter().enumerate() {
            let place = Cursor::new(part.transaction().start.lsn(), part.first().plus(index));
            if place >= cursor && tables.contains(&change.relation.name().table.as_str()) {
                ids.push(id_of(std::str::from_utf8(part.key(change).unwrap()).unwrap()));
            }
        }
    }
    ids
}

fn id_of(object: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(object).unwrap();
    value["id"].as_u64().unwrap()
}

/// The ids in `transaction` messages, having checked that cursors grow, that a transaction with `more` is ended before
/// another begins, and that a table's definition comes before its rows.
fn delivered(messages: &[ServerMessage], from: Cursor) -> Vec<u64> {
    let (mut ids, mut last, mut open) = (Vec::new(), from, None);
    let mut known = Vec::new();
    for message in messages {
        match message {
            ServerMessage::Relation(relation) => known.push(relation.table.clone()),
            ServerMessage::Transaction(transaction) => {
                let cursor = transaction.cursor.unwrap();
                assert!(cursor > last, "{cursor} after {last}");
                last = cursor;
                assert!(open.is_none_or(|open| open == transaction.lsn), "{open:?} is not ended");
                open = transaction.more.then_some(transaction.lsn);
                for change in &transaction.changes {
                    assert!(known.contains(&change.table));
                    ids.push(id_of(change.key.as_ref().unwrap().get()));
                }
            }
            _ => {}
        }
    }
    assert_eq!(open, None, "the last transaction is not ended");
    ids
}

/// Every cursor that a client can have: before and after each change, and positions between transactions.
fn cursors(parts: &[Part]) -> Vec<Cursor> {
    let mut cursors = vec![at(1), at(9)];
    for part in parts {
        let lsn = part.transaction().start.lsn();
        cursors.extend((0..part.changes().len()).map(|index| Cursor::new(lsn, part.first().plus(index))));
        cursors.push(part.next_cursor());
    }
    cursors
}

/// Resumes at every cursor and compares with what the log says; `before` parts are there when the session starts,
/// the others come while it waits.
async fn check_every_cursor(parts: &[Part], memory: usize, tables: &[&str], before: usize, limits: Limits) {
    let shape: Vec<String> = tables.iter().map(|table| format!(r#"{{"table":"public.{table}"}}"#)).collect();
    let (now, later) = parts.split_at(before);
    for cursor in cursors(now) {
        let mut bench = Bench::new(memory, limits);
        // A feed that holds nothing but what is not stored would wait for history.
        let unstored = usize::from(memory > 1);
        bench.append(now.to_vec(), unstored).await;
        bench.route();
        if cursor > bench.world.feed.head() {
            continue;
        }
        let fields = format!(r#""tables":[{}],"cursor":"{cursor}""#, shape.join(","));
        let mut session = bench.session(&fields).unwrap();
        session.barrier(bench.world.feed.head());
        let (mut messages, _) = bench.take(&mut session);
        for part in later {
            bench.append(vec![part.clone()], unstored).await;
            bench.route();
            let (more, wait) = bench.take(&mut session);
            assert!(matches!(wait, Some(Wait::Shape(_) | Wait::Seen(_))), "{wait:?}");
            messages.extend(more);
        }
        let caught_up =
            messages.iter().filter(|message| matches!(message, ServerMessage::CaughtUp(_))).count();
        assert_eq!(caught_up, 1, "at {cursor}");
        assert_eq!(delivered(&messages, cursor), rest(parts, tables, cursor), "at {cursor}");
        let head = bench.world.feed.head();
        let position = session.position().unwrap();
        assert!(position <= head && position >= session.last_cursor(), "{position} of {head}");
    }
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn resuming_at_every_cursor_gives_exactly_the_rest(
        (parts, before) in log().prop_flat_map(|parts| { let all = parts.len(); (Just(parts), 0..=all) }),
        tables in prop::sample::subsequence(vec!["a", "b", "c"], 1..=3),
        // All in memory, nothing but what is not stored, and in between.
        memory in prop::sample::select(vec![1 << 20, 1, 2500]),
        shape_hits_max in prop::sample::select(vec![1, 2, 1000]),
    ) {
        let limits = Limits { shape_hits_max, read_bytes_max: 200, ..Limits::default() };
        run(check_every_cursor(&parts, memory, &tables, before, limits));
    }
}

#[tokio::test]
async fn a_transaction_whose_last_part_has_nothing_for_the_shape_is_ended() {
    let (a, b) = (table("a", &[]), table("b", &[]));
    let parts = vec![
        part(10, 0, &[Insert(1, a.clone())], None),
        part(10, 1, &[Insert(2, b.clone())], None),
        part(10, 2, &[Insert(3, b.clone())], Some(20)),
        part(20, 0, &[Insert(4, b)], Some(30)),
    ];
    for early in [true, false] {
        let mut bench = Bench::new(1 << 20, Limits::default());
        if !early {
            bench.append(parts.clone(), 0).await;
            bench.route();
        }
        let mut session = bench.session(r#""tables":[{"table":"public.a"}],"cursor":"0/1""#).unwrap();
        session.barrier(at(1));
        let (mut messages, _) = bench.take(&mut session);
        if early {
            for part in &parts {
                bench.append(vec![part.clone()], 0).await;
                bench.route();
                messages.extend(bench.take(&mut session).0);
            }
        }
        let words: Vec<String> =
            words(&messages).into_iter().filter(|word| word.starts_with("transaction")).collect();
        assert_eq!(words, [r#"transaction 0/A:1 {"id":1} more"#, "transaction 0/14 "]);
        // A client that stored the cursor in between is told of the end, too.
        let mut session = bench.session(r#""tables":[{"table":"public.a"}],"cursor":"0/A:1""#).unwrap();
        assert!(crate::testing::words(&bench.take(&mut session).0).contains(&"transaction 0/14 ".to_owned()));
    }
}

#[tokio::test]
async fn nothing_that_may_be_stored_is_told_between_the_parts_of_a_transaction() {
    let a = table("a", &[]);
    let mut bench = Bench::new(1 << 20, Limits::default());
    bench.append(vec![part(10, 0, &[Insert(1, a.clone())], None)], 0).await;
    bench.route();
    let mut session = bench.session(r#""tables":[{"table":"public.a"}],"cursor":"0/1""#).unwrap();
    session.barrier(at(5));
    let told = words(&bench.take(&mut session).0);
    assert_eq!(told[1..], ["relation a id", r#"transaction 0/A:1 {"id":1} more"#]);
    assert_eq!(session.position(), None);
    bench.append(vec![part(10, 1, &[Insert(2, a)], Some(20))], 0).await;
    bench.route();
    let told = words(&bench.take(&mut session).0);
    assert_eq!(told, [r#"transaction 0/14 {"id":2}"#, "caught_up 0/14"]);
    assert_eq!(session.position(), Some(at(20)));
}

#[tokio::test]
async fn a_made_up_cursor_waits_for_no_rest_of_a_transaction_that_does_not_exist() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    bench.writer.advance(walcast_model::Lsn::new(30));
    bench.route();
    let mut session = bench.session(r#""tables":[{"table":"public.a"}],"cursor":"0/A:7""#).unwrap();
    session.barrier(at(30));
    assert_eq!(words(&bench.take(&mut session).0)[1..], ["caught_up 0/1E"]);
    assert_eq!(session.position(), Some(at(30)));
}

#[tokio::test]
async fn a_new_definition_inside_a_transaction_is_told_between_its_rows_also_from_history() {
    let (old, new) = (table("a", &["x"]), table("a", &["x", "y"]));
    let inserts = [Insert(1, old.clone()), Insert(2, new.clone()), Insert(3, new)];
    let expected = [
        "subscribed",
        "relation a id,x",
        r#"transaction 0/A:1 {"id":1,"x":"v1"} more"#,
        "relation a id,x,y",
        r#"transaction 0/14 {"id":2,"x":"v2","y":"v2"} {"id":3,"x":"v3","y":"v3"}"#,
        r#"transaction 0/28 {"id":4,"x":"v4","y":"v4"}"#,
        "caught_up 0/28",
    ];
    for memory in [1, 1 << 20] {
        let mut bench = Bench::new(memory, Limits::default());
        let again = part(30, 0, &[Insert(4, inserts[2].1.clone())], Some(40));
        bench.append(vec![part(10, 0, &inserts, Some(20)), again], 0).await;
        bench.route();
        let mut session = bench.session(r#""tables":[{"table":"*"}],"cursor":"0/1""#).unwrap();
        session.barrier(at(40));
        bench.past.page_changes.clone_from(&100);
        let words = words(&bench.take(&mut session).0);
        assert!(words[0].starts_with(expected[0]), "{words:?}");
        assert_eq!(words[1..], expected[1..], "{memory}");
    }
}

#[tokio::test]
async fn columns_are_chosen_and_the_key_always_comes() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let (a, b) = (table("a", &["x", "y"]), table("b", &["x", "y"]));
    bench.append(vec![part(10, 0, &[Insert(1, a), Insert(2, b)], Some(20))], 0).await;
    bench.route();
    let fields = r#""tables":[{"table":"*"},{"table":"public.a","columns":["y"]}],"cursor":"0/1""#;
    let mut session = bench.session(fields).unwrap();
    let words = words(&bench.take(&mut session).0);
    assert_eq!(
        words[1..],
        [
            "relation a id,y",
            "relation b id,x,y",
            r#"transaction 0/14 {"id":1,"y":"v1"} {"id":2,"x":"v2","y":"v2"}"#
        ]
    );
}

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

fn sync_of_a(snapshot: &str, barrier: u64) -> Vec<SnapshotEvent> {
    let a = table("a", &["x"]);
    let json = r#"{"id":1,"x":"one"},{"id":2,"x":"two"}"#.into();
    vec![
        SnapshotEvent::Relation(a.clone()),
        SnapshotEvent::Progress { done: 2, estimate: 2 },
        SnapshotEvent::Rows { relation: a, json, count: 2 },
        SnapshotEvent::Done { snapshot: snapshot.parse().unwrap(), barrier: at(barrier) },
    ]
}

#[tokio::test]
async fn after_the_rows_come_the_transactions_that_the_snapshot_does_not_see_and_then_all() {
    let (a, b) = (table("a", &["x"]), table("b", &["x"]));
    // Transactions have the xid of their position. The snapshot sees 10 and 30, not 20, which was open, and not 40.
    let log = vec![
        part(10, 0, &[Insert(10, a.clone())], Some(20)),
        part(20, 0, &[Insert(20, a.clone()), Insert(21, b.clone())], None),
        part(20, 2, &[Insert(22, a.clone())], Some(30)),
        part(30, 0, &[Insert(30, a.clone()), Insert(31, b)], Some(40)),
        part(40, 0, &[Insert(40, a.clone())], Some(50)),
        part(60, 0, &[Insert(60, a)], Some(70)),
    ];
    let expected = [
        "subscribed Snapshot 0/0",
        "relation a id,x",
        r#"snapshot a {"id":1,"x":"one"} {"id":2,"x":"two"}"#,
        r#"transaction - {"id":20,"x":"v20"} more"#,
        r#"transaction - {"id":22,"x":"v22"}"#,
        r#"transaction - {"id":40,"x":"v40"}"#,
        "complete 0/32",
        "caught_up 0/32",
        r#"transaction 0/46 {"id":60,"x":"v60"}"#,
    ];
    for (memory, unstored) in [(1, 0), (1, 3), (1 << 20, 0), (1 << 20, 5), (4000, 1)] {
        let mut bench = Bench::new(memory, Limits::default());
        *bench.source.events.lock().unwrap() = sync_of_a("20:31:20", 50);
        let mut session = bench.session(r#""tables":[{"table":"public.a"}]"#).unwrap();
        // A ring that is full of what is not stored would wait.
        let unstored = if memory == 1 { 0 } else { unstored };
        bench.append(log.clone(), unstored).await;
        bench.route();
        let mut got = words(&bench.take(&mut session).0);
        // As soon as the seam is behind it, it has caught up; which comes first then is of no concern.
        let caught_up = got.iter().position(|word| word.starts_with("caught_up")).unwrap();
        got.remove(caught_up);
        let mut expected = expected.to_vec();
        expected.remove(7);
        assert_eq!(got, expected, "{memory} {unstored}");
        assert_eq!(session.position(), Some(at(70)));
    }
}

#[tokio::test]
async fn a_table_that_the_snapshot_does_not_have_is_not_filtered_at_the_seam() {
    let (a, c) = (table("a", &["x"]), table("c", &["x"]));
    let mut bench = Bench::new(1 << 20, Limits::default());
    bench.source.tables.lock().unwrap().retain(|table| table.name.table == "a");
    *bench.source.events.lock().unwrap() = sync_of_a("20:31:20", 50);
    let mut session = bench.session(r#""tables":[{"table":"*"}]"#).unwrap();
    // 30 is seen; its row of `c` can be in no row that was sent.
    let log = vec![
        part(20, 0, &[Insert(20, a.clone())], Some(30)),
        part(30, 0, &[Insert(30, a), Insert(31, c)], Some(50)),
    ];
    bench.append(log, 0).await;
    bench.route();
    let got = words(&bench.take(&mut session).0);
    let transactions: Vec<&String> = got.iter().filter(|word| word.starts_with("transaction")).collect();
    assert_eq!(
        transactions,
        [r#"transaction - {"id":20,"x":"v20"}"#, r#"transaction - {"id":31,"x":"v31"}"#]
    );
}

#[tokio::test]
async fn an_initial_sync_that_begins_again_says_so_and_tells_the_definitions_again() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let mut events = sync_of_a("1:1:", 20);
    events.pop();
    events.push(SnapshotEvent::Restarted);
    events.extend(sync_of_a("1:1:", 20));
    *bench.source.events.lock().unwrap() = events;
    let mut session = bench.session(r#""tables":[{"table":"public.a","columns":[]}]"#).unwrap();
    bench.append(vec![part(10, 0, &[Insert(10, table("b", &[]))], Some(20))], 0).await;
    bench.route();
    let (once, rows) = ("subscribed Snapshot 0/0", r#"snapshot a {"id":1} {"id":2}"#);
    let again = ["complete 0/14", "caught_up 0/14"];
    let expected =
        [[once, "relation a id", rows].as_slice(), &[once, "relation a id", rows], &again].concat();
    assert_eq!(words(&bench.take(&mut session).0), expected);
}

#[tokio::test]
async fn a_table_that_appears_during_an_initial_sync_of_all_tables_makes_it_begin_again() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    bench.source.tables.lock().unwrap().retain(|table| table.name.table == "a");
    let mut session = bench.session(r#""tables":[{"table":"public.*"}]"#).unwrap();
    assert_eq!(bench.take(&mut session).1, Some(Wait::Sync));
    bench.source.tables.lock().unwrap().push(published(&table("b", &[])));
    *bench.source.events.lock().unwrap() = sync_of_a("1:1:", 20);
    bench.append(vec![part(10, 0, &[Insert(10, table("z", &[]))], Some(20))], 0).await;
    bench.route();
    let words = words(&bench.take(&mut session).0);
    let count = |start: &str| words.iter().filter(|word| word.starts_with(start)).count();
    assert_eq!((count("snapshot"), count("relation"), count("subscribed"), count("complete")), (2, 3, 1, 1));
}

#[tokio::test]
async fn a_session_that_lets_go_does_not_wait_for_the_page_that_it_asked_for() {
    let mut bench = Bench::new(1, Limits::default());
    let a = table("a", &[]);
    bench
        .append((1..4).map(|n| part(n * 10, 0, &[Insert(n, a.clone())], Some(n * 10 + 10))).collect(), 0)
        .await;
    bench.route();
    let mut session = bench.session(r#""tables":[{"table":"*"}],"cursor":"0/1""#).unwrap();
    let ask = |session: &mut super::Session| loop {
        match session.next() {
            super::Step::Ask(super::Question::Tables { .. }) => {
                let tables = bench.source.tables.lock().unwrap().clone();
                session.answer(super::Answer::Tables(Ok(std::sync::Arc::new(tables))));
            }
            super::Step::Ask(super::Question::Oldest) => session.answer(super::Answer::Oldest(Ok(at(1)))),
            super::Step::Ask(question) => return question,
            super::Step::Frame(_) => {}
            step => panic!("{step:?}"),
        }
    };
    let first = ask(&mut session);
    assert!(matches!(first, super::Question::Page { .. }), "{first:?}");
    assert!(session.let_go());
    assert_eq!(ask(&mut session), first);
    assert!(session.let_go() && !session.let_go());
}

#[tokio::test]
async fn a_session_that_lets_go_of_what_it_read_loses_nothing() {
    let mut bench = Bench::new(1, Limits::default());
    let a = table("a", &[]);
    let parts: Vec<Part> =
        (1..20).map(|n| part(n * 10, 0, &[Insert(n, a.clone())], Some(n * 10 + 10))).collect();
    bench.append(parts.clone(), 0).await;
    bench.route();
    let mut session = bench.session(r#""tables":[{"table":"*"}],"cursor":"0/1""#).unwrap();
    let mut messages = Vec::new();
    // Takes a few at a time, and lets go in between.
    loop {
        let before = messages.len();
        for _ in 0..2 {
            match session.next() {
                super::Step::Frame(frame) => messages.push(crate::testing::decode(&frame)),
                super::Step::Ask(super::Question::Page { from, to }) => {
                    session.answer(super::Answer::Page(Ok(bench.past.read(from, to))));
                }
                super::Step::Ask(super::Question::Oldest) => session.answer(super::Answer::Oldest(Ok(at(1)))),
                super::Step::Ask(_) => {
                    let tables = bench.source.tables.lock().unwrap().clone();
                    session.answer(super::Answer::Tables(Ok(std::sync::Arc::new(tables))));
                }
                super::Step::Wait(_) | super::Step::Over => {}
            }
        }
        if messages.len() == before && !messages.is_empty() && session.position() == Some(at(200)) {
            break;
        }
        session.let_go();
    }
    assert_eq!(delivered(&messages, at(1)), rest(&parts, &["a"], at(1)));
    assert_eq!(inside(10, 0), at(10));
}
