use std::sync::Arc;

use tokio::sync::Semaphore;
use walcast_history::{LatestPage, Page};
use walcast_protocol::ServerMessage;

use super::Folded;
use crate::limits::Limits;
use crate::session::{Answer, Question, Session, Step, Wait};
use crate::testing::{Bench, Insert, at, decode, inside, part, table, word};

/// Takes messages until there is a question or nothing to do.
fn take(session: &mut Session) -> (Vec<String>, Option<Question>) {
    let mut words = Vec::new();
    loop {
        match session.next() {
            Step::Frame(frame) => {
                let message = decode(&frame);
                let is_compacted = matches!(&message, ServerMessage::Transaction(m) if m.compacted);
                words.push(format!("{}{}", word(&message), if is_compacted { " compacted" } else { "" }));
            }
            Step::Ask(question) => return (words, Some(question)),
            Step::Sync(_) | Step::Wait(_) | Step::Over => return (words, None),
        }
    }
}

/// A log of which the feed has only the end, and a session at its beginning that wants the latest rows.
async fn behind() -> (Bench, Session) {
    let mut bench = Bench::new(1, Limits::default());
    let tables = table("a", &["x"]);
    let parts: Vec<_> =
        (1..=5).map(|n| part(10 * n, 0, &[Insert(n, Arc::clone(&tables))], Some(10 * n + 5))).collect();
    bench.append(parts, 0).await;
    bench.route();
    let fields = r#""tables":[{"table":"public.a"}],"cursor":"0/1","catchup":"latest""#;
    let mut session = bench.session(fields).unwrap();
    session.barrier(bench.world.feed.head());
    loop {
        match session.next() {
            Step::Frame(_) => {}
            Step::Ask(Question::Tables { .. }) => {
                session.answer(Answer::Tables(Ok(Arc::new(bench.source.tables.lock().unwrap().clone()))));
            }
            Step::Ask(Question::Oldest) => session.answer(Answer::Oldest(Ok(at(1)))),
            Step::Ask(question) => {
                assert_eq!(question, Question::Latest { from: at(1), to: at(55) });
                return (bench, session);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The net effect up to 45, in two parts.
fn folded(place: &Arc<Semaphore>) -> Folded {
    let tables = table("a", &[]);
    let first = part(40, 0, &[Insert(1, Arc::clone(&tables)), Insert(2, Arc::clone(&tables))], None);
    let last = part(40, 2, &[Insert(4, tables)], Some(45));
    let page = Page { parts: vec![first, last], next: at(48) };
    let place = Some(Arc::clone(place).try_acquire_owned().unwrap());
    Folded { page: LatestPage { page, is_compacted: true }, place }
}

#[tokio::test]
async fn only_the_end_of_a_net_effect_has_a_cursor_and_the_stream_goes_on_behind_it() {
    let (_bench, mut session) = behind().await;
    let places = Arc::new(Semaphore::new(1));
    session.answer(Answer::Latest(Ok(folded(&places))));
    assert_eq!(session.position(), Some(at(1)), "nothing of it is said yet");
    let (words, question) = take(&mut session);
    let expected = [
        "relation a id",
        r#"transaction - {"id":1} {"id":2} more compacted"#,
        r#"transaction 0/2D {"id":4} compacted"#,
    ];
    assert_eq!(words, expected);
    assert_eq!(places.available_permits(), 1);
    assert_eq!(
        (session.last_cursor(), question),
        (at(45), Some(Question::Latest { from: at(48), to: at(55) }))
    );
    // What cannot be folded comes as it is.
    let page = Page { parts: vec![part(50, 0, &[Insert(5, table("a", &[]))], Some(55))], next: at(55) };
    session
        .answer(Answer::Latest(Ok(Folded { page: LatestPage { page, is_compacted: false }, place: None })));
    let (words, question) = take(&mut session);
    assert_eq!(words, [r#"transaction 0/37 {"id":5}"#, "caught_up 0/37"]);
    assert_eq!((question, session.position()), (None, Some(at(55))));
}

#[tokio::test]
async fn a_client_that_stops_reading_in_the_middle_is_told_the_end_and_gets_it_again() {
    let (_bench, mut session) = behind().await;
    let places = Arc::new(Semaphore::new(1));
    session.answer(Answer::Latest(Ok(folded(&places))));
    // The definition and the first part; then it reads no more.
    for _ in 0..2 {
        assert!(matches!(session.next(), Step::Frame(_)));
    }
    assert_eq!((session.position(), places.available_permits()), (None, 0));
    session.let_go();
    assert_eq!((session.position(), places.available_permits()), (None, 1));
    let (words, question) = take(&mut session);
    assert_eq!(words, ["transaction -  compacted"], "an end without a cursor");
    assert_eq!(question, Some(Question::Latest { from: at(1), to: at(55) }));
    session.answer(Answer::Latest(Ok(folded(&places))));
    let (words, _) = take(&mut session);
    let expected =
        [r#"transaction - {"id":1} {"id":2} more compacted"#, r#"transaction 0/2D {"id":4} compacted"#];
    assert_eq!(words, expected);
    assert_eq!(session.last_cursor(), at(45));
}

#[tokio::test]
async fn a_net_effect_that_is_nothing_is_passed_over() {
    let (_bench, mut session) = behind().await;
    let page = LatestPage { page: Page { parts: Vec::new(), next: at(48) }, is_compacted: true };
    session.answer(Answer::Latest(Ok(Folded { page, place: None })));
    let (words, question) = take(&mut session);
    assert_eq!((words.len(), question), (0, Some(Question::Latest { from: at(48), to: at(55) })));
}

#[tokio::test]
async fn inside_a_transaction_it_asks_from_where_the_client_is() {
    let (bench, _) = behind().await;
    let fields = r#""tables":[{"table":"public.a"}],"cursor":"0/A:1","catchup":"latest""#;
    let mut session = bench.session(fields).unwrap();
    session.barrier(bench.world.feed.head());
    let question = loop {
        match session.next() {
            Step::Ask(Question::Tables { .. }) => {
                session.answer(Answer::Tables(Ok(Arc::new(bench.source.tables.lock().unwrap().clone()))));
            }
            Step::Ask(Question::Oldest) => session.answer(Answer::Oldest(Ok(at(1)))),
            Step::Ask(question) => break question,
            Step::Frame(_) | Step::Wait(Wait::Answer) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(question, Question::Latest { from: inside(10, 1), to: at(55) });
}
