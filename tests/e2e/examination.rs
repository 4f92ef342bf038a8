//! `walcast doctor` as a process: what it says and how it ends; and what `serve` says of the same.

use std::process::Output;

use serde_json::Value;
use walcast_testkit::{Daemon, TestDatabase, cluster_builder, for_each_version, installations, run};

use crate::upkeep::{lines, walcast};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The findings of a severity, from `walcast doctor --json`.
fn found(output: &Output, severity: &str) -> Vec<Value> {
    lines(output).into_iter().filter(|finding| finding["severity"] == severity).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_ends_with_3_for_errors_alone_and_names_what_mends_them() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        assert!(walcast(&database, &["setup"]).status.success());
        let well = walcast(&database, &["doctor", "--json"]);
        assert_eq!((well.status.code(), found(&well, "error")), (Some(0), vec![]), "{well:?}");

        // Warnings alone are no reason.
        database.run("CREATE TABLE keyless (id int)").await;
        let warned = walcast(&database, &["doctor", "--json"]);
        let warnings = found(&warned, "warning");
        assert!(warnings.iter().any(|finding| finding["check"] == "replica_identity"), "{warnings:#?}");
        assert_eq!((warned.status.code(), found(&warned, "error")), (Some(0), vec![]), "{warned:?}");

        database.drop_slot(&database.slot_name()).await;
        let ill = walcast(&database, &["doctor", "--json"]);
        assert_eq!((ill.status.code(), text(&ill.stderr)), (Some(3), String::new()), "{ill:?}");
        let [error] = &found(&ill, "error")[..] else { panic!("{ill:?}") };
        assert_eq!(error["check"], "slot");
        let parts = [("message", "does not exist any more"), ("fix", "walcast setup --start-over")];
        for (field, words) in parts {
            assert!(error[field].as_str().is_some_and(|said| said.contains(words)), "{error}");
        }
        let ill = walcast(&database, &["doctor", "--human"]);
        let said = text(&ill.stdout);
        assert_eq!(ill.status.code(), Some(3), "{said}");
        assert!(said.contains("\n  error  replication slot ") && said.contains("\n1 error, "), "{said}");
        walcast(&database, &["teardown", "--yes"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_said_and_not_shown() {
    const WRONG: &str = "not-the-password";
    for installation in installations() {
        let cluster = cluster_builder(&installation)
            .hba("host all secretive 127.0.0.1/32 scram-sha-256")
            .hba("host all all 127.0.0.1/32 trust")
            .start()
            .await
            .expect("a server");
        let database = TestDatabase::create(&cluster).await;
        database
            .run(
                "SET password_encryption = 'scram-sha-256';
                 CREATE ROLE secretive SUPERUSER LOGIN PASSWORD 'the-password'",
            )
            .await;
        let url = |password: &str| database.url_as(&format!("secretive:{password}"));
        let name = database.slot_name();
        let doctor = |form: &str, url: &str| {
            run(["doctor", form, "--database-url", url, "--slot", &name, "--publication", &name])
        };
        let right = doctor("--json", &url("the-password"));
        let connected = lines(&right).into_iter().find(|finding| finding["check"] == "connection");
        assert_eq!(connected.expect("a finding")["severity"], "ok", "{right:?}");
        let mut said = vec![text(&right.stdout), text(&right.stderr)];
        for form in ["--json", "--human"] {
            let wrong = doctor(form, &url(WRONG));
            assert_eq!(wrong.status.code(), Some(3), "{wrong:?}");
            let printed = text(&wrong.stdout);
            for words in ["password authentication failed for user", "secretive", "correct the password"] {
                assert!(printed.contains(words), "{words} in {printed}");
            }
            said.extend([printed, text(&wrong.stderr)]);
        }
        let mut daemon = Daemon::of(&database).flag("--database-url", url(WRONG)).spawn();
        assert_eq!(daemon.until_exit().await.code(), Some(1));
        let log = daemon.log().join("\n");
        let words = "walcast: password authentication failed for user \"secretive\" (SQLSTATE 28P01)\n\
                     hint: correct the password in the database URL";
        assert!(log.contains(words), "{log}");
        said.push(log);
        for said in said {
            assert!(!said.contains("the-password"), "{said}");
        }
    }
}
