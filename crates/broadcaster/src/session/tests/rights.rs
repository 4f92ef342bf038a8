//! What a subscription may have, also when that changes while it runs.

use std::sync::Arc;

use walcast_filter::Filter;
use walcast_model::{Op, Relation};
use walcast_policy::{Grant, Rights};
use walcast_protocol::{ErrorCode, ServerMessage};
use walcast_snapshot::SnapshotEvent;

use crate::acks::Position;
use crate::limits::Limits;
use crate::refusal::Refusal;
use crate::session::{Answer, Question, Step};
use crate::testing::{Bench, Write, at, full, published, table, words, written};

fn grant(columns: Option<&[&str]>, rows: Option<&str>) -> Grant {
    Grant {
        meta: false,
        columns: columns.map(|columns| columns.iter().map(ToString::to_string).collect()),
        rows: rows.map(|rows| Filter::parse(rows).unwrap()),
    }
}

fn rights(of: &[(&str, Grant)]) -> Rights {
    Rights::Granted(of.iter().map(|(table, grant)| (table.parse().unwrap(), Ok(grant.clone()))).collect())
}

/// `public.f (id, owner, secret)` with the identity FULL, with rows of two owners.
async fn shared() -> Bench {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let f = full(&table("f", &["owner", "secret"]));
    bench.source.tables.lock().unwrap().push(published(&f));
    bench.source.defined.lock().unwrap().push(Arc::clone(&f));
    let write = |op, texts| Write(op, Arc::clone(&f), texts);
    let rows = [
        write(Op::Insert, [r#"{"id":1}"#, r#"{"id":1,"owner":"ann","secret":"s1"}"#, ""]),
        write(Op::Insert, [r#"{"id":2}"#, r#"{"id":2,"owner":"bob","secret":"s2"}"#, ""]),
        write(
            Op::Update,
            [
                r#"{"id":1}"#,
                r#"{"id":1,"owner":"bob","secret":"s3"}"#,
                r#"{"id":1,"owner":"ann","secret":"s1"}"#,
            ],
        ),
        write(Op::Delete, [r#"{"id":2}"#, "", r#"{"id":2,"owner":"bob","secret":"s2"}"#]),
    ];
    bench.append(vec![written(10, 20, &rows)], 0).await;
    bench.route();
    bench
}

fn told(messages: &[ServerMessage]) -> String {
    messages.iter().map(ServerMessage::to_json).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn rows_and_columns_of_others_are_not_told_and_what_is_lost_is_a_key() {
    let bench = shared().await;
    let ann = rights(&[("*", grant(Some(&["owner"]), Some("owner = 'ann'")))]);
    for entry in [r#"{"table":"public.f"}"#, r#"{"table":"public.*"}"#, r#"{"table":"*"}"#] {
        let fields = format!(r#""tables":[{entry}],"cursor":"0/1""#);
        let mut session = bench.session_with(&fields, &ann).unwrap();
        let text = told(&bench.take(&mut session).0);
        assert!(!text.contains("secret") && !text.contains("bob") && !text.contains(r#""id":2"#), "{text}");
        let changes = r#""changes":[{"op":"insert","table":"public.f","key":{"id":1},"row":{"id":1,"owner":"ann"}},{"op":"delete","table":"public.f","key":{"id":1}}]"#;
        assert!(text.contains(changes), "{text}");
    }
}

#[tokio::test]
async fn what_may_not_be_had_is_refused_whether_or_not_it_exists() {
    let bench = shared().await;
    let ann = rights(&[("public.f", grant(Some(&["owner"]), Some("owner = 'ann'")))]);
    let refused = |entry: &str| {
        let made = bench.session_with(&format!(r#""tables":[{entry}],"cursor":"0/1""#), &ann);
        match made {
            Err(refusal) => format!("{} {}", refusal.code, refusal.message),
            Ok(mut session) => match bench.take(&mut session).0.pop() {
                Some(ServerMessage::Error(error)) => {
                    format!("{} {} {}", error.code, error.message, error.hint.unwrap_or_default())
                }
                other => panic!("{other:?}"),
            },
        }
    };
    let same = |one: &str, other: &str, name: &str, none: &str| {
        assert_eq!(refused(one).replace(name, none), refused(other), "{one}");
    };
    same(r#"{"table":"public.a"}"#, r#"{"table":"public.q"}"#, "public.a", "public.q");
    let (one, other) =
        (r#"{"table":"public.f","columns":["secret"]}"#, r#"{"table":"public.f","columns":["q"]}"#);
    same(one, other, "secret", "q");
    assert!(refused(one).starts_with("forbidden"));
    // Nor is it found out by a filter, or by what one that is wrong says.
    let (one, other) =
        (r#"{"table":"public.f","where":"secret = 's1'"}"#, r#"{"table":"public.f","where":"q = 's1'"}"#);
    same(one, other, "secret", "q");
    assert!(
        refused(one).starts_with("bad_filter") && !refused(other).contains("secret"),
        "{}",
        refused(other)
    );
    // A policy that does not fit the table gives nothing, and says nothing of itself.
    let broken = rights(&[("*", grant(None, Some("tenant_id = 7")))]);
    let mut session =
        bench.session_with(r#""tables":[{"table":"public.f"}],"cursor":"0/1""#, &broken).unwrap();
    let text = told(&bench.take(&mut session).0);
    assert!(text.contains("forbidden") && !text.contains("tenant"), "{text}");
    let mut all = bench.session_with(r#""tables":[{"table":"*"}],"cursor":"0/1""#, &broken).unwrap();
    assert_eq!(words(&bench.take(&mut all).0), ["subscribed Live 0/1"]);
}

#[tokio::test]
async fn what_was_acknowledged_under_other_rights_is_no_place_to_go_on_at() {
    let mut bench = shared().await;
    let ann = rights(&[("public.f", grant(None, Some("owner = 'ann'")))]);
    let bob = rights(&[("public.f", grant(None, Some("owner = 'bob'")))]);
    let fields = r#""tables":[{"table":"public.f"}],"client_id":"c","cursor":"acked""#;
    let own = bench.session_with(fields, &ann).unwrap().rights();
    assert!(own.is_some() && bench.session(fields).unwrap().rights().is_none());
    for (acknowledged, now, first) in [
        (own.as_deref(), &ann, "subscribed Live 0/1"),
        (own.as_deref(), &bob, "subscribed Snapshot 0/0"),
        // Before there were policies, or before it was noted; and since there are none.
        (None, &ann, "subscribed Snapshot 0/0"),
        (own.as_deref(), &Rights::Everything, "subscribed Snapshot 0/0"),
        (None, &Rights::Everything, "subscribed Live 0/1"),
    ] {
        let rights = acknowledged.map(Arc::from);
        bench.acked = Some(Position { feed: None, cursor: at(1), rights });
        let mut session = bench.session_with(fields, now).unwrap();
        assert_eq!(words(&bench.take(&mut session).0)[0], first, "{acknowledged:?}");
    }
}

#[tokio::test]
async fn other_rights_make_it_start_over_and_equal_ones_change_nothing() {
    let bench = shared().await;
    let ann = rights(&[("public.f", grant(None, Some("owner = 'ann'")))]);
    let mut session = bench.session_with(r#""tables":[{"table":"public.f"}],"cursor":"0/1""#, &ann).unwrap();
    bench.take(&mut session);
    let more = rights(&[("public.f", grant(None, Some("owner='ann'"))), ("public.a", grant(None, None))]);
    assert!(!session.change_rights(&more), "what concerns it is the same");
    let bob = rights(&[("public.f", grant(None, Some("owner = 'bob'")))]);
    let f = bench.source.defined.lock().unwrap().last().cloned().unwrap();
    *bench.source.events.lock().unwrap() = vec![
        SnapshotEvent::Relation(Arc::clone(&f)),
        SnapshotEvent::Progress { done: 1, estimate: 1 },
        SnapshotEvent::Rows { relation: f, json: r#"{"id":1,"owner":"bob","secret":"s3"}"#.into(), count: 1 },
        SnapshotEvent::Done { snapshot: "11:11:".parse().unwrap(), barrier: at(20) },
    ];
    assert!(session.change_rights(&bob));
    let (messages, _) = bench.take(&mut session);
    assert_eq!(
        words(&messages),
        [
            "subscribed Snapshot 0/0",
            "relation f id,owner,secret",
            r#"snapshot f {"id":1,"owner":"bob","secret":"s3"}"#,
            "complete 0/14",
            "caught_up 0/14"
        ]
    );
    assert!(session.change_rights(&rights(&[])));
    let (messages, wait) = bench.take(&mut session);
    let Some(ServerMessage::Error(error)) = messages.first() else { panic!("{messages:?}") };
    assert_eq!((&error.code, wait), (&ErrorCode::Forbidden, None));
    assert!(!session.change_rights(&bob), "it is over");
}

#[tokio::test]
async fn a_policy_that_does_not_fit_any_more_ends_it_and_never_leaves_a_hole() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let narrow = table("f", &["owner"]);
    let f = full(&narrow);
    bench.source.tables.lock().unwrap().push(published(&f));
    bench.source.defined.lock().unwrap().push(Arc::clone(&f));
    let ann = rights(&[("*", grant(None, Some("owner = 'ann'")))]);
    let fields = r#""tables":[{"table":"public.*"}],"cursor":"latest""#;
    let mut session = bench.session_with(fields, &ann).unwrap();
    bench.take(&mut session);
    let insert = |relation: &Arc<Relation>, key, row| Write(Op::Insert, Arc::clone(relation), [key, row, ""]);
    let first = insert(&f, r#"{"id":1}"#, r#"{"id":1,"owner":"ann"}"#);
    // A replica identity without the policy's column.
    let second = insert(&narrow, r#"{"id":2}"#, r#"{"id":2,"owner":"ann"}"#);
    let third = insert(&f, r#"{"id":3}"#, r#"{"id":3,"owner":"ann"}"#);
    let parts = [first, second, third].into_iter().zip(1..);
    let parts = parts.map(|(write, n)| written(n * 10, n * 10 + 10, &[write])).collect();
    bench.append(parts, 0).await;
    bench.route();
    assert_eq!(
        words(&bench.take(&mut session).0),
        ["relation f id,owner", r#"transaction 0/14 {"id":1,"owner":"ann"}"#, "error cursor_too_old"]
    );
    // Who begins while it does not fit is given nothing of the table, and the rest of the pattern.
    *bench.source.defined.lock().unwrap().last_mut().unwrap() = Arc::clone(&narrow);
    drop(session);
    let mut later = bench.session_with(fields, &ann).unwrap();
    bench.take(&mut later);
    bench
        .append(vec![written(40, 50, &[insert(&narrow, r#"{"id":4}"#, r#"{"id":4,"owner":"ann"}"#)])], 0)
        .await;
    bench.route();
    assert_eq!(words(&bench.take(&mut later).0), [] as [&str; 0]);
}

#[tokio::test]
async fn a_hidden_column_is_not_named_when_it_cannot_be_told() {
    let mut bench = shared().await;
    let f = bench.source.defined.lock().unwrap().last().cloned().unwrap();
    let ann = rights(&[("public.f", grant(Some(&["secret"]), Some("owner = 'ann'")))]);
    let mut session =
        bench.session_with(r#""tables":[{"table":"public.f"}],"cursor":"latest""#, &ann).unwrap();
    bench.take(&mut session);
    let torn = Write(Op::Update, f, [r#"{"id":1}"#, r#"{"id":1,"owner":"ann","secret":"a"}"#, ""]);
    bench.append(vec![written(20, 30, &[torn])], 0).await;
    bench.route();
    let text = told(&bench.take(&mut session).0);
    assert!(text.contains("identity_required") && !text.contains("owner"), "{text}");
}

#[tokio::test]
async fn what_the_source_says_of_itself_is_not_for_those_under_policies() {
    let bench = shared().await;
    let refusal = || Refusal::of_inside(ErrorCode::NotReady, "role \"inner\" may not").hint("GRANT inner");
    for (rights, knows) in [(rights(&[("*", grant(None, None))]), false), (Rights::Everything, true)] {
        let mut session = bench.session_with(r#""tables":[{"table":"public.f"}]"#, &rights).unwrap();
        while !matches!(session.next(), Step::Ask(Question::Tables { .. })) {}
        session.answer(Answer::Tables(Err(refusal())));
        let text = told(&bench.take(&mut session).0);
        assert!(text.contains("not_ready") && text.contains("inner") == knows, "{text}");
    }
}

/// What `subscribed` says of the rights of a subscription.
fn rights_told(bench: &Bench, fields: &str, rights: &Rights) -> Option<String> {
    let mut session = bench.session_with(fields, rights).unwrap();
    let (messages, _) = bench.take(&mut session);
    let told = messages.iter().find_map(|message| match message {
        ServerMessage::Subscribed(subscribed) => Some(subscribed.rights.clone()),
        _ => None,
    });
    told.expect("it is accepted")
}

#[tokio::test]
async fn a_client_that_comes_back_is_told_whether_it_has_other_rights() {
    let bench = shared().await;
    let fields = r#""tables":[{"table":"public.f"}],"cursor":"0/1""#;
    assert_eq!(rights_told(&bench, fields, &Rights::Everything), None);
    let ann = || grant(None, Some("owner = 'ann'"));
    let told = rights_told(&bench, fields, &rights(&[("public.f", ann())]));
    assert!(told.is_some());
    let same = [
        (fields, rights(&[("public.f", ann()), ("public.a", grant(None, None))])),
        (
            r#""tables":[{"table":"public.f","where":"id = '1'","columns":["owner"]}],"cursor":"0/1""#,
            rights(&[("public.f", ann())]),
        ),
        (r#""tables":[{"table":"public.f"}],"cursor":"latest""#, rights(&[("public.f", ann())])),
    ];
    for (fields, rights) in same {
        assert_eq!(rights_told(&bench, fields, &rights), told, "{fields}");
    }
    let others = [
        grant(None, None),
        grant(None, Some("owner = 'bob'")),
        grant(Some(&["owner"]), Some("owner = 'ann'")),
    ];
    for other in others {
        assert_ne!(rights_told(&bench, fields, &rights(&[("public.f", other.clone())])), told, "{other:?}");
    }
    // What is withheld of a pattern is a matter of its rights, too.
    let all = r#""tables":[{"table":"*"}],"cursor":"0/1""#;
    let everything = rights(&[("*", grant(None, None))]);
    let but_one = rights(&[("*", grant(None, None)), ("public.b", grant(None, Some("false")))]);
    assert_ne!(rights_told(&bench, all, &everything), rights_told(&bench, all, &but_one));
}
