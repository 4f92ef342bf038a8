use super::{Error, ErrorClass, ServerError};

fn server(sqlstate: &str) -> Error {
    Error::from(ServerError { sqlstate: sqlstate.into(), ..ServerError::default() })
}

#[test]
fn a_sqlstate_says_how_to_react() {
    for state in ["57P01", "57P03", "53300", "40001", "55P03", "55006", "08006"] {
        assert_eq!(server(state).class(), ErrorClass::Transient, "{state}");
    }
    for state in ["28P01", "28000", "3D000", "42501", "55000", "42704", "0A000", "22P05"] {
        assert_eq!(server(state).class(), ErrorClass::Operator, "{state}");
    }
    for state in ["42601", "22012", "23505", "", "Ü"] {
        assert_eq!(server(state).class(), ErrorClass::Bug, "{state}");
    }
}

#[test]
fn values_of_rows_stay_out_of_the_message() {
    let error = |sqlstate: &str| {
        ServerError { sqlstate: sqlstate.into(), detail: Some("Key (id)=(7)".into()), ..Default::default() }
            .to_string()
    };
    assert!(!error("23505").contains("(7)"));
    assert!(error("55000").contains("(7)"));
}

#[test]
fn what_a_person_can_do_is_said_by_what_is_in_the_way() {
    let hint = |error: Error| error.hint().unwrap_or_default();
    let refused = || Error::Unreachable {
        server: "db:5432".into(),
        source: std::io::ErrorKind::ConnectionRefused.into(),
    };
    let forgotten = || Error::NoPassword { server: "db:5432".into(), problem: "none".into() };
    assert!(hint(refused()).contains("start the server"));
    assert!(hint(forgotten()).contains("PGPASSWORD") && hint(forgotten()).contains(".pgpass"));
    assert!(hint(server("28P01")).contains("correct the password"));
    // Both are 28000.
    let error = |message: &str| {
        Error::from(ServerError { sqlstate: "28000".into(), message: message.into(), ..Default::default() })
    };
    assert!(hint(error("no pg_hba.conf entry for host")).contains("pg_hba.conf"));
    let unknown = hint(error("role \"walcast\" does not exist"));
    assert!(unknown.contains("create the role with LOGIN") && !unknown.contains("REPLICATION"), "{unknown}");
    // Of several hosts what only a person can mend.
    assert_eq!(hint(Error::NoHost(vec![refused(), forgotten()])), hint(forgotten()));
    assert_eq!(server("22012").hint(), None);
}

#[test]
fn the_connection_string_that_is_meant_is_named() {
    let refused = || Error::Unreachable {
        server: "db:5432".into(),
        source: std::io::ErrorKind::ConnectionRefused.into(),
    };
    let forgotten = || Error::NoPassword { server: "db:5432".into(), problem: "none".into() };
    let errors: [fn() -> Error; 6] = [
        refused,
        forgotten,
        || server("28P01"),
        || server("28000"),
        || server("3D000"),
        || Error::NoHost(vec![Error::Closed, server("3D000")]),
    ];
    for error in errors {
        let (text, class) = (error().to_string(), error().class());
        assert!(error().hint().unwrap().contains("in the connection string"), "{text}");
        let named = Error::NotConnected { setting: "history_url".into(), source: Box::new(error()) };
        let hint = named.hint().unwrap();
        assert!(hint.contains("in history_url") && !hint.contains("string"), "{hint}");
        assert_eq!((named.to_string(), named.class(), named.sqlstate()), (text, class, error().sqlstate()));
    }
}

#[test]
fn a_shutdown_is_known_by_its_state_behind_a_list_of_hosts_too() {
    assert!(Error::NoHost(vec![Error::Closed, server("57P03")]).is_shutting_down());
    assert!(Error::StreamEnded.is_shutting_down());
    assert!(!server("57014").is_shutting_down());
}
