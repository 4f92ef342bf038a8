//! The replication login: whether it works at all, and whether the settings that walcast sends arrive.

use walcast_postgres::{ConnectionConfig, quote_identifier};
use walcast_replication::ReplicationConnection;
use walcast_replication::identity::Standing;

use super::finding::Finding;
use super::platform::Platform;

/// Settings that decide what the stream looks like and how long it lives, as walcast asks for them. Something between
/// walcast and the server (a pooler) may keep them from arriving.
const EXPECTED: [(&str, &str); 8] = [
    ("client_encoding", "UTF8"),
    ("TimeZone", "UTC"),
    ("IntervalStyle", "postgres"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "3"),
    ("statement_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("wal_sender_timeout", "1min"),
];

/// What a walsender says.
#[derive(Clone, Debug, Default)]
pub(crate) struct WalsenderFacts {
    /// Which server it is, and in which of its lives.
    pub(crate) standing: Option<Standing>,
    /// The database is SQL_ASCII, whose encoding walcast keeps.
    pub(crate) sql_ascii: bool,
    /// Settings as they are in force there.
    pub(crate) settings: Vec<(String, String)>,
}

impl WalsenderFacts {
    /// Logs in as the replicator does.
    pub(crate) async fn gather(config: &ConnectionConfig) -> Result<Self, walcast_replication::Error> {
        let settings = walcast_replication::ReplicationSettings::default();
        let mut connection = ReplicationConnection::connect(config, "walcast doctor", &settings).await?;
        let standing = connection.standing().await?;
        let sql_ascii = connection.show("server_encoding").await? == "SQL_ASCII";
        let mut settings = Vec::new();
        let transaction_timeout = (connection.server_version() >= 170_000).then_some("transaction_timeout");
        for name in EXPECTED.into_iter().map(|(name, _)| name).chain(transaction_timeout) {
            settings.push((name.to_owned(), connection.show(name).await?));
        }
        // It did its work; that it cannot say goodbye changes nothing.
        let _ = connection.close().await;
        Ok(Self { standing: Some(standing), sql_ascii, settings })
    }

    /// What they mean.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let wanted = |name: &str| match EXPECTED.into_iter().find(|(known, _)| *known == name) {
            Some(("client_encoding", _)) if self.sql_ascii => "SQL_ASCII",
            Some((_, value)) => value,
            None => "0",
        };
        let differ: Vec<String> = self
            .settings
            .iter()
            .filter(|(name, value)| value != wanted(name))
            .map(|(name, value)| format!("{name} is {value}"))
            .collect();
        let login = Finding::ok("replication_login", "a replication connection to this database works");
        if differ.is_empty() {
            return vec![login];
        }
        let message =
            format!("settings that walcast asks for do not reach the walsender: {}", differ.join(", "));
        let fix = "let --database-url lead to the server itself, not to a pooler";
        vec![login, Finding::error("walsender_settings", message, fix)]
    }
}

/// What it means that no replication connection can be had, though an SQL session can. `lacks_attribute`: the role has
/// no REPLICATION.
pub(crate) fn login_finding(
    error: &walcast_replication::Error,
    config: &ConnectionConfig,
    platform: Platform,
    lacks_attribute: bool,
) -> Finding {
    let role = quote_identifier(config.user());
    let database = quote_identifier(config.database());
    let message = format!("no replication connection: {error}");
    let fix = match error.sqlstate() {
        Some("28000" | "42501") if lacks_attribute => platform.grant_replication(&role),
        // The database is named in the line because replication=database is asked for.
        Some("28000" | "42501") => format!(
            "let pg_hba.conf have a line for database {database} and role {role} (one for \"replication\" does not count)"
        )
        .into(),
        Some("53300") => platform.set_and_restart("max_wal_senders", "20"),
        Some("55000" | "57P03") => "wait until the server is up".into(),
        _ => "let --database-url lead to the server itself, not to a pooler".into(),
    };
    Finding::error("replication_login", message, fix)
}

#[cfg(test)]
mod tests {
    use super::{EXPECTED, WalsenderFacts};
    use crate::commands::doctor::finding::Severity;

    #[test]
    fn a_setting_that_does_not_arrive_is_found() {
        let settings = |timeout: &str| {
            let mut settings: Vec<(String, String)> =
                EXPECTED.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            settings.push(("transaction_timeout".into(), timeout.into()));
            WalsenderFacts { settings, ..WalsenderFacts::default() }
        };
        assert_eq!(settings("0").findings().len(), 1);
        let found = settings("700ms").findings();
        assert_eq!(found[1].severity, Severity::Error);
        assert!(found[1].message.contains("transaction_timeout is 700ms"), "{}", found[1].message);
    }
}
