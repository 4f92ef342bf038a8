//! Which of several servers is taken, and what is said when there is none.

use std::time::Duration;

use walcast_postgres::{Error, ErrorClass};
use walcast_testkit::{StopMode, installations, own_cluster, shared_cluster, within};

use crate::{refused, scalar};

const LIMIT: Duration = Duration::from_secs(20);

/// A port where nobody listens: one that was free a moment ago another test may have.
const DEAD_PORT: u16 = 1;

#[tokio::test]
async fn a_refused_port_is_transient_and_named() {
    let port = DEAD_PORT;
    let error = refused(&format!("postgres://me@127.0.0.1:{port}/d")).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    let error = refused("host=/nonexistent user=me").await;
    assert!(error.to_string().contains("/nonexistent/.s.PGSQL.5432"), "{error}");
}

#[tokio::test]
async fn the_next_host_is_taken_when_one_is_not_there() {
    let cluster = shared_cluster().await;
    let (dead, live) = (DEAD_PORT, cluster.port());
    let text = format!("postgres://postgres@127.0.0.1:{dead},127.0.0.1:{live}/postgres");
    assert_eq!(scalar(&text, "SHOW port").await, live.to_string());
    let error = refused(&format!("postgres://postgres@127.0.0.1:{dead},127.0.0.1:{dead}/postgres")).await;
    assert!(matches!(&error, Error::NoHost(errors) if errors.len() == 2), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Transient);
}

#[tokio::test]
async fn a_socket_folder_is_a_host() {
    let cluster = shared_cluster().await;
    let text = format!("host={} port={} user=postgres", cluster.socket_directory().display(), cluster.port());
    assert_eq!(scalar(&text, "SELECT coalesce(host(inet_client_addr()), 'socket')").await, "socket");
}

#[tokio::test]
async fn a_server_of_the_wrong_kind_is_passed_over() {
    let cluster = shared_cluster().await;
    for (target, good) in
        [("any", true), ("read-write", true), ("primary", true), ("prefer-standby", true), ("standby", false)]
    {
        let text = format!("{}?target_session_attrs={target}", cluster.url("postgres"));
        if good {
            assert_eq!(scalar(&text, "SELECT 'in'").await, "in", "{target}");
        } else {
            let error = refused(&text).await;
            assert!(error.to_string().contains("target_session_attrs=standby"), "{error}");
            assert_eq!(error.class(), ErrorClass::Transient);
        }
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_after_the_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!("postgres://me@{}/d?connect_timeout=1", silent.local_addr().unwrap());
    let error = within("the timeout", LIMIT, refused(&text)).await;
    assert!(error.to_string().contains("connect_timeout"), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
}

#[tokio::test]
async fn a_stopped_server_is_transient_and_closes_its_sessions_with_a_reason() {
    let cluster = own_cluster(&installations().pop().unwrap()).await;
    let session = crate::connect(&cluster.url("postgres")).await.unwrap();
    let closed = session.closed();
    cluster.stop(StopMode::Fast).await.unwrap();
    let reason = within("the session's end", LIMIT, closed).await.expect("a reason");
    assert_eq!(reason.sqlstate(), Some("57P01"));
    assert!(reason.is_shutting_down());
    assert!(session.is_closed());
    assert_eq!(refused(&cluster.url("postgres")).await.class(), ErrorClass::Transient);
}
