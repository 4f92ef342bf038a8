use serde_json::json;
use walcast_model::{Cursor, Lsn, Seq};

use super::{Daemon, HistoryStatus, Listener, SlotStatus, Status};
use crate::commands::status::{ImagesStatus, Problems};
use crate::output::wrap;

fn cursor(lsn: u64) -> Option<Cursor> {
    Some(Cursor::new(Lsn::new(lsn), Seq::FIRST))
}

fn daemon(feed: &str) -> Daemon {
    let report = json!({"ready": true, "source": {"state": "streaming"}, "feed": {"id": feed, "memory_bytes": 419},
                        "history": {"lag_bytes": 0}, "reasons": []});
    let address = "127.0.0.1:4700".to_owned();
    Daemon { address, listener: Listener::Walcast, ready: true, report: Some(report), ..Daemon::default() }
}

/// A feed that is served; by the daemon that is given.
fn status(daemon: Daemon) -> Status {
    let slot = SlotStatus {
        name: "walcast".into(),
        active_pid: Some(4711),
        acknowledged: Some(Lsn::new(0x0196_BF40)),
        lag_bytes: Some(56),
        retained_bytes: Some(5 << 20),
        wal_status: Some("reserved".into()),
        safe_bytes: Some(50 << 30),
        budget_bytes: Some(10 << 30),
        wal_bytes_per_second: 2048.0,
        seconds_left: Some(90_061),
    };
    let history = HistoryStatus {
        schema_version: 9,
        bytes: 98_304,
        partitions: 1,
        oldest_age_seconds: Some(200),
        oldest_change: cursor(0x0195_B360),
        newest_change: cursor(0x0196_BF00),
        subscriptions: Some(2),
        last_images: Some(ImagesStatus { tables: vec!["public.orders".into()], bytes: 24_576 }),
    };
    let mut status = Status {
        database: "postgresql://walcast@db:5432/app".into(),
        feed: Some("c243a8dc5908a21a".into()),
        stored: cursor(0x0196_BF40),
        oldest: cursor(0x0195_B360),
        source: Some(Lsn::new(0x0196_BF78)),
        behind_bytes: Some(56),
        slot: Some(slot),
        history: Some(history),
        daemon,
        ..Status::default()
    };
    status.set_daemon(false);
    status
}

fn shown(status: &Status) -> String {
    let lines = status.lines();
    let text: Vec<String> =
        lines.iter().map(|(name, value)| format!("{name:<12}  {}", wrap(value, 14))).collect();
    assert!(text.iter().flat_map(|line| line.lines()).all(|line| line.chars().count() <= 80), "{text:#?}");
    text.join("\n")
}

