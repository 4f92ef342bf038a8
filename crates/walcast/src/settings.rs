//! Settings: from flags, environment and a file to the values that the daemon runs with.
//!
//! ```text
//! flag  >  WALCAST_* variable  >  walcast.toml  >  (for the database: DATABASE_URL, then PG* variables)  >  default
//! ```
//!
//! [`key`] is the one list of settings; flags, variables, the file's keys and the help are made from it. Everything is
//! parsed to its real type here, once, and every mistake of a run is reported together, with where it stands.

pub(crate) mod entrance;
mod files;
pub(crate) mod flags;
pub(crate) mod key;
mod mistake;
mod reader;
mod source;
mod value;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use walcast_broadcaster::Limits;
use walcast_feed::FeedLimits;
use walcast_history::{AppendLimits, ClientLimits, ClientName, RetentionLimits};
use walcast_model::RelationName;
use walcast_postgres::ConnectionConfig;
use walcast_protocol::TablePattern;
use walcast_replication::WalBudget;
use walcast_replication::publication::{PublicationSettings, Selection};
use walcast_replication::slot::SlotSettings;
use walcast_snapshot::SnapshotLimits;

use entrance::EntranceSettings;
pub(crate) use mistake::{Mistake, Mistakes, suggestion};
use reader::Reader;
pub(crate) use source::Sources;

/// Everything that a command of the daemon's machine can be told. The limits are those of the crates that keep them,
/// which say what each one does.
#[derive(Clone, Debug)]
pub(crate) struct ServeSettings {
    /// The source database.
    pub(crate) database: ConnectionConfig,
    /// Where `change_history` is kept: the source unless said otherwise.
    pub(crate) history: ConnectionConfig,
    /// Which tables are published, under which name, and by whom.
    pub(crate) publication: PublicationSettings,
    /// The slot.
    pub(crate) slot: SlotSettings,
    /// What to do when the feed cannot go on because changes are missing.
    pub(crate) on_hole: OnHole,
    /// Who is let in, and where.
    pub(crate) entrance: EntranceSettings,
    /// The bounds of the feed in memory.
    pub(crate) feed: FeedLimits,
    /// JSON bytes after which a part of a transaction is closed. Default 1 MiB.
    pub(crate) part_bytes_max: usize,
    /// The bounds of writing history.
    pub(crate) append: AppendLimits,
    /// What is kept of history.
    pub(crate) retention: RetentionLimits,
    /// How many clients are known, and for how long.
    pub(crate) clients: ClientLimits,
    /// What the slot may keep of the source's WAL.
    pub(crate) wal_budget: WalBudget,
    /// The tables of which history keeps the newest row of each key. Default none.
    pub(crate) last_images: Vec<TablePattern>,
    /// Sessions that read history at the same time; further readers wait for a place. Default 4.
    pub(crate) history_readers_max: usize,
    /// The bounds of initial syncs.
    pub(crate) snapshot: SnapshotLimits,
    /// The bounds of clients.
    pub(crate) broadcast: Limits,
    /// How long an orderly shutdown may take; what is late is named and left. Default 15 s.
    pub(crate) grace: Duration,
    /// What is logged, and how.
    pub(crate) log: LogSettings,
}

/// The settings as somebody sees them who only looks.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) settings: ServeSettings,
    /// The file of policies, also where nobody asks for tokens.
    pub(crate) policies: Option<PathBuf>,
    /// What keeps the daemon from starting.
    pub(crate) refused: Mistakes,
}

/// What to do when the feed cannot go on because changes are missing, or may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum OnHole {
    /// Say so, serve what history has, and wait for a person.
    #[default]
    Stop,
    /// Drop slot and history, and begin another feed: every client syncs again.
    StartOver,
}

/// What is logged to standard error, and how.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct LogSettings {
    /// Directives as `tracing_subscriber::EnvFilter` reads them; checked. `None` leaves it to the command: `info` for the
    /// daemon, `warn` for the others.
    pub(crate) filter: Option<String>,
    /// In which form.
    pub(crate) format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Human,
    /// One JSON object for each line.
    Json,
}

