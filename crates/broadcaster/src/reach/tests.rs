//! Where a subscription is told that it can be resumed, it can be.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::task::unconstrained;
use tokio_util::task::TaskTracker;
use walcast_filter::Filter;
use walcast_model::{Cursor, Op, Part, Relation};
use walcast_policy::{Grant, Rights};
use walcast_protocol::{ErrorCode, ErrorMessage, ServerMessage};

use super::{Reach, Reached};
use crate::catalog::{Catalog, Freshness};
use crate::limits::Limits;
use crate::refusal::Refusal;
use crate::session::{Answer, Question, Session, Step};
use crate::testing::{Bench, Write, at, full, published, schema, table, words, written};

/// A definition that a table can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// With the column that filters compare, and all of it in the WAL.
    Full,
    /// With the column, and only keys in the WAL.
    Keys,
    /// Without the column.
    Without,
}

fn defined(name: &str, shape: Shape) -> Arc<Relation> {
    match shape {
        Shape::Full => full(&table(name, &["x"])),
        Shape::Keys => table(name, &["x"]),
        Shape::Without => full(&table(name, &["y"])),
    }
}

/// A row of a table in a definition, of those whom `x = 'in'` takes or not.
fn insert(relation: &Arc<Relation>, is_in: bool) -> Write {
    let row = if is_in { r#"{"id":"1","x":"in"}"# } else { r#"{"id":"1","x":"out"}"# };
    Write(Op::Insert, Arc::clone(relation), [r#"{"id":"1"}"#, row, ""])
}

const NAMES: [&str; 3] = ["f", "g", "h"];

/// A log of transactions of one change each, ten positions apart, and the tables as they are now.
async fn log(memory_bytes_max: usize, changes: &[(usize, Shape)], now: [Shape; 3]) -> Bench {
    let mut bench = Bench::new(memory_bytes_max, Limits::default());
    for (name, shape) in NAMES.iter().zip(now) {
        let relation = defined(name, shape);
        bench.source.tables.lock().unwrap().push(published(&relation));
        bench.source.defined.lock().unwrap().push(relation);
    }
    bench.append(parts(0, changes), 0).await;
    bench.route();
    bench
}

fn parts(before: u64, changes: &[(usize, Shape)]) -> Vec<Part> {
    let numbered = (before..).zip(changes);
    let part = |(number, (name, shape)): (u64, &(usize, Shape))| {
        let start = 10 + number * 10;
        written(start, start + 10, &[insert(&defined(NAMES[*name], *shape), true)])
    };
    numbered.map(part).collect()
}

fn error(messages: &[ServerMessage]) -> Option<&ErrorMessage> {
    messages.iter().find_map(|message| match message {
        ServerMessage::Error(error) => Some(error),
        _ => None,
    })
}

/// What a subscription from a cursor on ends with.
fn ends(bench: &Bench, tables: &str, rights: &Rights, cursor: Cursor) -> Option<ErrorMessage> {
    let fields = format!(r#""tables":{tables},"cursor":"{cursor}""#);
    let mut session = bench.session_with(&fields, rights).unwrap();
    error(&bench.take(&mut session).0).cloned()
}

fn policy() -> Rights {
    let grant = Grant { meta: false, columns: None, rows: Some(Filter::parse("x = 'in'").unwrap()) };
    Rights::Granted([("*".parse().unwrap(), Ok(grant))].into())
}

const F: &str = r#"[{"table":"public.f","where":"x = 'in'"}]"#;

/// The log is in memory, and in history alone.
const MEMORY: [usize; 2] = [1 << 20, 1];

#[tokio::test]
async fn the_position_that_is_named_is_the_first_that_is_served_to_the_end() {
    use Shape::{Full, Keys};
    // Altered twice, with another table meanwhile that is none of its concern.
    let changes = [(0, Full), (0, Keys), (1, Keys), (0, Full), (0, Keys), (0, Keys), (1, Keys), (0, Full)];
    for memory in MEMORY {
        let bench = log(memory, &changes, [Full, Keys, Full]).await;
        for from in [1, 20, 45] {
            let ended = ends(&bench, F, &Rights::Everything, at(from)).expect("an error");
            assert_eq!((&ended.code, ended.oldest), (&ErrorCode::CursorTooOld, Some(at(70))), "{ended:?}");
            let hint = ended.hint.as_deref().unwrap();
            assert_eq!(hint, "subscribe without a cursor for an initial sync");
            assert!(!ended.message.contains("ALTER"), "{ended:?}");
        }
        assert!(ends(&bench, F, &Rights::Everything, at(60)).is_some());
        assert_eq!(ends(&bench, F, &Rights::Everything, at(70)), None);
        // Of two tables the later one counts; without a filter every change can be told.
        let two = r#"[{"table":"public.f","where":"x = 'in'"},{"table":"public.h","where":"x = 'in'"},{"table":"public.g"}]"#;
        assert_eq!(ends(&bench, two, &Rights::Everything, at(1)).unwrap().oldest, Some(at(70)));
        assert_eq!(ends(&bench, two, &Rights::Everything, at(70)), None);
    }
}

#[tokio::test]
async fn what_history_let_go_of_is_no_place_to_go_on_at_where_more_does_not_fit() {
    use Shape::{Full, Keys};
    for memory in MEMORY {
        let mut bench = log(memory, &[(0, Full), (0, Full), (0, Keys), (0, Full)], [Full; 3]).await;
        bench.past.oldest = at(20);
        let ended = ends(&bench, F, &Rights::Everything, at(5));
        // In memory it is all there.
        assert_eq!(ended.unwrap().oldest, Some(at(40)));
        let whole = r#"[{"table":"public.f"}]"#;
        let ended = ends(&bench, whole, &Rights::Everything, at(5));
        assert_eq!(ended.and_then(|ended| ended.oldest), (memory == 1).then(|| at(20)));
    }
}

#[tokio::test]
async fn a_table_that_does_not_fit_as_it_is_leads_nowhere_and_no_position_is_named() {
    use Shape::{Full, Keys, Without};
    for now in [Keys, Without] {
        let mut bench = log(1 << 20, &[(0, Full)], [Full; 3]).await;
        let mut session = bench.session(&format!(r#""tables":{F},"cursor":"latest""#)).expect("it fits");
        bench.take(&mut session);
        let relation = defined("f", now);
        bench.source.defined.lock().unwrap().push(Arc::clone(&relation));
        bench.append(vec![written(20, 30, &[insert(&relation, true)])], 0).await;
        bench.route();
        let (messages, _) = bench.take(&mut session);
        let ended = error(&messages).unwrap();
        assert_eq!((&ended.code, ended.oldest), (&ErrorCode::CursorTooOld, None), "{ended:?}");
        assert!(ended.message.contains("there is no position yet"), "{ended:?}");
        assert_eq!(ended.hint.as_deref(), Some("subscribe without a cursor for an initial sync"));
        // And so it is: the initial sync says what has to be done.
        let refused = ends(&bench, F, &Rights::Everything, at(30)).unwrap();
        let expected = if now == Keys { ErrorCode::IdentityRequired } else { ErrorCode::BadFilter };
        assert_eq!(refused.code, expected);
    }
}

#[tokio::test]
async fn who_comes_back_to_a_pattern_does_not_lack_what_its_policy_could_not_be_applied_to() {
    use Shape::{Full, Keys};
    let changes = [(0, Full), (0, Keys), (0, Full)];
    let all = r#"[{"table":"*"}]"#;
    for memory in MEMORY {
        // He was given rows of it, and may not be kept from learning what became of them.
        let bench = log(memory, &changes, [Full; 3]).await;
        let ended = ends(&bench, all, &policy(), at(20)).expect("an error");
        assert_eq!((&ended.code, ended.oldest), (&ErrorCode::CursorTooOld, Some(at(30))));
        assert_eq!(ends(&bench, all, &policy(), at(30)), None);
        // Who begins with what is new has none.
        let mut session =
            bench.session_with(&format!(r#""tables":{all},"cursor":"latest""#), &policy()).unwrap();
        assert_eq!(error(&bench.take(&mut session).0), None);
        // What is not given as it is now keeps nobody from the rest, until it is given again.
        let bench = log(memory, &changes[..2], [Keys, Full, Full]).await;
        assert_eq!(ends(&bench, all, &policy(), at(20)), None);
        let bench = log(memory, &changes, [Keys, Full, Full]).await;
        let ended = ends(&bench, all, &policy(), at(20)).expect("an error");
        assert_eq!((&ended.code, ended.oldest), (&ErrorCode::CursorTooOld, Some(at(40))));
    }
}

#[tokio::test]
async fn a_table_that_is_given_no_longer_is_not_passed_over_however_often_it_was_altered() {
    use Shape::{Full, Keys};
    let (keys, whole) = (defined("f", Keys), defined("f", Full));
    let mut bench = log(1 << 20, &[(0, Keys)], [Keys, Full, Full]).await;
    let fields = r#""tables":[{"table":"*"}],"cursor":"latest""#;
    let mut session = bench.session_with(fields, &policy()).unwrap();
    assert_eq!(words(&bench.take(&mut session).0), ["subscribed Live 0/14"]);
    let mut start = 10;
    let mut altered = async |bench: &mut Bench, relation: &Arc<Relation>| {
        start += 10;
        bench.source.defined.lock().unwrap().push(Arc::clone(relation));
        bench.append(vec![written(start, start + 10, &[insert(relation, true)])], 0).await;
        bench.route();
    };
    altered(&mut bench, &whole).await;
    let (messages, _) = bench.take(&mut session);
    assert_eq!(words(&messages), ["relation f id,x", r#"transaction 0/1E {"id":"1","x":"in"}"#]);
    // The definition in which nothing was given of it is the same as before.
    altered(&mut bench, &keys).await;
    assert_eq!(words(&bench.take(&mut session).0), ["error cursor_too_old"]);
    altered(&mut bench, &whole).await;
    // For others of the shape, too, who were not there when that was not given; also of what the router has passed over.
    let mut other = bench.session_with(r#""tables":[{"table":"*"}],"cursor":"latest""#, &policy()).unwrap();
    bench.take(&mut other);
    for from in [1, 10] {
        assert_eq!(ends(&bench, r#"[{"table":"*"}]"#, &policy(), at(from)).unwrap().oldest, Some(at(40)));
    }
}

#[tokio::test]
async fn what_the_router_passed_over_while_nothing_was_given_is_not_passed_over_by_who_was_given_some() {
    use Shape::{Full, Keys};
    let mut bench = log(1 << 20, &[(0, Full)], [Keys, Full, Full]).await;
    let all = r#"[{"table":"*"}]"#;
    // Keeps the shape, which is given nothing of the table as it is now.
    let mut first = bench.session_with(&format!(r#""tables":{all},"cursor":"latest""#), &policy()).unwrap();
    bench.take(&mut first);
    for (number, shape) in [(1, Keys), (2, Full)] {
        bench.source.defined.lock().unwrap().push(defined("f", shape));
        bench.append(parts(number, &[(0, shape)]), 0).await;
        bench.route();
    }
    assert_eq!(ends(&bench, all, &policy(), at(20)).expect("an error").oldest, Some(at(30)));
    assert_eq!(error(&bench.take(&mut first).0), None);
}

/// A subscription to everything from where the first change ends, of somebody who has its row; asked for as far as the tables
/// are to be bound.
fn back(bench: &Bench) -> Session {
    let mut session = bench.session_with(r#""tables":[{"table":"*"}],"cursor":"0/14""#, &policy()).unwrap();
    assert!(matches!(session.next(), Step::Ask(Question::Tables { now: false })));
    session.answer(Answer::Tables(Ok(Arc::new(bench.source.tables.lock().unwrap().clone()))));
    assert!(matches!(
        session.next(),
        Step::Ask(Question::Schemas { freshness: Freshness::Lately, insist: false, .. })
    ));
    session
}

async fn alter(bench: &mut Bench, number: u64, shape: Shape) {
    bench.source.defined.lock().unwrap().push(defined("f", shape));
    bench.append(parts(number, &[(0, shape)]), 0).await;
    bench.route();
}

#[tokio::test]
async fn who_comes_back_while_a_table_is_not_given_is_given_no_more_of_it_when_it_is_again() {
    use Shape::{Full, Keys};
    for memory in MEMORY {
        let mut bench = log(memory, &[(0, Full), (0, Keys)], [Keys, Full, Full]).await;
        let mut session =
            bench.session_with(r#""tables":[{"table":"*"}],"cursor":"0/14""#, &policy()).unwrap();
        let (messages, _) = bench.take(&mut session);
        assert_eq!(error(&messages), None);
        // Others of the shape have no rows of it.
        let mut other =
            bench.session_with(r#""tables":[{"table":"*"}],"cursor":"latest""#, &policy()).unwrap();
        bench.take(&mut other);
        alter(&mut bench, 2, Full).await;
        let (messages, _) = bench.take(&mut session);
        assert_eq!(words(&messages), ["error cursor_too_old"]);
        assert_eq!(error(&messages).unwrap().oldest, Some(at(40)));
        assert_eq!(error(&bench.take(&mut other).0), None);
        assert_eq!(ends(&bench, r#"[{"table":"*"}]"#, &policy(), at(40)), None);
    }
}

#[tokio::test]
async fn a_table_that_did_not_fit_lately_is_asked_for_as_it_is_now() {
    use Shape::{Full, Keys};
    for memory in MEMORY {
        let bench = log(memory, &[(0, Full), (0, Keys)], [Full; 3]).await;
        let mut session = back(&bench);
        let lately = [defined("f", Keys), defined("g", Full), defined("h", Full)];
        session.answer(Answer::Schemas(Ok(lately.into_iter().map(schema).collect())));
        let Step::Ask(Question::Schemas { tables, freshness: Freshness::Now, .. }) = session.next() else {
            panic!("it goes on with what was");
        };
        assert_eq!(tables, [defined("f", Full).name().clone()]);
        session.answer(Answer::Schemas(Ok(vec![schema(defined("f", Full))])));
        let (messages, _) = bench.take(&mut session);
        assert_eq!(error(&messages).expect("an error").oldest, Some(at(30)));
    }
}

#[tokio::test]
async fn who_comes_back_while_the_source_is_away_misses_nothing_of_what_is_given_again() {
    use Shape::{Full, Keys};
    for memory in MEMORY {
        let bench = log(memory, &[(0, Full), (0, Keys), (1, Full), (0, Full)], [Full; 3]).await;
        let mut session = back(&bench);
        session.answer(Answer::Schemas(Err(Refusal::bad("away"))));
        let (messages, _) = bench.take(&mut session);
        assert_eq!(error(&messages).expect("an error").oldest, Some(at(50)));
        // Where it is known already that it is given in another definition, nothing of it is passed over.
        let mut other =
            bench.session_with(r#""tables":[{"table":"*"}],"cursor":"latest""#, &policy()).unwrap();
        bench.take(&mut other);
        let mut session = back(&bench);
        session.answer(Answer::Schemas(Err(Refusal::bad("away"))));
        let (messages, _) = bench.take(&mut session);
        assert_eq!(error(&messages).expect("an error").oldest, Some(at(30)));
        assert!(!words(&messages).iter().any(|word| word.starts_with("transaction")), "{messages:?}");
    }
}

/// What a reach that is kept says, of which every client asks the same.
async fn first(reach: &Reach, bench: &Bench, from: Cursor) -> Reached {
    let session = bench.session(&format!(r#""tables":{F},"cursor":"0/1""#)).unwrap();
    let catalog = Catalog::new(bench.source.copy());
    unconstrained(reach.first(session.shape().wanted(), from, &bench.world.feed, &catalog)).await.unwrap()
}

#[tokio::test]
async fn a_thousand_clients_have_history_searched_once_and_then_only_what_is_new() {
    use Shape::{Full, Keys};
    let mut bench = log(1, &[(0, Full), (0, Keys), (0, Full), (0, Full)], [Full; 3]).await;
    let past = bench.past.copy();
    let reach = Reach::new(past.clone(), TaskTracker::new());
    for from in [10, 1].into_iter().chain((0..1000).map(|_| 15)) {
        assert_eq!(first(&reach, &bench, at(from)).await, Reached::From(at(30)));
    }
    assert_eq!(first(&reach, &bench, at(35)).await, Reached::From(at(35)));
    assert_eq!(past.searched.lock().unwrap().len(), 1);
    let more = parts(4, &[(0, Keys), (0, Full), (1, Full), (1, Full)]);
    past.parts.lock().unwrap().extend(more.clone());
    bench.append(more, 0).await;
    assert_eq!(first(&reach, &bench, at(5)).await, Reached::From(at(60)));
    assert_eq!(first(&reach, &bench, at(5)).await, Reached::From(at(60)));
    let searched = past.searched.lock().unwrap().clone();
    assert_eq!(searched.len(), 2);
    assert!(searched[1].0 >= at(40), "{searched:?}");
}

#[tokio::test]
async fn a_search_goes_on_without_those_who_asked_for_it() {
    use Shape::{Full, Keys};
    let bench = log(1, &[(0, Full), (0, Keys), (0, Full), (0, Full)], [Full; 3]).await;
    let past = bench.past.copy();
    past.hangs.send_replace(true);
    let reach = Reach::new(past.clone(), TaskTracker::new());
    assert!(first(&reach, &bench, at(1)).now_or_never().is_none());
    past.hangs.send_replace(false);
    assert_eq!(first(&reach, &bench, at(1)).await, Reached::From(at(30)));
    assert_eq!(past.searched.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_searched_again_after_a_while_and_not_by_everybody() {
    use Shape::{Full, Keys};
    let bench = log(1, &[(0, Full), (0, Keys), (0, Full), (0, Full)], [Full; 3]).await;
    let past = bench.past.copy();
    past.gives_up.store(true, Ordering::Relaxed);
    let reach = Reach::new(past.clone(), TaskTracker::new());
    let later = first(&reach, &bench, at(1)).await;
    assert!(matches!(later, Reached::From(cursor) if cursor > at(30)), "{later:?}");
    past.gives_up.store(false, Ordering::Relaxed);
    for _ in 0..1000 {
        assert_eq!(first(&reach, &bench, at(1)).await, later);
    }
    assert_eq!(past.searched.lock().unwrap().len(), 1);
    tokio::time::advance(Duration::from_secs(61)).await;
    for _ in 0..1000 {
        assert_eq!(first(&reach, &bench, at(1)).await, Reached::From(at(30)));
    }
    assert_eq!(past.searched.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_tables_of_a_pattern_are_asked_for_once_for_all_who_come_back() {
    use Shape::Full;
    let bench = log(1, &[(0, Full), (1, Full), (2, Full)], [Full; 3]).await;
    let source = bench.source.copy();
    let catalog = Catalog::new(source.clone());
    let reach = Reach::new(bench.past.copy(), TaskTracker::new());
    let session = bench.session_with(r#""tables":[{"table":"*"}],"cursor":"0/1""#, &policy()).unwrap();
    let wanted = session.shape().wanted();
    // Within the two seconds for which what was lately is trusted.
    for _ in 0..500 {
        let first = unconstrained(reach.first(wanted, at(1), &bench.world.feed, &catalog)).await;
        assert_eq!(first.unwrap(), Reached::From(at(1)));
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert_eq!(source.named.load(Ordering::Relaxed), source.tables.lock().unwrap().len());
}

fn any_shape() -> impl Strategy<Value = Shape> {
    prop_oneof![3 => Just(Shape::Full), 1 => Just(Shape::Keys), 1 => Just(Shape::Without)]
}

proptest! {
    /// Whatever was altered when: where an error names a position, a subscription from there on is served to the end; where
    /// it names none, none would be.
    #[test]
    fn a_position_that_is_named_can_be_resumed_at(
        changes in prop::collection::vec((0..3_usize, any_shape()), 1..12),
        now in [any_shape(), any_shape(), any_shape()],
        kind in 0..3_usize, memory in 0..2_usize, oldest in 0..4_u64, split in 0..12_usize,
    ) {
        let (tables, rights) = [
            (F, Rights::Everything),
            (r#"[{"table":"public.f","where":"x = 'in'"},{"table":"public.h","where":"id = '1'"},{"table":"public.g","where":"x = 'in'"}]"#, Rights::Everything),
            (r#"[{"table":"public.*"}]"#, policy()),
        ][kind].clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (before, after) = changes.split_at(split.min(changes.len()));
            let mut bench = log([1 << 20, 300][memory], before, now).await;
            bench.past.oldest = at(oldest * 10 + 1).min(bench.world.feed.oldest());
            let mut live = bench.session_with(&format!(r#""tables":{tables},"cursor":"latest""#), &rights).unwrap();
            let refused = error(&bench.take(&mut live).0).cloned();
            bench.append(parts(before.len() as u64, after), 0).await;
            bench.route();
            let head = bench.world.feed.head();
            let mut ended = Vec::new();
            if refused.is_none() {
                ended.extend(error(&bench.take(&mut live).0).cloned().map(|error| (at(1), error)));
            }
            for from in 0..=changes.len() as u64 + 1 {
                let from = at(from * 10 + 1).min(head);
                ended.extend(ends(&bench, tables, &rights, from).map(|error| (from, error)));
            }
            for (from, error) in ended {
                match (&error.code, error.oldest) {
                    (ErrorCode::CursorTooOld, Some(oldest)) => {
                        prop_assert!(oldest > from && oldest <= head, "{from} {error:?}");
                        let again = ends(&bench, tables, &rights, oldest);
                        prop_assert!(again.is_none(), "{from} {error:?}: {again:?}");
                    }
                    (ErrorCode::CursorTooOld, None) => {
                        prop_assert!(ends(&bench, tables, &rights, head).is_some(), "{from} {error:?}");
                    }
                    // As the tables are now.
                    (ErrorCode::IdentityRequired | ErrorCode::BadFilter, None) => {}
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            Ok(())
        })?;
    }
}
