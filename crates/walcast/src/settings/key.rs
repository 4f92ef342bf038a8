//! The list of settings.

/// Which commands have a flag for a setting. Variables and the file's keys are read by all of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Scope {
    /// Every command.
    Any,
    /// Those that connect to the daemon's databases.
    Connect,
    /// Those that make publication and slot, too.
    Setup,
    /// The daemon alone.
    Serve,
}

/// What a setting holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// One value.
    Value,
    /// One value that may hold a password: never shown.
    Secret,
    /// Several, separated by commas or given several times; an array in the file.
    List,
    /// On or off; the flag takes no value.
    Switch,
}

/// One setting.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its flag without dashes; the other spellings are made from it.
    pub(crate) flag: &'static str,
    /// What the help calls its value.
    pub(crate) value: &'static str,
    /// Its default as it would be written; empty when there is none.
    pub(crate) default: &'static str,
    pub(crate) kind: Kind,
    pub(crate) scope: Scope,
    /// Under which heading the help shows it.
    pub(crate) heading: &'static str,
    pub(crate) help: &'static str,
}

impl Key {
    /// The key in the file: `feed_memory`.
    pub(crate) fn name(&self) -> String {
        self.flag.replace('-', "_")
    }

    /// The environment variable: `WALCAST_FEED_MEMORY`.
    pub(crate) fn variable(&self) -> String {
        format!("WALCAST_{}", self.name().to_uppercase())
    }
}

/// The variable that names the file.
pub(crate) const CONFIG_VARIABLE: &str = "WALCAST_CONFIG";

/// The file that is read when none is named and it is there.
pub(crate) const CONFIG_FILE: &str = "walcast.toml";

macro_rules! keys {
    ($($heading:literal { $($name:ident = $scope:ident $kind:ident $flag:literal $value:literal $default:literal $help:literal;)+ })+) => {
        $($(pub(crate) static $name: Key = Key {
            flag: $flag,
            value: $value,
            default: $default,
            kind: Kind::$kind,
            scope: Scope::$scope,
            heading: $heading,
            help: $help,
        };)+)+

        /// Every setting, in the order of the help.
        pub(crate) static KEYS: &[&Key] = &[$($(&$name),+),+];
    };
}

