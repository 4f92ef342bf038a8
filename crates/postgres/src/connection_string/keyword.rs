//! The keywords of a connection string (libpq's list, PostgreSQL 18), the environment variable that stands in
//! for each, and what walcast does with it.

/// What walcast does with a keyword.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Handling {
    /// As libpq does.
    Honoured,
    /// Without effect on walcast, as the text explains.
    Ignored,
    /// Not understood, and ignoring it would not be what was meant. The text says what to do instead.
    Refused(&'static str),
}

/// One keyword.
pub(crate) struct Keyword {
    pub(crate) name: &'static str,
    /// The variable that is read when the connection string does not have the keyword.
    pub(crate) variable: Option<&'static str>,
    pub(crate) handling: Handling,
}

const fn honoured(name: &'static str, variable: &'static str) -> Keyword {
    Keyword { name, variable: Some(variable), handling: Handling::Honoured }
}

const fn plain(name: &'static str) -> Keyword {
    Keyword { name, variable: None, handling: Handling::Honoured }
}

const fn ignored(name: &'static str, variable: Option<&'static str>) -> Keyword {
    Keyword { name, variable, handling: Handling::Ignored }
}

const fn refused(name: &'static str, variable: Option<&'static str>, instead: &'static str) -> Keyword {
    Keyword { name, variable, handling: Handling::Refused(instead) }
}

const SERVICE: &str = "service files are not read; write the settings into the connection string";
const CRL: &str = "certificate revocation lists are not supported";
const OAUTH: &str = "OAuth is not supported; use scram-sha-256 or a client certificate";
const STREAM: &str = "walcast opens its replication connections itself; remove it";

/// Every keyword that libpq knows.
pub(crate) const KEYWORDS: &[Keyword] = &[
    honoured("host", "PGHOST"),
    honoured("hostaddr", "PGHOSTADDR"),
    honoured("port", "PGPORT"),
    honoured("dbname", "PGDATABASE"),
    honoured("user", "PGUSER"),
    honoured("password", "PGPASSWORD"),
    honoured("passfile", "PGPASSFILE"),
    honoured("require_auth", "PGREQUIREAUTH"),
    honoured("channel_binding", "PGCHANNELBINDING"),
    honoured("connect_timeout", "PGCONNECT_TIMEOUT"),
    honoured("options", "PGOPTIONS"),
    honoured("application_name", "PGAPPNAME"),
    plain("fallback_application_name"),
    plain("keepalives"),
    plain("keepalives_idle"),
    plain("keepalives_interval"),
    plain("keepalives_count"),
    plain("tcp_user_timeout"),
    honoured("sslmode", "PGSSLMODE"),
    honoured("sslnegotiation", "PGSSLNEGOTIATION"),
    honoured("sslcert", "PGSSLCERT"),
    honoured("sslkey", "PGSSLKEY"),
    honoured("sslcertmode", "PGSSLCERTMODE"),
    honoured("sslrootcert", "PGSSLROOTCERT"),
    honoured("sslsni", "PGSSLSNI"),
    honoured("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    honoured("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    honoured("gssencmode", "PGGSSENCMODE"),
    honoured("target_session_attrs", "PGTARGETSESSIONATTRS"),
    honoured("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    // walcast pins the encoding; protocol 3.0 is all it needs; no GSSAPI; TLS compression is long gone.
    ignored("client_encoding", None),
    ignored("sslcompression", None),
    ignored("min_protocol_version", None),
    ignored("max_protocol_version", None),
    ignored("krbsrvname", None),
    ignored("gsslib", None),
    ignored("gssdelegation", None),
    refused("service", Some("PGSERVICE"), SERVICE),
    refused("servicefile", None, SERVICE),
    refused(
        "sslpassword",
        None,
        "encrypted client keys are not supported; store the key without a passphrase",
    ),
    refused("sslcrl", Some("PGSSLCRL"), CRL),
    refused("sslcrldir", Some("PGSSLCRLDIR"), CRL),
    refused("sslkeylogfile", None, "TLS secrets are not logged"),
    refused("requirepeer", Some("PGREQUIREPEER"), "the owner of a Unix socket is not checked; remove it"),
    refused("scram_client_key", None, "use password or a passfile"),
    refused("scram_server_key", None, "use password or a passfile"),
    refused("oauth_issuer", None, OAUTH),
    refused("oauth_client_id", None, OAUTH),
    refused("oauth_client_secret", None, OAUTH),
    refused("oauth_scope", None, OAUTH),
    refused("replication", None, STREAM),
];

/// The keyword of this name; libpq compares them as they are written.
pub(crate) fn find(name: &str) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| keyword.name == name)
}