/// The longest name of a publication, in bytes: Postgres's 63 less `_inserts`, the second publication's ending.
const PUBLICATION_BYTES_MAX: usize = 55;

impl ServeSettings {
    /// Reads every setting.
    ///
    /// # Errors
    /// All mistakes of all sources together.
    pub(crate) fn load(sources: &Sources) -> Result<Self, Mistakes> {
        let mut reader = Reader::new(sources);
        let settings = Self::read(&mut reader);
        Self::settled(settings, reader)
    }

    /// Reads every setting for the daemon, which uses the files that they name.
    ///
    /// # Errors
    /// All mistakes of all sources together, and all that is wrong with the files.
    pub(crate) fn load_to_serve(sources: &Sources) -> Result<Self, Mistakes> {
        let mut reader = Reader::new(sources);
        let settings = Self::read(&mut reader);
        files::of_entrance(&mut reader);
        files::of_policies(&mut reader);
        settings.iter().for_each(|settings| files::of_databases(&mut reader, settings));
        Self::settled(settings, reader)
    }

    fn settled(settings: Option<Self>, reader: Reader<'_>) -> Result<Self, Mistakes> {
        let (mistakes, refusals) = reader.finish();
        let mistakes = mistakes.and(refusals);
        settings.filter(|_| mistakes.is_empty()).ok_or(mistakes)
    }

    /// Reads every setting for somebody who only looks: also those that the daemon refuses to start with, and files that it
    /// cannot use.
    ///
    /// # Errors
    /// All mistakes of all sources together, when something cannot be read.
    pub(crate) fn examine(sources: &Sources) -> Result<Examined, Mistakes> {
        let mut reader = Reader::new(sources);
        let settings = Self::read(&mut reader);
        files::of_entrance(&mut reader);
        let policies = reader.file(&key::POLICIES);
        if !reader.is_clean() {
            // Otherwise they are looked at with the databases.
            files::of_policies(&mut reader);
            settings.iter().for_each(|settings| files::of_databases(&mut reader, settings));
        }
        let (mistakes, refused) = reader.finish();
        match settings {
            Some(settings) if mistakes.is_empty() => Ok(Examined { settings, policies, refused }),
            _ => Err(mistakes.and(refused)),
        }
    }

    /// `None` without a database; and what is wrong the reader knows.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let database = reader.connection(&key::DATABASE_URL);
        let history = reader.connection(&key::HISTORY_URL);
        let publication = publication(reader);
        let slot = slot(reader);
        let on_hole = reader.parse(&key::ON_HOLE, value::on_hole).unwrap_or_default();
        let entrance = EntranceSettings::read(reader);
        let mut feed = FeedLimits::default();
        reader.size(&key::FEED_MEMORY, &mut feed.memory_bytes_max, 1 << 20);
        let (mut part_bytes_max, mut history_readers_max) = (1 << 20, 4);
        reader.size(&key::PART_BYTES, &mut part_bytes_max, 1 << 10);
        reader.count(&key::HISTORY_READERS, &mut history_readers_max);
        let append = append(reader);
        let last_images = reader.parse_list(&key::LAST_IMAGES, value::table_pattern).unwrap_or_default();
        let retention = retention(reader);
        let clients = clients(reader);
        let wal_budget = wal_budget(reader);
        let mut snapshot = snapshot(reader);
        let broadcast = broadcast(reader);
        snapshot.rows_max = broadcast.rows_max;
        let mut grace = Duration::from_secs(15);
        reader.duration(&key::GRACE, &mut grace);
        let log = log(reader);
        let database = database?;
        Some(Self {
            history: history.unwrap_or_else(|| database.clone()),
            database,
            publication,
            slot,
            on_hole,
            entrance,
            feed,
            part_bytes_max,
            append,
            retention,
            clients,
            wal_budget,
            last_images,
            history_readers_max,
            snapshot,
            broadcast,
            grace,
            log,
        })
    }

    /// The log settings alone, for commands that need nothing else.
    ///
    /// # Errors
    /// All mistakes in them.
    pub(crate) fn load_log(sources: &Sources) -> Result<LogSettings, Mistakes> {
        let mut reader = Reader::new(sources);
        let log = log(&mut reader);
        let (mistakes, _) = reader.finish();
        if mistakes.is_empty() { Ok(log) } else { Err(mistakes) }
    }
}

