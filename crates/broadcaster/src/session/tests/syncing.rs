//! Initial syncs, and their seam with the stream.

use std::sync::Arc;

use walcast_model::{Oid, Relation};
use walcast_protocol::ErrorCode;
use walcast_snapshot::SnapshotEvent;

use super::super::{Answer, Session, Step, Wait};
use crate::limits::Limits;
use crate::refusal::Refusal;
use crate::testing::{Bench, Insert, at, called, part, part_from, published, table, words};

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
async fn of_its_own_a_client_hears_what_was_committed_before_its_copy_was_replaced() {
    let a = table("a", &["x"]);
    for memory in [1, 1 << 20] {
        let mut bench = Bench::new(memory, Limits::default());
        *bench.source.events.lock().unwrap() = sync_of_a("20:20:", 30);
        let mut session = bench.session(r#""tables":[{"table":"public.a"}],"origin":"me""#).unwrap();
        let own = |at| part_from("me", at, &[Insert(at, a.clone())], at + 10);
        let others = |at| part_from("you", at, &[Insert(at, a.clone())], at + 10);
        // In the seam, and after its barrier while the client still has its old copy.
        bench.append(vec![own(20), own(30), others(40)], 0).await;
        bench.route();
        let got = words(&bench.take(&mut session).0);
        let told = |got: &[String]| -> Vec<String> {
            got.iter().filter(|word| word.starts_with("tr") || word.starts_with("co")).cloned().collect()
        };
        let expected = [
            r#"transaction - {"id":20,"x":"v20"}"#,
            "complete 0/1E",
            r#"transaction 0/28 {"id":30,"x":"v30"}"#,
            r#"transaction 0/32 {"id":40,"x":"v40"}"#,
        ];
        assert_eq!(told(&got), expected, "{memory}");
        bench.append(vec![own(50), others(60), own(70)], 0).await;
        bench.route();
        let got = words(&bench.take(&mut session).0);
        assert_eq!(told(&got), [r#"transaction 0/46 {"id":60,"x":"v60"}"#], "{memory}");
        assert_eq!(session.position(), Some(at(80)));
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

/// What an initial sync says that reads these tables, without rows.
fn sync_of(tables: &[&Arc<Relation>], snapshot: &str, barrier: u64) -> Vec<SnapshotEvent> {
    let relations = tables.iter().map(|table| SnapshotEvent::Relation(Arc::clone(table)));
    relations
        .chain([SnapshotEvent::Done { snapshot: snapshot.parse().unwrap(), barrier: at(barrier) }])
        .collect()
}

fn transactions(words: &[String]) -> Vec<&String> {
    words.iter().filter(|word| word.starts_with("transaction")).collect()
}

#[tokio::test]
async fn a_table_that_appears_during_an_initial_sync_of_all_tables_makes_it_begin_again() {
    let (a, b) = (table("a", &["x"]), table("b", &[]));
    let mut bench = Bench::new(1 << 20, Limits::default());
    bench.source.tables.lock().unwrap().retain(|table| table.name.table == "a");
    bench.source.before.lock().unwrap().push_back(Vec::new());
    *bench.source.events.lock().unwrap() = sync_of(&[&a, &b], "1:1:", 20);
    let mut session = bench.session(r#""tables":[{"table":"public.*"}]"#).unwrap();
    assert_eq!(bench.take(&mut session).1, Some(Wait::Sync));
    for event in sync_of_a("1:1:", 20) {
        session.answer(Answer::Sync(Ok(event)));
    }
    bench.source.tables.lock().unwrap().push(published(&b));
    bench.append(vec![part(10, 0, &[Insert(10, table("z", &[]))], Some(20))], 0).await;
    bench.route();
    let words = words(&bench.take(&mut session).0);
    assert_eq!(
        words[2..],
        [
            "subscribed Snapshot 0/0",
            "relation a id,x",
            "relation b id",
            "relation z id",
            r#"transaction - {"id":10}"#,
            "complete 0/14",
            "caught_up 0/14"
        ]
    );
}

#[tokio::test]
async fn a_table_that_was_renamed_before_its_rows_were_read_is_in_them_under_any_name() {
    // It was `old` when 10 and 20 wrote to it. The snapshot sees 10, and not 20.
    let new = table("a", &["x"]);
    let old = called(&new, "old");
    for tables in [r#"[{"table":"*"}]"#, r#"[{"table":"public.old"},{"table":"public.*"}]"#] {
        let mut bench = Bench::new(1 << 20, Limits::default());
        *bench.source.tables.lock().unwrap() = vec![published(&new)];
        *bench.source.events.lock().unwrap() = sync_of(&[&new], "20:31:20", 40);
        let log = vec![
            part(10, 0, &[Insert(10, old.clone())], Some(20)),
            part(20, 0, &[Insert(20, old.clone())], Some(30)),
            part(40, 0, &[Insert(40, new.clone())], Some(50)),
        ];
        // So that the search finds nothing before it, and the seam begins with the first.
        let mut session = bench.session(&format!(r#""tables":{tables}"#)).unwrap();
        bench.append(log, 3).await;
        bench.route();
        let words = words(&bench.take(&mut session).0);
        assert_eq!(
            transactions(&words),
            [r#"transaction - {"id":20,"x":"v20"}"#, r#"transaction 0/32 {"id":40,"x":"v40"}"#]
        );
    }
}

#[tokio::test]
async fn tables_that_changed_names_or_were_made_again_before_the_snapshot_leave_no_rows_of_the_other() {
    // 97 is `a` now; 98 was, when 10 wrote to it.
    let new = table("a", &["x"]);
    let other = called(&table("b", &["x"]), "a");
    let log = vec![
        part(10, 0, &[Insert(10, other), Insert(11, called(&new, "b"))], Some(20)),
        part(20, 0, &[Insert(20, new.clone())], Some(30)),
    ];
    let tables_now = [vec![published(&new)], vec![published(&new), published(&table("b", &["x"]))]];
    for (fields, now) in
        [(r#"[{"table":"public.a"}]"#, &tables_now[0]), (r#"[{"table":"*"}]"#, &tables_now[1])]
    {
        let mut bench = Bench::new(1 << 20, Limits::default());
        now.clone_into(&mut bench.source.tables.lock().unwrap());
        let synced: Vec<Arc<Relation>> = match now.len() {
            1 => vec![new.clone()],
            _ => vec![new.clone(), table("b", &["x"])],
        };
        *bench.source.events.lock().unwrap() = sync_of(&synced.iter().collect::<Vec<_>>(), "20:31:20", 30);
        let mut session = bench.session(&format!(r#""tables":{fields}"#)).unwrap();
        bench.append(log.clone(), 2).await;
        bench.route();
        let words = words(&bench.take(&mut session).0);
        assert_eq!(transactions(&words), [r#"transaction - {"id":20,"x":"v20"}"#], "{fields}");
    }
}

#[tokio::test]
async fn a_table_that_is_another_one_after_the_rows_were_read_makes_the_initial_sync_begin_again() {
    let a = table("a", &["x"]);
    let again = Arc::new(Relation::new(Oid::new(7), a.name().clone(), a.identity(), a.columns().to_vec()));
    // Renamed, or made again under its name.
    for now in [called(&a, "new"), again] {
        let mut bench = Bench::new(1 << 20, Limits::default());
        *bench.source.tables.lock().unwrap() = vec![published(&now)];
        bench.source.before.lock().unwrap().push_back(sync_of(&[&a], "10:10:", 10));
        *bench.source.events.lock().unwrap() = sync_of(&[&now], "10:10:", 10);
        let mut session = bench.session(r#""tables":[{"table":"*"}]"#).unwrap();
        bench.writer.advance(walcast_model::Lsn::new(10));
        bench.route();
        let words = words(&bench.take(&mut session).0);
        assert_eq!(words.iter().filter(|word| word.starts_with("subscribed")).count(), 2, "{words:?}");
        assert_eq!(words.last().unwrap(), "caught_up 0/A");
    }
}

/// Until it waits for the events of its initial sync.
fn asks_for_rows(bench: &Bench, session: &mut Session) {
    bench.source.before.lock().unwrap().push_back(Vec::new());
    assert_eq!(bench.take(session).1, Some(Wait::Sync));
}

#[tokio::test]
async fn a_listed_table_that_is_gone_before_it_is_read_is_no_reason_to_refuse() {
    let gone = || Answer::Sync(Err(Refusal::new(ErrorCode::UnknownTable, "there is no such table")));
    let bench = Bench::new(1 << 20, Limits::default());
    let mut session = bench.session(r#""tables":[{"table":"*"}]"#).unwrap();
    asks_for_rows(&bench, &mut session);
    bench.source.tables.lock().unwrap().retain(|table| table.name.table == "a");
    session.answer(gone());
    *bench.source.events.lock().unwrap() = sync_of_a("1:1:", 1);
    assert_eq!(words(&bench.take(&mut session).0).last().unwrap(), "caught_up 0/1");
    // One that is there by its name, and yet cannot be read, is one. So is one that the client has named.
    for (fields, left) in [(r#"[{"table":"*"}]"#, 3), (r#"[{"table":"*"},{"table":"public.b"}]"#, 1)] {
        let bench = Bench::new(1 << 20, Limits::default());
        let mut session = bench.session(&format!(r#""tables":{fields}"#)).unwrap();
        asks_for_rows(&bench, &mut session);
        bench.source.tables.lock().unwrap().truncate(left);
        for _ in 0..2 {
            session.answer(gone());
            let step = session.next();
            if !matches!(step, Step::Ask(_)) {
                break;
            }
            let tables = bench.source.tables.lock().unwrap().clone();
            session.answer(Answer::Tables(Ok(Arc::new(tables))));
            asks_for_rows_or_ends(&bench, &mut session);
        }
        let (messages, wait) = bench.take(&mut session);
        assert_eq!((words(&messages), wait), (Vec::new(), None), "{fields}");
    }
}

fn asks_for_rows_or_ends(bench: &Bench, session: &mut Session) {
    bench.source.before.lock().unwrap().push_back(Vec::new());
    let (messages, wait) = bench.take(session);
    let refused = words(&messages).last().is_some_and(|word| word == "error unknown_table");
    assert!(refused == wait.is_none() && (refused || wait == Some(Wait::Sync)), "{messages:?}");
}
