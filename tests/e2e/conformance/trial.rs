//! What is written to a database, and what is told of it: live, in `change_history`, and to those who come later.

use walcast_model::{Cursor, Lsn};
use walcast_testkit::{Cluster, Daemon, DaemonBuilder, TestDatabase};

use super::witness::{Told, Witness};

/// One case of the reference.
pub(crate) struct Case {
    /// Its number there.
    pub(crate) number: &'static str,
    /// Run one after the other. `2> …` is run by a second session, `until …` waits until a query is true; `{db}` is the
    /// name of the database.
    pub(crate) steps: &'static [&'static str],
    /// What a client is told, line by line; `relation` lines count where the case has any, and `{b}` is `b` 2,500 times.
    pub(crate) told: &'static [&'static str],
}

/// A database with a daemon and a client that has been there from the start.
pub(crate) struct Trial {
    pub(crate) database: TestDatabase,
    pub(crate) daemon: Daemon,
    pub(crate) live: Witness,
    /// Where the client came in.
    pub(crate) start: Cursor,
    marks: u32,
    failures: Vec<String>,
}

impl Trial {
    pub(crate) async fn start(cluster: &Cluster, setup: &str) -> Self {
        Self::with(cluster, setup, |builder| builder).await
    }

    /// With other flags.
    pub(crate) async fn with(
        cluster: &Cluster,
        setup: &str,
        flags: impl FnOnce(DaemonBuilder) -> DaemonBuilder,
    ) -> Self {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE mark (n int PRIMARY KEY)").await;
        database.run(&setup.replace("{db}", database.name())).await;
        let daemon = flags(daemon_of(&database)).start().await;
        Self::of(database, daemon).await
    }

    /// Of a daemon that runs, on a database with a table `mark (n int PRIMARY KEY)`.
    pub(crate) async fn of(database: TestDatabase, daemon: Daemon) -> Self {
        let mut live = Witness::at(&daemon.ws_url(), "latest").await;
        live.until("caught_up").await;
        let start = live.cursor;
        Self { database, daemon, live, start, marks: 0, failures: Vec::new() }
    }

