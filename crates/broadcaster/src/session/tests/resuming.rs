//! Resuming at any cursor, and taking what there is in any order.

use proptest::prelude::{Just, Strategy, any, prop, proptest};
use walcast_model::{Cursor, Part};
use walcast_protocol::ServerMessage;

use super::super::{Answer, Question, Session, Step, Wait};
use super::{delivered, rest};
use crate::limits::Limits;
use crate::testing::{Bench, Insert, at, decode, inside, part, table, words};

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
async fn a_session_that_lets_go_does_not_wait_for_the_page_that_it_asked_for() {
    let mut bench = Bench::new(1, Limits::default());
    let a = table("a", &[]);
    bench
        .append((1..4).map(|n| part(n * 10, 0, &[Insert(n, a.clone())], Some(n * 10 + 10))).collect(), 0)
        .await;
    bench.route();
    let mut session = bench.session(r#""tables":[{"table":"*"}],"cursor":"0/1""#).unwrap();
    let ask = |session: &mut Session| loop {
        match session.next() {
            Step::Ask(Question::Tables { .. }) => {
                let tables = bench.source.tables.lock().unwrap().clone();
                session.answer(Answer::Tables(Ok(std::sync::Arc::new(tables))));
            }
            Step::Ask(Question::Oldest) => session.answer(Answer::Oldest(Ok(at(1)))),
            Step::Ask(question) => return question,
            Step::Frame(_) => {}
            step => panic!("{step:?}"),
        }
    };
    let first = ask(&mut session);
    assert!(matches!(first, Question::Page { .. }), "{first:?}");
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
                Step::Frame(frame) => messages.push(decode(&frame)),
                Step::Ask(Question::Page { from, to }) => {
                    session.answer(Answer::Page(Ok(bench.past.read(from, to))));
                }
                Step::Ask(Question::Oldest) => session.answer(Answer::Oldest(Ok(at(1)))),
                Step::Ask(_) => {
                    let tables = bench.source.tables.lock().unwrap().clone();
                    session.answer(Answer::Tables(Ok(std::sync::Arc::new(tables))));
                }
                Step::Sync(_) | Step::Wait(_) | Step::Over => {}
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