keys! {
    "Source" {
        DATABASE_URL = Connect Secret "database-url" "URL" ""
            "The database to follow: postgresql://user@host:port/database or keyword=value …; what it does not say is taken from DATABASE_URL (when not given at all), PG* variables and ~/.pgpass, as psql does";
        PUBLICATION = Connect Value "publication" "NAME" "walcast"
            "Publication for tables with a usable replica identity; <NAME>_inserts is for the others";
        SLOT = Connect Value "slot" "NAME" "walcast"
            "Replication slot";
        TABLES = Setup List "tables" "TABLE,…" ""
            "Publish only these tables (schema.table) instead of every user table";
        ALL_TABLES = Setup Switch "all-tables" "" "false"
            "Publish FOR ALL TABLES: needs a superuser, and makes UPDATE and DELETE fail on tables without a replica identity";
        NO_MANAGE = Setup Switch "no-manage" "" "false"
            "Use the publication as it is; neither create nor alter it";
        DISCOVER_INTERVAL = Serve Value "discover-interval" "DURATION" "5s"
            "How often new tables are looked for";
        PUBLICATION_LOCK_TIMEOUT = Setup Value "publication-lock-timeout" "DURATION" "200ms"
            "How long publishing a table may make its writers wait; then it is tried again later";
        PICKUP_BYTES = Serve Value "pickup-bytes" "SIZE" "64MiB"
            "Size of a table up to which the rows that it had before it was picked up are carried into a running feed";
        NO_SLOT_FAILOVER = Setup Switch "no-slot-failover" "" "false"
            "Do not ask for the slot to be kept on standbys (PostgreSQL 17 and later)";
        WAL_BUDGET = Connect Value "wal-budget" "SIZE" "10GiB"
            "WAL that the source may keep for walcast; off for no limit";
        WAL_BUDGET_POLICY = Serve Value "wal-budget-policy" "POLICY" "warn"
            "What happens when it keeps more: warn, or drop_slot, which saves the source and ends the feed";
        WAL_BUDGET_INTERVAL = Serve Value "wal-budget-interval" "DURATION" "5s"
            "How often it is looked what the source keeps";
        SLOT_LOCK_TIMEOUT = Setup Value "slot-lock-timeout" "DURATION" "10s"
            "How long one try to create the slot may wait for open transactions";
        ON_HOLE = Serve Value "on-hole" "ACTION" "stop"
            "When changes are missing because the slot was lost, or a publication: stop (say so and wait for a person) or start-over (drop slot and history, begin another feed, every client syncs again)";
    }
    "History" {
        HISTORY_URL = Connect Secret "history-url" "URL" ""
            "Keep change_history in this database instead of the source";
        HISTORY_READERS = Serve Value "history-readers-max" "COUNT" "4"
            "Sessions that read history for clients at the same time; further reads wait";
        HISTORY_PARTITION_WAL = Serve Value "history-partition-wal" "SIZE" "4GiB"
            "WAL that one partition of change_history covers";
        HISTORY_PARTITION_AGE = Serve Value "history-partition-age" "DURATION" "1d"
            "Age at which a partition of change_history ends, however little WAL it covers";
        HISTORY_RETENTION = Serve Value "history-retention" "DURATION" "7d"
            "How long changes are kept; off keeps them for ever";
        HISTORY_BYTES_MAX = Serve Value "history-bytes-max" "SIZE" "off"
            "Size of change_history on disk over which the oldest changes are dropped; off for no limit";
        RETENTION_INTERVAL = Serve Value "retention-interval" "DURATION" "30s"
            "How often it is looked whether old changes are to be dropped";
        KEEP_CLIENTS = Connect List "keep-clients" "CLIENT,…" ""
            "Clients (client_id, with authentication user/client_id) that never expire, and for which history is kept until they have acknowledged it";
        LAST_IMAGES = Serve List "last-images" "TABLE,…" ""
            "Keep the newest row of each key of these tables (schema.table, schema.* or *), to complete changes with what the WAL leaves out";
        APPEND_BYTES = Serve Value "append-bytes-max" "SIZE" "8MiB"
            "JSON in one commit of history";
        APPEND_CHANGES = Serve Value "append-changes-max" "COUNT" "20000"
            "Changes in one commit of history";
        IDLE_PERSIST_INTERVAL = Serve Value "idle-persist-interval" "DURATION" "10s"
            "An idle position is persisted, and WAL released, at most this often";
        IDLE_PERSIST_WAL = Serve Value "idle-persist-wal" "SIZE" "1MiB"
            "… and only when it moved by this much WAL";
        IDLE_PERSIST_INTERVAL_MAX = Serve Value "idle-persist-interval-max" "DURATION" "5min"
            "… or when it moved at all and this time has passed";
    }
    "Feed" {
        FEED_MEMORY = Serve Value "feed-memory" "SIZE" "64MiB"
            "Memory for recent transactions; clients that are further behind read history";
        PART_BYTES = Serve Value "part-bytes" "SIZE" "1MiB"
            "JSON after which a large transaction is split into another part";
    }
    "Clients" {
        LISTEN = Serve List "listen" "ADDRESS,…" "127.0.0.1:4700"
            "Where clients connect: an IP address or localhost with a port, 0.0.0.0:4700 for every interface, or unix:/path for a Unix socket";
        ADMIN_LISTEN = Serve Value "admin-listen" "ADDRESS" ""
            "Where health and metrics are served instead, without TLS and without clients";
        INSECURE = Serve Switch "insecure" "" "false"
            "Let everybody in who reaches an address that is not this machine's own, without authentication";
        TLS_CERT_FILE = Serve Value "tls-cert-file" "FILE" ""
            "Certificate in PEM, with those that lead to its authority; turns TLS on for listen; read again when it changes";
        TLS_KEY_FILE = Serve Value "tls-key-file" "FILE" ""
            "Its private key in PEM";
        ALLOWED_ORIGINS = Serve List "allowed-origins" "ORIGIN,…" ""
            "Web pages that may connect, such as https://app.example.org; * for all [default: those of the daemon's own host]";
        TRUSTED_PROXIES = Serve List "trusted-proxies" "ADDRESS,…" ""
            "Proxies whose X-Forwarded-For, -Proto and -Host are believed: addresses, networks such as 10.0.0.0/8, or unix";
        POLICIES = Serve Value "policies" "FILE" ""
            "Which role may have which tables, rows and columns; read again on SIGHUP and when it changes";
        HEARTBEAT = Serve Value "heartbeat" "DURATION" "15s"
            "Time between heartbeats";
        CONNECTIONS_MAX = Serve Value "connections-max" "COUNT" "10000"
            "Connections at the same time; a further one is refused";
        CONNECTIONS_PER_ADDRESS_MAX = Serve Value "connections-per-address-max" "COUNT" "1000"
            "Connections for one address (of IPv6: one /64 network); a further one is refused";
        CONNECTIONS_PER_USER_MAX = Serve Value "connections-per-user-max" "COUNT" "100"
            "Connections of one user (sub of the token); a further one is closed";
        ACK_INTERVAL = Serve Value "ack-interval" "DURATION" "1s"
            "What a client acknowledges is stored at most this often";
        CLIENTS_PER_USER_MAX = Serve Value "clients-per-user-max" "COUNT" "100"
            "Clients of one user (sub of the token) for which it is kept what they have acknowledged; each subscription of a client counts";
        CLIENT_EXPIRY = Serve Value "client-expiry" "DURATION" "1d"
            "A client that was not seen for so long is forgotten";
        IDLE = Serve Value "idle-max" "DURATION" "10min"
            "How long a connection may have no subscription and be in no channel";
        MESSAGES_PER_SECOND = Serve Value "messages-per-second-max" "COUNT" "50"
            "Messages of one connection in a second; what is faster is read later";
        SUBSCRIBES_PER_SECOND = Serve Value "subscribes-per-second-max" "COUNT" "10"
            "Subscriptions of one connection in a second; what is faster is read later";
        CHANNELS_MAX = Serve Value "channels-max" "COUNT" "10000"
            "Channels that somebody is in; a further one cannot be joined";
        CHANNELS_PER_CONNECTION_MAX = Serve Value "channels-per-connection-max" "COUNT" "32"
            "Channels that one connection is in";
        CHANNEL_MEMBERS_MAX = Serve Value "channel-members-max" "COUNT" "1000"
            "Connections in one channel";
        CHANNEL_NAME_BYTES = Serve Value "channel-name-bytes-max" "SIZE" "128"
            "The longest name of a channel";
        PAYLOAD_BYTES = Serve Value "payload-bytes-max" "SIZE" "32KiB"
            "The largest payload of a message in a channel";
        STATE_BYTES = Serve Value "state-bytes-max" "SIZE" "1KiB"
            "The largest state of a client that the others in a channel are told";
        PUBLISHES_PER_SECOND = Serve Value "publishes-per-second-max" "COUNT" "25"
            "Messages and states that one connection publishes in a second, four times as many at once; what is faster is refused";
        FAN_OUT_BYTES_PER_SECOND = Serve Value "fan-out-bytes-per-second-max" "SIZE" "16MiB"
            "Bytes that one user has others told in channels in a second, once for each of them; what is faster is refused";
        PRESENCE_INTERVAL = Serve Value "presence-interval" "DURATION" "100ms"
            "It is told at most this often who came to a channel and went";
        PRESENCE_SILENCE = Serve Value "presence-silence-max" "DURATION" "45s"
            "How long a client that is shown in a channel may say nothing, not even answer a ping, and be shown on";
        CHANNEL_QUEUE_BYTES = Serve Value "channel-queue-bytes-max" "SIZE" "256KiB"
            "What channels have for one connection that it does not take; what is more is dropped for it, and it is told";
        REQUESTS_PER_SECOND = Serve Value "requests-per-second-max" "COUNT" "50"
            "HTTP requests for the feed of one user in a second, or of one connection; what is faster is answered later, or refused";
        POLL_WAIT = Serve Value "poll-wait-max" "DURATION" "60s"
            "How long a page may wait for its first transaction";
        POLL_BYTES = Serve Value "poll-bytes-max" "SIZE" "1MiB"
            "JSON in a page; the next one has the rest";
        ROWS_MAX = Serve Value "rows-max" "COUNT" "4"
            "Requests for rows by key at the same time, each with a session on the source; further ones wait";
        ROWS_KEYS = Serve Value "rows-keys-max" "COUNT" "1000"
            "Keys in such a request";
        SUBSCRIPTIONS_MAX = Serve Value "subscriptions-max" "COUNT" "64"
            "Subscriptions of one connection";
        TABLES_MAX = Serve Value "tables-max" "COUNT" "256"
            "Entries of tables in one subscription";
        SCANS_PER_USER_MAX = Serve Value "scans-per-user-max" "COUNT" "32"
            "Conditions in filters of one user that each change of their table has to be looked at for";
        MESSAGE_BYTES = Serve Value "message-bytes-max" "SIZE" "64KiB"
            "The largest message from a client; a larger one closes its connection";
        SNAPSHOTS_MAX = Serve Value "snapshots-max" "COUNT" "4"
            "Initial syncs at the same time, each with a session on the source; further ones wait, and everybody is served in turn";
        SNAPSHOTS_PER_USER_MAX = Serve Value "snapshots-per-user-max" "COUNT" "2"
            "Of these, for one user, or for one connection of which nobody knows whose it is";
        SNAPSHOT_CHUNK_BYTES = Serve Value "snapshot-chunk-bytes-max" "SIZE" "256KiB"
            "JSON in one message of an initial sync";
        SNAPSHOT_CHUNK_ROWS = Serve Value "snapshot-chunk-rows-max" "COUNT" "10000"
            "Rows in one message of an initial sync";
        SNAPSHOT_STALL = Serve Value "snapshot-stall-max" "DURATION" "5min"
            "How long a client may take nothing of its initial sync before it is given up";
        HISTORY_STALL = Serve Value "history-stall-bytes" "SIZE" "256MiB"
            "WAL that history may lack before /readyz says so";
        DRAIN = Serve Value "drain-max" "DURATION" "5s"
            "How long clients may take to receive what is being written when the daemon stops";
        GRACE = Serve Value "grace" "DURATION" "15s"
            "How long an orderly shutdown may take in all";
    }
    "Authentication" {
        JWT_SECRET = Serve Secret "jwt-secret" "SECRET" ""
            "Let in who has a token (JWT) that is signed with this secret, of 32 bytes or more; better in a file";
        JWT_SECRET_FILE = Serve Value "jwt-secret-file" "FILE" ""
            "… with the secret in this file";
        JWT_PEM_FILE = Serve Value "jwt-pem-file" "FILE" ""
            "… with the private key of the public key or certificate in this file";
        JWT_JWKS_FILE = Serve Value "jwt-jwks-file" "FILE" ""
            "… with a key of the JSON Web Key Set in this file";
        JWT_JWKS_URL = Serve Value "jwt-jwks-url" "URL" ""
            "… with a key of the JSON Web Key Set at this URL";
        JWT_AUDIENCE = Serve List "jwt-audience" "NAME,…" ""
            "A token must be for one of these (aud)";
        JWT_ISSUER = Serve List "jwt-issuer" "NAME,…" ""
            "A token must be from one of these (iss)";
        JWT_LEEWAY = Serve Value "jwt-leeway" "DURATION" "30s"
            "How far clocks may be apart, for exp and nbf; whole seconds";
        JWT_ROLE_CLAIM = Serve Value "jwt-role-claim" "CLAIM" "role"
            "Claim that names the role for policies; dots lead into objects (app.role)";
        JWT_DEFAULT_ROLE = Serve Value "jwt-default-role" "ROLE" "authenticated"
            "Role of a token that names none";
        ANONYMOUS_ROLE = Serve Value "anonymous-role" "ROLE" ""
            "Role of those who come without a token [default: they are not let in]";
        AUTH_MAX = Serve Value "auth-max" "DURATION" "10s"
            "How long a client may take to send its token";
    }
    "Logging" {
        LOG = Any Value "log" "FILTER" ""
            "What is logged to standard error: error, warn, info, debug, trace, or per module (walcast_replication=debug) [default: info for serve, else warn]";
        LOG_FORMAT = Any Value "log-format" "FORMAT" "human"
            "Form of log lines: human or json";
    }
}
