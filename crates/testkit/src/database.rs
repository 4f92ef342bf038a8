//! A database of one's own on a shared cluster.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::error::SqlState;
use walcast_cluster::Cluster;

use crate::{LIMIT, Proxy, TestSession, eventually, within};

/// How long the cleaning up of one database may take.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(20);
/// How long statements may take: the largest write hundreds of thousands of rows.
const STATEMENTS_MAX: Duration = Duration::from_secs(120);

/// A fresh database with a name that no other test of this process has. Dropped with it, when it is dropped or
/// [closed](Self::close): its slots (a connection that holds one is ended), its prepared transactions, and all roles
/// whose name begins with the database's.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
    socket_url: String,
    /// The database `postgres` of the cluster, over the socket: no proxy or `pg_hba.conf` line is in the way.
    administration: Config,
    open: bool,
}

impl TestDatabase {
    /// Creates an empty database.
    ///
    /// # Panics
    ///
    /// When the cluster does not answer within [`LIMIT`](crate::LIMIT).
    pub async fn create(cluster: &Cluster) -> Self {
        Self::create_as(cluster, "").await
    }

    /// Creates an empty database with these options of `CREATE DATABASE`: of another encoding, for one.
    ///
    /// # Panics
    ///
    /// As [`create`](Self::create), and when the server does not take the options.
    pub async fn create_as(cluster: &Cluster, options: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("walcast_test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let administration: Config =
            cluster.socket_url("postgres").parse().unwrap_or_else(|error| panic!("{error}"));
        let session = TestSession::connect(&cluster.socket_url("postgres")).await;
        let sql = format!("CREATE DATABASE {name} {options}");
        let created = within(&sql, LIMIT, session.batch_execute(&sql)).await;
        created.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let (url, socket_url) = (cluster.url(&name), cluster.socket_url(&name));
        Self { url, socket_url, administration, name, open: true }
    }

    /// Its name, which needs no quoting.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// URL over TCP, as superuser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// URL over the Unix socket, as superuser.
    pub fn socket_url(&self) -> &str {
        &self.socket_url
    }

    /// URL over TCP as `role`, without a password.
    pub fn url_as(&self, role: &str) -> String {
        self.url.replacen("//postgres@", &format!("//{role}@"), 1)
    }

    /// URL through a proxy to this cluster's port.
    pub fn url_via(&self, proxy: &Proxy) -> String {
        proxy.url(&self.url)
    }

    /// A name for a slot (slots are named per cluster); also good for a publication.
    pub fn slot_name(&self) -> String {
        self.name.clone()
    }

    /// A name for a further slot, or for a role: roles that begin with the database's name go away with it.
    pub fn unique(&self, what: &str) -> String {
        format!("{}_{what}", self.name)
    }

    /// A new session as superuser, over TCP.
    ///
    /// # Panics
    ///
    /// When the server refuses it.
    pub async fn session(&self) -> TestSession {
        TestSession::connect(&self.url).await
    }

    /// Runs statements in a session of their own; more than one are one transaction.
    ///
    /// # Panics
    ///
    /// When a statement fails, or they take longer than two minutes.
    pub async fn run(&self, sql: &str) {
        let session = self.session().await;
        let run = within(sql, STATEMENTS_MAX, session.batch_execute(sql)).await;
        run.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// First column of the first row as text, in a session of its own; `None` for NULL or no row.
    ///
    /// # Panics
    ///
    /// When the statement fails.
    pub async fn scalar(&self, sql: &str) -> Option<String> {
        self.session().await.scalar(sql).await
    }

    /// Waits until `sql` gives `expected` as the first column of its first row.
    ///
    /// # Panics
    ///
    /// When it did not within [`LIMIT`](crate::LIMIT), or when the statement fails.
    pub async fn until(&self, sql: &str, expected: &str) {
        let session = self.session().await;
        let mut last = None;
        eventually(&format!("{sql} = {expected}"), LIMIT, async || {
            last = session.scalar(sql).await;
            (last.as_deref() == Some(expected)).then_some(())
        })
        .await;
    }

    /// Sets a setting of the whole server, which counts for whoever connects from now on. For clusters of one's own.
    ///
    /// # Panics
    ///
    /// When the server does not take it within [`LIMIT`](crate::LIMIT).
    pub async fn set_for_server(&self, setting: &str, value: &str) {
        self.run(&format!("ALTER SYSTEM SET {setting} = '{value}'")).await;
        self.run("SELECT pg_reload_conf()").await;
        self.until(&format!("SHOW {setting}"), value).await;
    }

    /// Drops a slot whose reader has ended: the server may notice that a moment later.
    ///
    /// # Panics
    ///
    /// When it is still in use after [`LIMIT`](crate::LIMIT), or there is none of this name.
    pub async fn drop_slot(&self, slot: &str) {
        let session = self.session().await;
        eventually(&format!("the end of slot {slot}"), LIMIT, async || {
            match session.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await {
                Ok(_) => Some(()),
                Err(error) if is_in_use(&error) => None,
                Err(error) => panic!("dropping slot {slot}: {error:?}"),
            }
        })
        .await;
    }

    /// Drops the database and what belongs to it now, and fails when that fails.
    ///
    /// # Panics
    ///
    /// When something could not be dropped.
    pub async fn close(mut self) {
        self.open = false;
        let outcome = clean_up(&self.administration, &self.name);
        if let Err(error) = within("the end of a test database", CLEAN_UP_LIMIT, outcome).await {
            panic!("dropping database {}: {error:?}", self.name);
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let (administration, name) = (self.administration.clone(), self.name.clone());
        // A runtime of its own: this one may be shutting down, and a destructor cannot await.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome = runtime.map(|runtime| {
                runtime.block_on(async {
                    tokio::time::timeout(CLEAN_UP_LIMIT, clean_up(&administration, &name)).await
                })
            });
            // A stopped cluster takes its databases with it; on a shared one leftovers are worth a line.
            match outcome {
                Ok(Ok(Err(error))) if error.as_db_error().is_some() => {
                    eprintln!("dropping {name}: {error:?}")
                }
                Ok(Err(_)) => eprintln!("dropping {name} took more than {CLEAN_UP_LIMIT:?}"),
                _ => {}
            }
        });
        if thread.join().is_err() {
            eprintln!("dropping a test database panicked, see above");
        }
    }
}