fn publication(reader: &mut Reader<'_>) -> PublicationSettings {
    let name = reader.parse(&key::PUBLICATION, |text| value::name(text, PUBLICATION_BYTES_MAX));
    let mut publication = PublicationSettings::new(name.unwrap_or_default());
    publication.manage = !reader.switch(&key::NO_MANAGE);
    let listed: Option<Vec<RelationName>> = reader.parse_list(&key::TABLES, value::table);
    publication.selection = match listed {
        Some(tables) => Selection::Listed(tables),
        None => Selection::UserTables,
    };
    if reader.switch(&key::ALL_TABLES) {
        if matches!(publication.selection, Selection::Listed(_)) {
            reader.contradiction(&key::ALL_TABLES, &key::TABLES);
        }
        publication.selection = Selection::ForAllTables;
    }
    reader.duration(&key::DISCOVER_INTERVAL, &mut publication.discover_interval);
    reader.duration(&key::PUBLICATION_LOCK_TIMEOUT, &mut publication.lock_timeout);
    reader.bytes(&key::PICKUP_BYTES, &mut publication.pickup_bytes_max, 0);
    publication
}

fn slot(reader: &mut Reader<'_>) -> SlotSettings {
    let mut slot = SlotSettings::new(reader.parse(&key::SLOT, value::slot).unwrap_or_default());
    slot.failover = !reader.switch(&key::NO_SLOT_FAILOVER);
    reader.duration(&key::SLOT_LOCK_TIMEOUT, &mut slot.lock_timeout);
    slot
}

fn append(reader: &mut Reader<'_>) -> AppendLimits {
    let mut append = AppendLimits::default();
    reader.size(&key::APPEND_BYTES, &mut append.append_bytes_max, 1 << 10);
    reader.count(&key::APPEND_CHANGES, &mut append.append_changes_max);
    reader.bytes(&key::HISTORY_PARTITION_WAL, &mut append.history_partition_wal_bytes, 16 << 20);
    reader.duration(&key::HISTORY_PARTITION_AGE, &mut append.history_partition_age);
    reader.duration(&key::IDLE_PERSIST_INTERVAL, &mut append.idle_persist_interval_min);
    reader.bytes(&key::IDLE_PERSIST_WAL, &mut append.idle_persist_wal_bytes_min, 0);
    reader.duration(&key::IDLE_PERSIST_INTERVAL_MAX, &mut append.idle_persist_interval_max);
    append
}

fn retention(reader: &mut Reader<'_>) -> RetentionLimits {
    let mut retention = RetentionLimits::default();
    let age = |text: &str| value::or_off(text, value::duration);
    retention.history_retention = reader.parse(&key::HISTORY_RETENTION, age).flatten();
    let size = |text: &str| value::or_off(text, |text| value::bytes(text, 1 << 20));
    retention.history_bytes_max = reader.parse(&key::HISTORY_BYTES_MAX, size).flatten();
    reader.duration(&key::RETENTION_INTERVAL, &mut retention.interval);
    retention
}

fn clients(reader: &mut Reader<'_>) -> ClientLimits {
    let mut clients = ClientLimits::default();
    reader.count(&key::CLIENTS_PER_USER_MAX, &mut clients.clients_per_user_max);
    reader.duration(&key::CLIENT_EXPIRY, &mut clients.client_expiry);
    let parse = |text: &str| text.parse::<ClientName>().map_err(|error| error.to_string());
    clients.keep_clients = reader.parse_list(&key::KEEP_CLIENTS, parse).unwrap_or_default();
    clients
}

fn wal_budget(reader: &mut Reader<'_>) -> WalBudget {
    let mut budget = WalBudget::default();
    let size = |text: &str| value::or_off(text, |text| value::bytes(text, 16 << 20));
    budget.wal_budget = reader.parse(&key::WAL_BUDGET, size).flatten();
    let policy = reader.parse(&key::WAL_BUDGET_POLICY, value::wal_budget_policy);
    budget.wal_budget_policy = policy.unwrap_or_default();
    reader.duration(&key::WAL_BUDGET_INTERVAL, &mut budget.interval);
    budget
}

