//! Which rows a subscription with a filter is told of.

use std::sync::Arc;

use walcast_model::{Op, Part, Relation};
use walcast_protocol::ServerMessage;

use crate::encode::Gap;
use crate::limits::Limits;
use crate::shape::Next;
use crate::testing::{Bench, Write, at, full, published, table, words, written};

/// Every change as the client has it.
fn changes(messages: &[ServerMessage]) -> Vec<String> {
    let transactions = messages.iter().filter_map(|message| match message {
        ServerMessage::Transaction(transaction) => Some(&transaction.changes),
        _ => None,
    });
    transactions.flatten().map(|change| serde_json::to_string(change).unwrap()).collect()
}

/// `public.f (id, x, y)` with the identity FULL, as the source has it.
fn of_full(bench: &Bench) -> Arc<Relation> {
    let relation = full(&table("f", &["x", "y"]));
    bench.source.tables.lock().unwrap().push(published(&relation));
    bench.source.defined.lock().unwrap().push(Arc::clone(&relation));
    relation
}

/// A row that comes into `x = 'in'`, changes in it, leaves it, comes in by an insert, leaves by a delete, and others.
fn crossing(f: &Arc<Relation>) -> Vec<Part> {
    let update = |texts| Write(Op::Update, Arc::clone(f), texts);
    vec![
        written(
            10,
            20,
            &[
                Write(Op::Insert, Arc::clone(f), [r#"{"id":1}"#, r#"{"id":1,"x":"out","y":"a"}"#, ""]),
                update([r#"{"id":1}"#, r#"{"id":2,"x":"in","y":"b"}"#, r#"{"id":1,"x":"out","y":"a"}"#]),
                update([r#"{"id":2}"#, r#"{"id":2,"x":"in","y":"c"}"#, r#"{"id":2,"x":"in","y":"b"}"#]),
                update([r#"{"id":2}"#, r#"{"id":2,"x":null,"y":"d"}"#, r#"{"id":2,"x":"in","y":"c"}"#]),
                update([r#"{"id":2}"#, r#"{"id":2,"x":"out","y":"e"}"#, r#"{"id":2,"x":null,"y":"d"}"#]),
            ],
        ),
        written(
            20,
            30,
            &[
                Write(Op::Insert, Arc::clone(f), [r#"{"id":5}"#, r#"{"id":5,"x":"in","y":"f"}"#, ""]),
                Write(Op::Delete, Arc::clone(f), [r#"{"id":5}"#, "", r#"{"id":5,"x":"in","y":"f"}"#]),
                Write(Op::Delete, Arc::clone(f), [r#"{"id":2}"#, "", r#"{"id":2,"x":"out","y":"e"}"#]),
                Write(Op::Truncate, Arc::clone(f), ["", "", ""]),
            ],
        ),
        written(30, 40, &[Write(Op::Delete, Arc::clone(f), [r#"{"id":9}"#, "", r#"{"id":9,"x":"out"}"#])]),
    ]
}

const CROSSED: [&str; 6] = [
    r#"{"op":"insert","table":"public.f","key":{"id":2},"row":{"id":2,"x":"in","y":"b"}}"#,
    r#"{"op":"update","table":"public.f","key":{"id":2},"row":{"id":2,"x":"in","y":"c"},"old":{"id":2,"x":"in","y":"b"}}"#,
    r#"{"op":"delete","table":"public.f","key":{"id":2}}"#,
    r#"{"op":"insert","table":"public.f","key":{"id":5},"row":{"id":5,"x":"in","y":"f"}}"#,
    r#"{"op":"delete","table":"public.f","key":{"id":5},"old":{"id":5,"x":"in","y":"f"}}"#,
    r#"{"op":"truncate","table":"public.f"}"#,
];

#[tokio::test]
async fn a_row_that_comes_in_is_inserted_and_one_that_leaves_is_deleted_live_and_from_history() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let f = of_full(&bench);
    let fields = r#""tables":[{"table":"public.f","where":"x = 'in'"}]"#;
    let mut live = bench.session(&format!(r#"{fields},"cursor":"latest""#)).unwrap();
    assert_eq!(words(&bench.take(&mut live).0), ["subscribed Live 0/1"]);
    bench.append(crossing(&f), 0).await;
    bench.route();
    let (messages, _) = bench.take(&mut live);
    assert_eq!(changes(&messages), CROSSED);
    // The last transaction is of nobody's row, and no word is said about it.
    assert!(matches!(live.shape().next(at(30)), Next::Nothing));
    let mut behind = bench.session(&format!(r#"{fields},"cursor":"0/1""#)).unwrap();
    assert_eq!(changes(&bench.take(&mut behind).0), CROSSED);
    // Of the columns that are asked for, and of the others that the filter looks at none.
    let fields = r#""tables":[{"table":"public.f","where":"x = 'in'","columns":["y"]}],"cursor":"0/1""#;
    let mut narrow = bench.session(fields).unwrap();
    let narrow = changes(&bench.take(&mut narrow).0);
    assert_eq!(narrow[0], r#"{"op":"insert","table":"public.f","key":{"id":2},"row":{"id":2,"y":"b"}}"#);
    assert_eq!(narrow.len(), CROSSED.len());
    assert!(narrow.iter().all(|change| !change.contains(r#""x""#)), "{narrow:?}");
}

#[tokio::test]
async fn only_the_shapes_whose_rows_changed_are_told() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let f = of_full(&bench);
    let filters = ["x = 'in'", "x = 'out'", "y IN ('b', 'zz')", "x LIKE 'i%'", "x = 'nobody'", "y > 'y'"];
    let mut sessions = filters.map(|filter| {
        let fields = format!(r#""tables":[{{"table":"public.f","where":"{filter}"}}],"cursor":"latest""#);
        let mut session = bench.session(&fields).unwrap();
        bench.take(&mut session);
        session
    });
    // The definition comes, and the filters are bound to it already.
    bench.append(crossing(&f), 0).await;
    bench.route();
    let concerned = sessions.each_ref().map(|session| !matches!(session.shape().next(at(1)), Next::Nothing));
    assert_eq!(concerned, [true, true, true, true, true, true], "by the truncate");
    let told = sessions.each_mut().map(|session| changes(&bench.take(session).0).len());
    assert_eq!(told, [6, 6, 3, 6, 1, 1]);
    let more = written(
        40,
        50,
        &[Write(Op::Insert, Arc::clone(&f), [r#"{"id":7}"#, r#"{"id":7,"x":"in","y":"zz"}"#, ""])],
    );
    bench.append(vec![more], 0).await;
    bench.route();
    let concerned = sessions.each_ref().map(|session| !matches!(session.shape().next(at(40)), Next::Nothing));
    assert_eq!(concerned, [true, false, true, true, false, true]);
}

#[tokio::test]
async fn a_filter_that_does_not_fit_is_refused_at_once_with_what_to_do() {
    let bench = Bench::new(1 << 20, Limits::default());
    of_full(&bench);
    let refused = [
        (r#"{"table":"public.f","where":"q = 1"}"#, "error bad_filter", "q"),
        (r#"{"table":"public.f","where":"x = 'in' AND length(y) = 2"}"#, "error bad_filter", "function"),
        (r#"{"table":"public.a","where":"x = 'in'"}"#, "error identity_required", "replica identity"),
        (r#"{"table":"public.none","where":"x = 'in'"}"#, "error unknown_table", "none"),
    ];
    for cursor in ["0/1", "0/0"] {
        for (entry, word, about) in refused {
            let made = bench.session(&format!(r#""tables":[{entry}],"cursor":"{cursor}""#));
            let (code, text) = match made {
                Err(refusal) => (format!("error {}", refusal.code), refusal.message),
                Ok(mut session) => {
                    let (messages, _) = bench.take(&mut session);
                    let Some(ServerMessage::Error(error)) = messages.last() else {
                        // The initial sync finds out about a table that does not exist.
                        assert!(word.contains("unknown_table") && cursor == "0/0", "{messages:?}");
                        continue;
                    };
                    let hint = error.hint.clone().unwrap_or_default();
                    assert!(!hint.is_empty(), "{error:?}");
                    (format!("error {}", error.code), error.message.clone())
                }
            };
            assert_eq!(code, word, "{entry}: {text}");
            assert!(text.contains(about), "{text}");
        }
    }
}

#[tokio::test]
async fn a_definition_that_is_new_is_bound_when_it_comes_and_one_that_the_filter_does_not_fit_ends_it() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let f = of_full(&bench);
    let mut session =
        bench.session(r#""tables":[{"table":"public.f","where":"x = 'in'"}],"cursor":"latest""#).unwrap();
    bench.take(&mut session);
    let wider = full(&table("f", &["z", "x", "y"]));
    let insert = |relation: &Arc<Relation>, key, row| Write(Op::Insert, Arc::clone(relation), [key, row, ""]);
    let first = insert(&f, r#"{"id":1}"#, r#"{"id":1,"x":"in","y":"a"}"#);
    let second = insert(&wider, r#"{"id":2}"#, r#"{"id":2,"z":1,"x":"in","y":"a"}"#);
    let third = insert(&wider, r#"{"id":3}"#, r#"{"id":3,"z":1,"x":"out","y":"a"}"#);
    bench.append(vec![written(10, 20, &[first, second, third])], 0).await;
    bench.route();
    let (messages, _) = bench.take(&mut session);
    assert_eq!(
        words(&messages),
        [
            "relation f id,x,y",
            r#"transaction 0/A:1 {"id":1,"x":"in","y":"a"} more"#,
            "relation f id,z,x,y",
            r#"transaction 0/14 {"id":2,"z":1,"x":"in","y":"a"}"#
        ]
    );
    let without = full(&table("f", &["z", "y"]));
    bench.append(vec![written(20, 30, &[insert(&without, r#"{"id":4}"#, r#"{"id":4,"z":1}"#)])], 0).await;
    bench.route();
    let (messages, _) = bench.take(&mut session);
    assert_eq!(words(&messages), ["error cursor_too_old"]);
    let Some(ServerMessage::Error(error)) = messages.last() else { panic!("{messages:?}") };
    assert_eq!(error.oldest, Some(at(30)));
    assert!(error.message.contains("before 0/1E has a definition that the filter does not fit"), "{error:?}");
}

#[tokio::test]
async fn a_row_that_the_wal_does_not_have_is_never_guessed() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let f = of_full(&bench);
    let mut session =
        bench.session(r#""tables":[{"table":"public.f","where":"x = 'in'"}],"cursor":"latest""#).unwrap();
    bench.take(&mut session);
    // Under FULL the server always sends the old row; this one has lost it.
    let torn = Write(Op::Update, Arc::clone(&f), [r#"{"id":1}"#, r#"{"id":1,"x":"in","y":"a"}"#, ""]);
    bench.append(vec![written(10, 20, &[torn])], 0).await;
    bench.route();
    assert_eq!(words(&bench.take(&mut session).0), ["error identity_required"]);
}

#[tokio::test]
async fn a_table_that_changes_its_definition_often_in_one_transaction_is_told_whole() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let f = of_full(&bench);
    let mut session =
        bench.session(r#""tables":[{"table":"public.f","where":"x = 'in'"}],"cursor":"latest""#).unwrap();
    bench.take(&mut session);
    let second = full(&table("f", &["z", "x", "y"]));
    let third = full(&table("f", &["z", "w", "x", "y"]));
    let insert = |relation: &Arc<Relation>, key, row| Write(Op::Insert, Arc::clone(relation), [key, row, ""]);
    let changed = [
        insert(&f, r#"{"id":1}"#, r#"{"id":1,"x":"in"}"#),
        insert(&second, r#"{"id":2}"#, r#"{"id":2,"z":1,"x":"in"}"#),
        insert(&third, r#"{"id":3}"#, r#"{"id":3,"z":1,"w":1,"x":"in"}"#),
    ];
    bench.append(vec![written(10, 20, &changed)], 0).await;
    bench.route();
    assert_eq!(changes(&bench.take(&mut session).0).len(), 3);
}

#[tokio::test]
async fn a_binding_that_another_session_takes_back_loses_nothing() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let f = of_full(&bench);
    let fields = r#""tables":[{"table":"public.f","where":"x = 'in'"}],"cursor":"latest""#;
    let mut sessions = [bench.session(fields).unwrap(), bench.session(fields).unwrap()];
    for session in &mut sessions {
        bench.take(session);
    }
    let insert = Write(Op::Insert, Arc::clone(&f), [r#"{"id":7}"#, r#"{"id":7,"x":"in","y":"zz"}"#, ""]);
    let part = written(10, 20, &[insert]);
    bench.append(vec![part.clone()], 0).await;
    bench.route();
    let [one, two] = &mut sessions;
    one.shape().wanted().unbind(&f);
    // Nobody may keep, or take for nothing, what comes of it without the binding.
    assert!(matches!(two.shape().frames(&part).gap, Some(Gap::Unbound(_))));
    for session in [one, two] {
        assert_eq!(changes(&bench.take(session).0).len(), 1);
    }
}
