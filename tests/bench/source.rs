//! The Postgres that is read, and what is in its WAL.

use std::path::PathBuf;

use walcast_testkit::{Cluster, Installation, TestSession, cluster_builder};

use crate::Outcome;

/// The table that is written and read.
pub(crate) const TABLE: &str = "public.bench";
/// What is published of it.
pub(crate) const PUBLICATION: &str = "bench";
const TEMPLATE: &str = "bench_template";

/// A server of our own, gone with this value.
pub(crate) struct Source {
    cluster: Cluster,
    session: TestSession,
    tcp: bool,
}

/// One load: the WAL between a slot and an end.
pub(crate) struct Load {
    pub(crate) rows: u64,
    /// Where the slot stands: nothing of the load is before it.
    pub(crate) from: String,
    /// Everything of the load is before it, and a record follows.
    pub(crate) to: String,
}

/// About 80 bytes of text: a key, a number, an amount, a time and a note.
const TABLE_SQL: &str = "
CREATE TABLE public.bench (id int8 PRIMARY KEY, account int4 NOT NULL, amount numeric(10,2), at timestamptz, note text);
CREATE TABLE public.unpublished (n int8);
CREATE TABLE public.latency (id int8 PRIMARY KEY, note text);
CREATE PUBLICATION bench FOR TABLE public.bench, public.latency;";

const LOAD_SQL: &str = "
CREATE PROCEDURE public.load(first int8, total int8, size int8) LANGUAGE plpgsql AS $$
BEGIN
  WHILE total > 0 LOOP
    INSERT INTO public.bench
      SELECT n, (n % 9973)::int4, (n % 100000) / 100.0, '2026-11-21 03:00:00+00'::timestamptz + n * interval '1 ms',
             'note ' || n || ' abcdefghijklmnopqrst'
      FROM generate_series(first, first + size - 1) AS n;
    COMMIT;
    first := first + size;
    total := total - size;
  END LOOP;
END $$";

impl Source {
    /// Starts it. fsync stays on: commits, and history's above all, cost what they cost.
    pub(crate) async fn start(tcp: bool) -> Outcome<Self> {
        let installation = Installation::find_all()
            .into_iter()
            .find(|found| has_wal2json(found) && found.program("pg_recvlogical").is_some())
            .map_or_else(Installation::newest, Ok)?;
        let cluster = cluster_builder(&installation)
            .setting("fsync", "on")
            .setting("full_page_writes", "on")
            .setting("shared_buffers", "512MB")
            .setting("min_wal_size", "2GB")
            .setting("max_wal_size", "4GB")
            .setting("checkpoint_timeout", "1h")
            .setting("autovacuum", "off")
            .start()
            .await?;
        let session = TestSession::connect(&cluster.url("postgres")).await;
        session.batch_execute(TABLE_SQL).await?;
        session.batch_execute(LOAD_SQL).await?;
        Ok(Self { cluster, session, tcp })
    }

    /// Machine and versions, for the report.
    pub(crate) async fn description(&self) -> Outcome<String> {
        let version = self.session.scalar("SHOW server_version").await.unwrap_or_default();
        let cpus = std::thread::available_parallelism()?;
        let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(format!(
            "Postgres {version}, {cpus} CPUs ({}), load average {}",
            model.trim_start_matches(['\t', ' ', ':']),
            load.split(' ').next().unwrap_or("?")
        ))
    }

    /// As superuser; the same way for everybody.
    pub(crate) fn url(&self) -> String {
        if self.tcp { self.cluster.url("postgres") } else { self.cluster.socket_url("postgres") }
    }

    /// A program of the same installation.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        self.cluster.installation().program(name)
    }

    /// Whether its output plugin wal2json is installed.
    pub(crate) fn has_wal2json(&self) -> bool {
        has_wal2json(self.cluster.installation())
    }

    /// The session for the small things.
    pub(crate) const fn session(&self) -> &TestSession {
        &self.session
    }

    /// The identity of the cluster.
    pub(crate) async fn system_identifier(&self) -> Outcome<String> {
        let sql = "SELECT system_identifier::text FROM pg_control_system()";
        self.session.scalar(sql).await.ok_or_else(|| "no system identifier".into())
    }

    /// Writes the WAL of one load behind a new template slot, and drops that of the load before.
    pub(crate) async fn load(&self, size: u64, rows: u64) -> Outcome<Load> {
        self.drop_slot(TEMPLATE).await?;
        // Each by itself: some of them cannot be in a transaction with others.
        for sql in ["TRUNCATE public.bench", "VACUUM", "CHECKPOINT", "SET synchronous_commit = off"] {
            self.session.batch_execute(sql).await?;
        }
        let from = self.create_slot(TEMPLATE, "pgoutput").await?;
        self.session.batch_execute(&format!("CALL public.load(1, {rows}, {size})")).await?;
        let to =
            self.session.scalar("SELECT pg_current_wal_insert_lsn()::text").await.ok_or("no position")?;
        // pg_recvlogical ends with the first message at or after its end position, so there must be one.
        for sql in ["INSERT INTO public.bench VALUES (0, 0)", "SET synchronous_commit = on", "CHECKPOINT"] {
            self.session.batch_execute(sql).await?;
        }
        Ok(Load { rows, from, to })
    }

    /// A slot that stands where the load begins, with another plugin if need be.
    pub(crate) async fn copy_slot(&self, name: &str, plugin: &str) -> Outcome<()> {
        self.drop_slot(name).await?;
        let sql =
            format!("SELECT pg_copy_logical_replication_slot('{TEMPLATE}', '{name}', false, '{plugin}')");
        self.session.batch_execute(&sql).await?;
        Ok(())
    }

    /// A slot that stands at the end of the WAL: its position.
    pub(crate) async fn create_slot(&self, name: &str, plugin: &str) -> Outcome<String> {
        self.drop_slot(name).await?;
        let sql = format!("SELECT lsn::text FROM pg_create_logical_replication_slot('{name}', '{plugin}')");
        self.session.scalar(&sql).await.ok_or_else(|| "the slot was not made".into())
    }

    /// Drops it once its reader is gone; that there is none is as good.
    pub(crate) async fn drop_slot(&self, name: &str) -> Outcome<()> {
        let drop = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{name}'"
        );
        walcast_testkit::eventually("the slot is dropped", walcast_testkit::LIMIT, async || {
            self.session.batch_execute(&drop).await.is_ok().then_some(())
        })
        .await;
        Ok(())
    }

    /// The walsender that reads a slot.
    pub(crate) async fn walsender(&self, slot: &str) -> Option<u32> {
        let sql = format!("SELECT active_pid::text FROM pg_replication_slots WHERE slot_name = '{slot}'");
        self.session.scalar(&sql).await?.parse().ok()
    }
}

fn has_wal2json(installation: &Installation) -> bool {
    let library =
        |directory: &str| installation.bin_dir().join("..").join(directory).join("wal2json.so").exists();
    library("lib") || library("lib/postgresql")
}