fn snapshot(reader: &mut Reader<'_>) -> SnapshotLimits {
    let mut snapshot = SnapshotLimits::default();
    reader.size(&key::SNAPSHOT_CHUNK_BYTES, &mut snapshot.chunk_bytes_max, 1 << 10);
    reader.count(&key::SNAPSHOT_CHUNK_ROWS, &mut snapshot.chunk_rows_max);
    reader.duration(&key::SNAPSHOT_STALL, &mut snapshot.stall_max);
    snapshot
}

fn broadcast(reader: &mut Reader<'_>) -> Limits {
    let mut limits = Limits::default();
    reader.count(&key::SNAPSHOTS_MAX, &mut limits.snapshots_max);
    reader.duration(&key::HEARTBEAT, &mut limits.heartbeat);
    reader.count(&key::CONNECTIONS_MAX, &mut limits.connections_max);
    reader.count(&key::CONNECTIONS_PER_ADDRESS_MAX, &mut limits.connections_per_address_max);
    reader.count(&key::CONNECTIONS_PER_USER_MAX, &mut limits.connections_per_user_max);
    reader.duration(&key::AUTH_MAX, &mut limits.auth_max);
    reader.duration(&key::IDLE, &mut limits.idle_max);
    reader.count(&key::MESSAGES_PER_SECOND, &mut limits.messages_per_second_max);
    reader.count(&key::SUBSCRIBES_PER_SECOND, &mut limits.subscribes_per_second_max);
    reader.count(&key::CHANNELS_MAX, &mut limits.channels_max);
    reader.count(&key::CHANNELS_PER_CONNECTION_MAX, &mut limits.channels_per_connection_max);
    reader.count(&key::CHANNEL_MEMBERS_MAX, &mut limits.channel_members_max);
    reader.size(&key::CHANNEL_NAME_BYTES, &mut limits.channel_name_bytes_max, 1);
    reader.size(&key::PAYLOAD_BYTES, &mut limits.payload_bytes_max, 1);
    reader.size(&key::STATE_BYTES, &mut limits.state_bytes_max, 1);
    reader.count(&key::PUBLISHES_PER_SECOND, &mut limits.publishes_per_second_max);
    reader.size(&key::FAN_OUT_BYTES_PER_SECOND, &mut limits.fan_out_bytes_per_second_max, 1 << 10);
    reader.duration(&key::PRESENCE_INTERVAL, &mut limits.presence_interval);
    reader.duration(&key::PRESENCE_SILENCE, &mut limits.presence_silence_max);
    reader.size(&key::CHANNEL_QUEUE_BYTES, &mut limits.channel_queue_bytes_max, 1 << 10);
    reader.count(&key::REQUESTS_PER_SECOND, &mut limits.requests_per_second_max);
    reader.duration(&key::POLL_WAIT, &mut limits.poll_wait_max);
    reader.size(&key::POLL_BYTES, &mut limits.poll_bytes_max, 1 << 10);
    reader.count(&key::ROWS_MAX, &mut limits.rows_max);
    reader.count(&key::ROWS_KEYS, &mut limits.rows_keys_max);
    reader.count(&key::SNAPSHOTS_PER_USER_MAX, &mut limits.snapshots_per_user_max);
    reader.count(&key::SUBSCRIPTIONS_MAX, &mut limits.subscriptions_max);
    reader.count(&key::TABLES_MAX, &mut limits.tables_max);
    reader.count(&key::SCANS_PER_USER_MAX, &mut limits.scans_per_user_max);
    reader.size(&key::MESSAGE_BYTES, &mut limits.message_bytes_max, 1 << 10);
    reader.duration(&key::ACK_INTERVAL, &mut limits.ack_interval);
    reader.duration(&key::DRAIN, &mut limits.drain_max);
    reader.bytes(&key::HISTORY_STALL, &mut limits.history_stall_bytes, 0);
    limits
}

fn log(reader: &mut Reader<'_>) -> LogSettings {
    LogSettings {
        filter: reader.parse(&key::LOG, value::log_filter),
        format: reader.parse(&key::LOG_FORMAT, value::log_format).unwrap_or_default(),
    }
}
