//! Who is let in, by which proof.

use std::os::unix::fs::PermissionsExt;

use tokio::sync::OnceCell;
use walcast_postgres::{ErrorClass, SslMode};
use walcast_testkit::{Cluster, TestSession, cluster_builder, installations, shared_cluster};

use crate::{config, refused, scalar};

/// A server with one role for each way to log in, each let in over TCP by that way alone.
async fn server() -> &'static Cluster {
    static SERVER: OnceCell<Cluster> = OnceCell::const_new();
    SERVER
        .get_or_init(|| async {
            let installation = installations().pop().unwrap();
            let mut builder = cluster_builder(&installation);
            for line in [
                "local all postgres trust",
                "host all clear all password",
                "host all hashed all md5",
                "host all scram all scram-sha-256",
                "local all scram scram-sha-256",
                "host all postgres all trust",
            ] {
                builder = builder.hba(line);
            }
            let cluster = builder.start().await.unwrap();
            let session = TestSession::connect(&cluster.socket_url("postgres")).await;
            session
                .batch_execute(
                    "SET password_encryption = 'md5'; CREATE ROLE hashed LOGIN PASSWORD 'hunter2';
                     SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN PASSWORD 'hunter2';
                     CREATE ROLE clear LOGIN PASSWORD 'hunter2'",
                )
                .await
                .unwrap();
            cluster
        })
        .await
}

async fn url(user: &str, rest: &str) -> String {
    format!("host=127.0.0.1 port={} user={user} dbname=postgres {rest}", server().await.port())
}

const WHO: &str = "SELECT current_user::text";

#[tokio::test]
async fn every_way_to_prove_a_password_works() {
    assert_eq!(scalar(&url("postgres", "").await, WHO).await, "postgres");
    for user in ["hashed", "scram"] {
        assert_eq!(scalar(&url(user, "password=hunter2").await, WHO).await, user);
        let socket = server().await.socket_directory().display().to_string();
        let port = server().await.port();
        let text = format!("host={socket} port={port} user=scram password=hunter2 dbname=postgres");
        assert_eq!(scalar(&text, WHO).await, "scram");
    }
    let text = url("clear", "password=hunter2 sslmode=disable").await;
    assert_eq!(scalar(&text, WHO).await, "clear");
}

#[tokio::test]
async fn a_wrong_password_is_refused_with_its_sqlstate() {
    for user in ["hashed", "scram"] {
        let error = refused(&url(user, "password=wrong").await).await;
        assert_eq!((error.sqlstate(), error.class()), (Some("28P01"), ErrorClass::Operator), "{error}");
    }
}

#[tokio::test]
async fn a_password_never_crosses_the_network_in_clear_text_unasked() {
    let text = url("clear", "password=hunter2").await;
    assert_eq!(config(&text).ssl_mode(), SslMode::Prefer);
    let error = refused(&text).await;
    assert!(error.to_string().contains("clear text"), "{error}");
    assert_eq!(error.class(), ErrorClass::Operator);
}

#[tokio::test]
async fn require_auth_keeps_the_server_from_choosing_a_weaker_way() {
    let error = refused(&url("hashed", "password=hunter2 require_auth=scram-sha-256").await).await;
    assert!(error.to_string().contains("require_auth"), "{error}");
    let error = refused(&url("postgres", "require_auth=!none").await).await;
    assert!(error.to_string().contains("require_auth"), "{error}");
    let text = url("scram", "password=hunter2 require_auth=scram-sha-256").await;
    assert_eq!(scalar(&text, WHO).await, "scram");
}

#[tokio::test]
async fn channel_binding_cannot_be_required_without_tls() {
    let error = refused(&url("scram", "password=hunter2 channel_binding=require").await).await;
    assert!(error.to_string().contains("channel_binding"), "{error}");
}

#[tokio::test]
async fn a_missing_password_says_where_it_was_looked_for() {
    let error = refused(&url("scram", "").await).await;
    assert!(error.to_string().contains("passfile"), "{error}");
    assert!(
        error.hint().is_some_and(|hint| hint.contains("PGPASSWORD") && hint.contains("~/.pgpass")),
        "{error}"
    );
    assert_eq!(error.class(), ErrorClass::Operator);
}

#[tokio::test]
async fn a_passfile_is_used_unless_others_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pass");
    let port = server().await.port();
    std::fs::write(&path, format!("other:*:*:*:no\n127.0.0.1:{port}:*:scram:hunter2\n")).unwrap();
    let text = url("scram", &format!("passfile={}", path.display())).await;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let error = refused(&text).await;
    assert!(error.to_string().contains("chmod 0600"), "{error}");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(scalar(&text, WHO).await, "scram");
}

#[tokio::test]
async fn an_unknown_database_and_a_role_that_nobody_lets_in_are_told_apart() {
    let cluster = shared_cluster().await;
    let error = refused(&cluster.url("no_such_database")).await;
    assert_eq!((error.sqlstate(), error.class()), (Some("3D000"), ErrorClass::Operator));
    let error = refused(&url("nobody_knows", "").await).await;
    assert_eq!((error.sqlstate(), error.class()), (Some("28000"), ErrorClass::Operator));
}