async fn clean_up(administration: &Config, name: &str) -> Result<(), tokio_postgres::Error> {
    let inside = TestSession::try_connect(administration.clone().dbname(name)).await?;
    for row in
        inside.query("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()", &[]).await?
    {
        let gid: String = row.get(0);
        inside.batch_execute(&format!("ROLLBACK PREPARED '{}'", gid.replace('\'', "''"))).await?;
    }
    drop(inside);
    let outside = TestSession::try_connect(administration).await?;
    drop_slots(&outside, name).await?;
    // Sessions that are told to end have five seconds for it, which is little on a machine that stands still.
    while let Err(error) = outside.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await {
        if !is_in_use(&error) {
            return Err(error);
        }
    }
    const ROLES: &str = "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, $1 || '_')";
    for row in outside.query(ROLES, &[&name]).await? {
        let role: String = row.get(0);
        outside.batch_execute(&format!("DROP ROLE \"{}\"", role.replace('"', "\"\""))).await?;
    }
    Ok(())
}

fn is_in_use(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::OBJECT_IN_USE)
}

/// Drops all slots of the database; a slot that is held is freed by ending its walsender, which takes a moment.
async fn drop_slots(session: &TestSession, database: &str) -> Result<(), tokio_postgres::Error> {
    const END: &str = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                       WHERE database = $1 AND active_pid IS NOT NULL";
    const DROP: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                        WHERE database = $1 AND NOT active";
    const LEFT: &str = "SELECT count(*) FROM pg_replication_slots WHERE database = $1";
    loop {
        session.query(END, &[&database]).await?;
        match session.query(DROP, &[&database]).await {
            // Somebody took it again, or it was temporary and went away.
            Err(error) if !is_in_use(&error) && error.code() != Some(&SqlState::UNDEFINED_OBJECT) => {
                return Err(error);
            }
            _ => {}
        }
        let left: i64 = session.query_one(LEFT, &[&database]).await?.get(0);
        if left == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