#[test]
fn what_is_there_is_said_in_lines_of_80_columns() {
    insta::assert_snapshot!(shown(&status(daemon("c243a8dc5908a21a"))), @"
    state         serving
    feed          c243a8dc5908a21a
    database      postgresql://walcast@db:5432/app, WAL up to 0/196BF78
    lag           0 B read and not in history yet
                  56 B of WAL since what is stored, not all of it for the feed
    slot          walcast, read by process 4711, 56 B not acknowledged
    WAL retained  5.0 MiB of wal_budget 10.0 GiB, reserved
                  50.0 GiB until the server's limit
                  the source writes 2.0 KiB a second; unread, that lasts 1 d 1 h
    history       from 0/195B360 to 0/196BF40
                  96.0 KiB in 1 partition, the oldest 3 min 20 s old
    last images   24.0 KiB of public.orders
    clients       2 subscriptions with acknowledged positions; status --clients
                  lists them
    daemon        ready at 127.0.0.1:4700, source streaming
    ");
}

#[test]
fn a_daemon_of_another_feed_is_not_shown_as_ones_own() {
    let status = status(daemon("ffffffffffffffff"));
    let shown = shown(&status);
    assert!(shown.starts_with("state         running, but not at 127.0.0.1:4700"), "{shown}");
    assert!(!shown.contains("ready at"), "{shown}");
    assert_eq!(status.problems.texts().len(), 1);
    assert!(
        status.problems.texts()[0].contains("serves feed ffffffffffffffff, and this database has feed c243"),
        "{shown}"
    );
    // Nor is one that serves some feed while this database has none.
    let mut none = Status { feed: None, slot: None, problems: Problems::default(), ..status };
    none.set_daemon(true);
    assert_eq!((none.daemon.same_feed, none.lines()[0].1.as_str()), (Some(false), "not set up"));
    assert!(none.problems.texts()[0].contains("and this database has none"), "{:?}", none.problems);
}

#[test]
fn the_state_is_what_daemon_and_slot_say_together() {
    let state = |status: &Status| status.lines()[0].1.clone();
    assert_eq!(state(&status(daemon("c243a8dc5908a21a"))), "serving");
    let away = Daemon { address: "127.0.0.1:4700".into(), ..Daemon::default() };
    let mut stopped = status(away.clone());
    assert!(state(&stopped).starts_with("running, but not at"), "{}", state(&stopped));
    stopped.slot.as_mut().unwrap().active_pid = None;
    assert!(state(&stopped).starts_with("stopped"), "{}", state(&stopped));
    stopped.slot = None;
    assert_eq!(state(&stopped), "not set up");
    stopped.source = None;
    assert_eq!(state(&stopped), "unknown");
    // A database that is away does not hide what the daemon says.
    let alone = Status { daemon: daemon("c243a8dc5908a21a"), ..Status::default() };
    assert_eq!(
        alone.lines()[..2],
        [("state", "serving".to_owned()), ("feed", "c243a8dc5908a21a, as the daemon says".to_owned()),]
    );
    let starting =
        Daemon { listener: Listener::Walcast, problem: Some("the feed is not set up yet".into()), ..away };
    let starting = status(starting);
    assert!(state(&starting).starts_with("starting"), "{}", state(&starting));
    assert!(shown(&starting).contains("not ready at 127.0.0.1:4700: the feed is not set up yet"));
}

#[test]
fn what_the_daemon_complains_about_is_shown() {
    let mut complaining = daemon("c243a8dc5908a21a");
    complaining.report = Some(json!({"ready": true, "source": {"state": "interrupted"},
        "feed": {"id": "c243a8dc5908a21a"}, "reasons": ["the source is not read: no publication; run walcast setup"]}));
    let mut complaining = status(complaining);
    let text = shown(&complaining);
    assert!(text.starts_with("state         serving what history has"), "{text}");
    assert!(
        text.ends_with("\nproblem       the source is not read: no publication; run walcast setup"),
        "{text}"
    );
    // As long as it is read, and what else it complains about.
    let report = |state: &str, is_ready: bool| {
        Some(
            json!({"ready": is_ready, "gate": if is_ready { "open" } else { "closed" }, "source": {"state": state},
                    "feed": {"id": "c243a8dc5908a21a"}, "reasons": ["something"]}),
        )
    };
    for (state, is_ready, is_problem) in
        [("streaming", true, true), ("streaming", false, false), ("interrupted", false, true)]
    {
        (complaining.daemon.report, complaining.daemon.ready) = (report(state, is_ready), is_ready);
        complaining.problems = Problems::default();
        complaining.set_daemon(false);
        assert_eq!(
            complaining.problems.texts(),
            ["something"][..usize::from(is_problem)],
            "{state} {is_ready}"
        );
        assert_eq!(shown(&complaining).matches("something").count(), 1);
    }
    // Strangers are told whether it is ready, and nothing else.
    let mut silent = daemon("");
    silent.report = Some(json!({"ready": true}));
    let mut silent = status(silent);
    assert_eq!((silent.daemon.same_feed, silent.lines()[0].1.as_str()), (None, "serving"));
    assert!(silent.problems.is_empty(), "{:?}", silent.problems);
    // Nobody reads the slot, so it may be somebody else's.
    silent.slot.as_mut().unwrap().active_pid = None;
    silent.set_daemon(false);
    assert!(silent.lines()[0].1.starts_with("stopped"), "{:?}", silent.lines());
    assert!(
        silent.problems.texts()[0].contains("does not say here which feed it serves"),
        "{:?}",
        silent.problems
    );
    // On its own machine it would tell, had it no listener for operators.
    assert!(
        silent.problems.texts()[0].ends_with("admin_listen says: name that address with --daemon"),
        "{:?}",
        silent.problems
    );
    assert!(shown(&silent).contains("its setting admin_listen"), "{}", shown(&silent));
    silent.daemon.address = "10.0.0.7:4700".into();
    silent.set_daemon(false);
    assert!(
        silent.problems.texts()[1].ends_with("or without one on its own machine"),
        "{:?}",
        silent.problems
    );
}

#[test]
fn one_that_lets_nobody_in_is_told_apart_by_what_it_says_and_by_its_slot() {
    let state = |status: &Status| status.lines()[0].1.clone();
    let says = |report: serde_json::Value| {
        let mut daemon = daemon("c243a8dc5908a21a");
        (daemon.ready, daemon.report) = (false, Some(report));
        status(daemon)
    };
    let feed = json!({"id": "c243a8dc5908a21a"});
    assert!(
        state(&says(json!({"ready": false, "gate": "closed", "feed": feed}))).starts_with("starting: nobody")
    );
    assert!(state(&says(json!({"ready": false, "gate": "open", "feed": feed}))).starts_with("stopping: "));
    assert!(state(&says(json!({"ready": false}))).starts_with("starting or stopping: "));
    let mut without = says(json!({"ready": false, "gate": "closed", "feed": feed}));
    without.slot = None;
    assert_eq!(state(&without), "not set up");
    without.has_hole = true;
    assert_eq!(state(&without), "the feed cannot go on: its slot is gone");
    // While it goes down it takes nobody's connection, and its slot is still read.
    let silent = Daemon { listener: Listener::Silent, ..Daemon::default() };
    assert!(state(&status(silent)).starts_with("running, and nothing answers at "));
}
