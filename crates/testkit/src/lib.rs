//! What walcast's tests stand on: real Postgres servers of every version found, a proxy that breaks connections, and a
//! runner for the real daemon. Never published. Everything here panics with a clear message instead of returning
//! errors: the caller is a test. It uses plain `tokio-postgres` and none of walcast's own crates but `walcast-cluster`,
//! and `walcast-model` for positions, so every crate can take it as a dev-dependency.
//!
//! # A test on every version
//!
//! ```no_run
//! use walcast_testkit::{TestDatabase, for_each_version};
//!
//! #[tokio::test]
//! async fn a_row_that_was_written_can_be_read() {
//!     for_each_version(async |cluster| {
//!         let database = TestDatabase::create(cluster).await; // empty, unique name, wal_level=logical
//!         let session = database.session().await;             // derefs to tokio_postgres::Client, superuser
//!         session.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
//!         assert_eq!(database.scalar("SELECT count(*) FROM t").await.as_deref(), Some("1"));
//!     })
//!     .await;
//! }
//! ```
//!
//! For a test that does not depend on the version, `let cluster = walcast_testkit::shared_cluster().await;` gives the
//! shared server of the newest version.
//!
//! Which versions: the oldest and the newest found on this machine ([`installations`]); `WALCAST_TEST_PG=15,18` names
//! others, `WALCAST_TEST_PG=all` takes each. `tests/postgres-versions.sh 14 18` fetches servers.
//!
//! * **Shared clusters**, one per version and test process, started by the first test that asks, stopped when the
//!   process ends. Do not stop, pause or reconfigure them; databases, roles and slots are free to use: what belongs to
//!   a [`TestDatabase`] goes away with it.
//! * **A cluster of your own**, for faults and settings: [`own_cluster`] or [`cluster_builder`], then the methods of
//!   [`Cluster`]: `stop`, `kill9`, `pause`, `restart`, `configure`, `log`, and builders for standbys and copies.
//! * **[`Proxy`]** between any two ends of a TCP connection: cut, close, blackhole, delay, throttle, slice, and traps
//!   after an exact number of bytes.
//! * **[`Daemon`]** runs the real `walcast serve`.
//! * **[`oracle`]**: clients that fold the feed into copies of the tables and believe nothing, and a witness of their own.
//! * **[`workload`]**: writers that keep a database busy; **[`fault`]**: what can break, and schedules of it; **[`Soak`]**:
//!   all of it together, until something is found or the time is over.
//! * **[`run`]** runs `walcast` to its end, [`run_command`] any program.
//! * **[`undisturbed`]** begins a test of short limits again when the machine stood still.
//! * **[`eventually`]** and [`within`] wait with a limit, and name what did not happen. A test that hangs all the same ends the
//!   run after [`TEST_MAX`], with its name and what it waited for.

mod clusters;
mod daemon;
mod database;
mod deadline;
pub mod fault;
pub mod oracle;
mod program;
mod proxy;
mod session;
mod soak;
mod standstill;
mod watchdog;
pub mod workload;

pub use clusters::{
    cluster_builder, for_each_version, installations, own_cluster, shared_cluster, shared_cluster_of,
};
pub use daemon::{Daemon, DaemonBuilder, Response};
pub use database::TestDatabase;
pub use deadline::{LIMIT, eventually, within};
pub use program::{output_of, program, run, run_command};
pub use proxy::{Direction, Proxy};
pub use session::TestSession;
pub use soak::{IdleReport, IdleWatch, Soak, SoakReport};
pub use standstill::undisturbed;
pub use walcast_cluster::{Cluster, ClusterBuilder, Installation, StopMode, Version};
pub use watchdog::TEST_MAX;
