//! What is asked of real servers, and of those that do not answer.

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use walcast_postgres::ConnectionConfig;
use walcast_replication::publication::PublicationSettings;
use walcast_replication::slot::SlotSettings;
use walcast_testkit::{TestDatabase, shared_cluster};

use super::Status;
use crate::commands::setup::{StartOver, Target, prepare};

/// An address where nobody listens.
const NOWHERE: &str = "127.0.0.1:1";

fn config(url: &str) -> ConnectionConfig {
    ConnectionConfig::parse(url, &|_| None).unwrap()
}

fn target(url: &str, slot: &str) -> Target {
    Target {
        source: config(url),
        history: config(url),
        publication: PublicationSettings::new("walcast"),
        slot: SlotSettings::new(slot),
    }
}

async fn set_up(target: &Target) {
    prepare(target, StartOver::Never, &mut |_| ()).await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn the_slot_of_another_database_is_not_taken_for_ones_own() {
    let cluster = shared_cluster().await;
    let (one, other) = (TestDatabase::create(cluster).await, TestDatabase::create(cluster).await);
    let slot = one.slot_name();
    set_up(&target(one.url(), &slot)).await;
    let status = Status::gather(&target(other.url(), &slot), NOWHERE, None).await;
    assert!(status.slot.is_none(), "{status:?}");
    let said = status.problems.texts().join("\n");
    assert!(said.contains("is not walcast's: it belongs to database") && said.contains("--slot"), "{said}");
    assert!(!said.contains("there is no slot"), "{said}");
    assert_eq!(status.lines()[0].1, "not set up");
}

#[tokio::test]
async fn a_slot_that_is_gone_is_said_with_what_that_means_for_the_feed() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let target = target(database.url(), &database.slot_name());
    set_up(&target).await;
    database.scalar(&format!("SELECT pg_drop_replication_slot('{}')", target.slot.name)).await;
    let status = Status::gather(&target, NOWHERE, None).await;
    assert_eq!(status.lines()[0].1, "the feed cannot go on: its slot is gone");
    let said = status.problems.texts().join("\n");
    assert!(said.contains("does not exist any more") && said.contains("--start-over"), "{said}");
}

#[tokio::test]
async fn a_slot_that_is_gone_or_left_over_is_not_to_be_mended_by_setup_alone() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let target = target(database.url(), &database.slot_name());
    let said = async |target: &Target| Status::gather(target, NOWHERE, None).await.problems.texts();
    // Neither is there.
    let none = said(&target).await;
    assert_eq!(none.len(), 1, "{none:?}");
    assert!(none[0].contains("there is no slot") && none[0].ends_with("run walcast setup"), "{none:?}");
    set_up(&target).await;
    // A history that is empty: setup would refuse.
    let empty = TestDatabase::create(shared_cluster().await).await;
    let elsewhere = Target { history: config(empty.url()), ..target.clone() };
    let left_over = said(&elsewhere).await;
    assert_eq!(left_over.len(), 1, "{left_over:?}");
    assert!(
        left_over[0].contains("setup --start-over") && left_over[0].contains("--history-url"),
        "{left_over:?}"
    );
    // Gone, while the history cannot say whether it has a feed of it.
    database.scalar(&format!("SELECT pg_drop_replication_slot('{}')", target.slot.name)).await;
    let away = Target { history: config("postgres://nobody@127.0.0.1:1/none"), ..target.clone() };
    let gone = said(&away).await.join("\n");
    assert!(gone.contains("there is no slot") && gone.contains("walcast setup --start-over"), "{gone}");
}

#[tokio::test]
async fn what_keeps_the_history_away_is_said_beside_what_keeps_the_source_away() {
    let database = TestDatabase::create(shared_cluster().await).await;
    set_up(&target(database.url(), &database.slot_name())).await;
    let role = database.unique("plain");
    database
        .run(&format!("CREATE ROLE {role} LOGIN; REVOKE SELECT ON pg_replication_slots FROM PUBLIC"))
        .await;
    let status = Status::gather(&target(&database.url_as(&role), &database.slot_name()), NOWHERE, None).await;
    let said = status.problems.texts().join("\n");
    assert!(said.contains("pg_replication_slots") && said.contains("schema walcast"), "{said}");
    // One that is away altogether is said once.
    let status = Status::gather(&target("postgres://nobody@127.0.0.1:1/none", "s"), NOWHERE, None).await;
    let said = status.problems.texts();
    assert!(said.len() == 1 && said[0].starts_with("the database cannot be asked: cannot reach"), "{said:?}");
}

#[tokio::test]
async fn those_that_do_not_answer_are_asked_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let url = |name: &str| format!("postgres://u@{address}/{name}?sslmode=disable&connect_timeout=2");
    let mut target = target(&url("source"), "s");
    target.history = config(&url("history"));
    let silent = async move {
        let mut asking = Vec::new();
        for _ in 0..3 {
            asking.push(listener.accept().await.unwrap().0);
        }
        // Who is asked after another is asked when that one was given up.
        let mut said = Vec::new();
        for stream in &mut asking {
            let mut bytes = vec![0; 4096];
            let length = stream.read(&mut bytes).await.unwrap();
            said.push(length > 0 && stream.try_read(&mut bytes).is_err());
        }
        drop((listener, asking));
        said
    };
    let (status, are_waiting) = tokio::join!(Status::gather(&target, &address, None), silent);
    assert_eq!(are_waiting, [true; 3]);
    // One server, which is one cause.
    let said = status.problems.texts();
    let what = "the source cannot be asked, the history cannot be asked: ";
    assert!(said.len() == 1 && said[0].starts_with(what), "{said:?}");
}