    /// Runs the steps and returns what the client was told of them.
    pub(crate) async fn told(&mut self, steps: &[&str]) -> Vec<Told> {
        let seen = self.live.log.len();
        let sessions = [self.database.session().await, self.database.session().await];
        for step in steps {
            let step = step.replace("{db}", self.database.name());
            if let Some(query) = step.strip_prefix("until ") {
                self.database.until(query, "t").await;
                continue;
            }
            let (session, sql) =
                step.strip_prefix("2> ").map_or((&sessions[0], &*step), |sql| (&sessions[1], sql));
            session.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        self.mark().await;
        let mut told = self.live.log[seen..].to_vec();
        // The mark, its commit, and the first time its relation.
        told.truncate(told.len() - 2);
        told.retain(|told| !matches!(told, Told::Relation(text) if text.starts_with("public.mark:")));
        told
    }

    /// Writes a row and waits until the client has it: then it has everything before.
    pub(crate) async fn mark(&mut self) {
        self.marks += 1;
        self.database.run(&format!("INSERT INTO mark VALUES ({})", self.marks)).await;
        let wanted = format!(r#"insert public.mark key {{"n":{0}}} row {{"n":{0}}}"#, self.marks);
        while !self.live.log.iter().rev().take(2).any(|told| told.line() == wanted) {
            self.live.until("transaction").await;
        }
    }

    pub(crate) async fn run(&mut self, cases: &[Case]) {
        for case in cases {
            let told = self.told(case.steps).await;
            let with_relations = case.told.iter().any(|line| line.starts_with("relation "));
            let told = told.iter().filter(|told| with_relations || !matches!(told, Told::Relation(_)));
            let told: Vec<String> = told.map(Told::line).collect();
            let expected = case.told.iter().map(|line| line.replace("{b}", &"b".repeat(2500)));
            let expected: Vec<String> = expected.collect();
            if told != expected {
                let (told, expected) = (told.join("\n      "), expected.join("\n      "));
                self.failures.push(format!(
                    "case {}: told\n      {told}\n    instead of\n      {expected}",
                    case.number
                ));
            }
        }
    }

    /// Compares what the client was told live with `change_history`, with what is told to one who comes in at the start
    /// now, and with what is told to such a one by a daemon that has nothing in memory.
    pub(crate) async fn finish(&mut self) {
        self.mark().await;
        let log = self.live.log.clone();
        let end = self.live.cursor;
        let stored = format!("SELECT position_lsn >= '{}' FROM walcast.feed", end.lsn());
        self.database.until(&stored, "t").await;
        let delivered: Vec<Told> =
            log.iter().filter(|told| !matches!(told, Told::Relation(_))).cloned().collect();
        self.compare("change_history", &delivered, &history(&self.database, self.start.lsn()).await);
        self.compare_catch_up("catch-up", &log).await;
        self.daemon.terminate().await;
        self.daemon.restart().await;
        self.compare_catch_up("catch-up after a restart", &log).await;
        assert!(
            self.failures.is_empty(),
            "{} failures\n    {}",
            self.failures.len(),
            self.failures.join("\n    ")
        );
    }

    async fn compare_catch_up(&mut self, what: &str, log: &[Told]) {
        let mut later = Witness::at(&self.daemon.ws_url(), &self.start.to_string()).await;
        later.until_at(self.live.cursor).await;
        let got = std::mem::take(&mut later.log);
        self.compare(what, log, &got);
    }

    fn compare(&mut self, what: &str, live: &[Told], other: &[Told]) {
        let differs = live.iter().zip(other).position(|(live, other)| live != other);
        if let Some(at) = differs {
            self.failures.push(format!("{what}: entry {at} is {:?} instead of {:?}", other[at], live[at]));
        } else if live.len() != other.len() {
            self.failures.push(format!("{what}: {} entries instead of {}", other.len(), live.len()));
        }
    }

    /// Waits until the slot has been told that everything the client has is durable.
    pub(crate) async fn until_acknowledged(&self) {
        let slot = self.database.slot_name();
        let sql = format!(
            "SELECT confirmed_flush_lsn >= '{}' FROM pg_replication_slots WHERE slot_name = '{slot}'",
            self.live.cursor.lsn()
        );
        self.database.until(&sql, "t").await;
    }

    /// The client goes on at its cursor, on another connection.
    pub(crate) async fn reconnect(&mut self) {
        self.live.reconnect(&self.daemon.ws_url()).await;
    }
}

/// A daemon that does not wait for clients that do not read when it is stopped.
pub(crate) fn daemon_of(database: &TestDatabase) -> DaemonBuilder {
    Daemon::of(database).flag("--drain-max", "100ms")
}

/// `change_history` from a position on, in the words of a client.
pub(crate) async fn history(database: &TestDatabase, from: Lsn) -> Vec<Told> {
    let sql = format!(
        r#"SELECT lsn::text, seq, commit_end::text, concat(op, ' ', schema_name, '.', table_name, ' key ' || key,
                  ' row ' || "row", ' old ' || old, ' unchanged ' || unchanged)
           FROM walcast.change_history AS h WHERE lsn >= '{from}' ORDER BY h.lsn, h.seq"#
    );
    let rows = database.session().await.query(&sql, &[]).await.expect("the history");
    let mut told = Vec::new();
    for row in rows {
        let lsn: Lsn = row.get::<_, &str>(0).parse().expect("an lsn");
        told.push(Told::Change { lsn, seq: row.get(1), text: row.get(3) });
        if let Some(end) = row.get::<_, Option<&str>>(2) {
            told.push(Told::Commit { lsn, cursor: end.parse().expect("a cursor") });
        }
    }
    told
}
