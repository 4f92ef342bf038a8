//! TLS in the six modes, against a server with certificates made here.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::sync::OnceCell;
use walcast_postgres::{Error, ErrorClass};
use walcast_testkit::{Cluster, TestSession, cluster_builder, installations};

use crate::{refused, scalar};

/// A server with TLS and the files to talk to it. Roles: `scram` over TLS only (`hostssl`), `certified` by a client
/// certificate only, `plain` without TLS only.
struct Server {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn signed(names: &[&str], common_name: &str, by: &Issuer<'static, KeyPair>) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
}

fn write(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER
        .get_or_init(|| async {
            let folder = tempfile::tempdir().unwrap();
            let (issuer, root) = authority("walcast test authority");
            let (_, stranger) = authority("somebody else");
            let (certificate, key) = signed(&["localhost"], "localhost", &issuer);
            let (client_certificate, client_key) = signed(&[], "certified", &issuer);
            for (name, text) in [
                ("root.crt", &root),
                ("stranger.crt", &stranger),
                ("server.crt", &certificate),
                ("client.crt", &client_certificate),
                ("client.key", &client_key),
            ] {
                write(&folder.path().join(name), text);
            }
            let mut builder = cluster_builder(&installations().pop().unwrap())
                .tls(&certificate, &key)
                .tls_client_authority(&root);
            for line in [
                "local all postgres trust",
                "hostssl all scram all scram-sha-256",
                "hostssl all clear all password",
                "hostssl all certified all cert",
                "hostnossl all plain all trust",
            ] {
                builder = builder.hba(line);
            }
            let cluster = builder.start().await.unwrap();
            let session = TestSession::connect(&cluster.socket_url("postgres")).await;
            session
                .batch_execute(
                    "CREATE ROLE scram LOGIN PASSWORD 'hunter2'; CREATE ROLE clear LOGIN PASSWORD 'hunter2';
                     CREATE ROLE certified LOGIN; CREATE ROLE plain LOGIN",
                )
                .await
                .unwrap();
            Server { cluster, folder }
        })
        .await
}

impl Server {
    fn url(&self, user: &str, rest: &str) -> String {
        let port = self.cluster.port();
        format!(
            "host=localhost hostaddr=127.0.0.1 port={port} user={user} dbname=postgres password=hunter2 {}",
            rest.replace("DIR", &self.path().display().to_string())
        )
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

const ENCRYPTED: &str = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

#[tokio::test]
async fn each_mode_encrypts_as_it_promises() {
    let server = server().await;
    for (mode, encrypted) in [
        ("", "true"),
        ("sslmode=allow", "true"), // refused without TLS first: the role is hostssl
        ("sslmode=prefer", "true"),
        ("sslmode=require", "true"),
        ("sslmode=verify-ca sslrootcert=DIR/root.crt", "true"),
        ("sslmode=verify-full sslrootcert=DIR/root.crt", "true"),
    ] {
        assert_eq!(scalar(&server.url("scram", mode), ENCRYPTED).await, encrypted, "{mode}");
    }
    for mode in ["sslmode=disable", "sslmode=allow", "sslmode=prefer", ""] {
        assert_eq!(scalar(&server.url("plain", mode), ENCRYPTED).await, "false", "{mode}");
    }
    for mode in ["sslmode=require", "sslmode=verify-full sslrootcert=DIR/root.crt"] {
        assert_eq!(refused(&server.url("plain", mode)).await.sqlstate(), Some("28000"), "{mode}");
    }
    assert_eq!(refused(&server.url("scram", "sslmode=disable")).await.sqlstate(), Some("28000"));
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused_wherever_one_is_named() {
    let server = server().await;
    // `require` too: a root certificate that is there is used.
    for mode in ["verify-ca", "verify-full", "require"] {
        let error =
            refused(&server.url("scram", &format!("sslmode={mode} sslrootcert=DIR/stranger.crt"))).await;
        assert!(matches!(error, Error::Tls { .. }), "{mode}: {error:?}");
        assert_eq!(error.class(), ErrorClass::Operator);
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    // Nothing to compare with: encrypted, unverified.
    let text = server.url("scram", "sslmode=require sslrootcert=DIR/missing.crt");
    assert_eq!(scalar(&text, ENCRYPTED).await, "true");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_good_for_verify_ca_and_not_for_verify_full() {
    let server = server().await;
    let by_address = |mode: &str| {
        let text = server.url("scram", &format!("sslmode={mode} sslrootcert=DIR/root.crt"));
        text.replace("host=localhost hostaddr=127.0.0.1", "host=127.0.0.1")
    };
    assert_eq!(scalar(&by_address("verify-ca"), ENCRYPTED).await, "true");
    let error = refused(&by_address("verify-full")).await;
    assert!(matches!(&error, Error::Tls { problem, .. } if problem.contains("name")), "{error:?}");
}

#[tokio::test]
async fn verification_without_anything_to_verify_with_is_refused() {
    let server = server().await;
    for rest in ["sslmode=verify-full", "sslmode=verify-ca", "sslmode=verify-ca sslrootcert=DIR/missing.crt"]
    {
        let error = refused(&server.url("scram", rest)).await;
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_certificate_in_the_root_file_is_good_itself() {
    let server = server().await;
    let text = server.url("scram", "sslmode=verify-full sslrootcert=DIR/server.crt");
    assert_eq!(scalar(&text, ENCRYPTED).await, "true");
}

#[tokio::test]
async fn scram_is_bound_to_the_channel() {
    let server = server().await;
    for rest in ["channel_binding=require", "channel_binding=require ssl_max_protocol_version=TLSv1.2"] {
        assert_eq!(scalar(&server.url("scram", rest), ENCRYPTED).await, "true", "{rest}");
    }
    for binding in ["prefer", "disable"] {
        let text = server.url("scram", &format!("channel_binding={binding}"));
        assert_eq!(scalar(&text, ENCRYPTED).await, "true", "{binding}");
    }
    let error = refused(&server.url("clear", "channel_binding=require")).await;
    assert!(error.to_string().contains("channel_binding"), "{error}");
    let error = refused(&server.url("scram", "channel_binding=require").replace("hunter2", "wrong")).await;
    assert_eq!(error.sqlstate(), Some("28P01"));
}

#[tokio::test]
async fn a_clear_text_password_is_sent_inside_tls() {
    let text = server().await.url("clear", "sslmode=require");
    assert_eq!(scalar(&text, ENCRYPTED).await, "true");
}

#[tokio::test]
async fn a_client_certificate_lets_in() {
    let server = server().await;
    let with = "sslmode=require sslcert=DIR/client.crt sslkey=DIR/client.key";
    assert_eq!(scalar(&server.url("certified", with), "SELECT current_user::text").await, "certified");
    refused(&server.url("certified", &format!("{with} sslcertmode=disable"))).await;
    refused(&server.url("certified", "sslmode=require")).await;
    use std::os::unix::fs::PermissionsExt;
    let open = server.path().join("open.key");
    std::fs::copy(server.path().join("client.key"), &open).unwrap();
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o644)).unwrap();
    let error =
        refused(&server.url("certified", "sslmode=require sslcert=DIR/client.crt sslkey=DIR/open.key")).await;
    assert!(error.to_string().contains("chmod 0600"), "{error}");
}
