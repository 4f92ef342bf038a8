//! Throwaway Postgres: find an installation, start a server of one's own, stop it, leave nothing behind.
//!
//! Used by `walcast demo` and, through `walcast-testkit`, by every test. A [`Cluster`] is a real server with its own
//! data directory under the temporary folder, a free port on 127.0.0.1 and a Unix socket:
//!
//! ```no_run
//! # async fn example() -> Result<(), walcast_cluster::Error> {
//! use walcast_cluster::{Cluster, Installation, StopMode};
//!
//! let cluster = Cluster::builder(Installation::newest()?)
//!     .setting("max_replication_slots", 20)
//!     .start()
//!     .await?;
//! println!("psql '{}'", cluster.url("postgres"));
//! cluster.restart(StopMode::Fast).await?;
//! # Ok(())
//! # }
//! ```
//!
//! * As root, `initdb` and the server run as the account `postgres`, else `nobody`, for Postgres refuses root.
//! * Dropping a [`Cluster`] stops the server and removes its directory. A [`Guardian`], a small shell that waits at a
//!   pipe, does the same when this process is killed, exits with the cluster in a static, or crashes.
//! * The server is its own process group: Ctrl-C in a terminal does not reach it.

mod account;
mod builder;
mod cluster;
mod data_directory;
mod error;
mod guardian;
mod install;
mod installation;
mod port;
mod process;
mod server;

pub use builder::ClusterBuilder;
pub use cluster::Cluster;
pub use error::Error;
pub use guardian::Guardian;
pub use install::InstallPlan;
pub use installation::{Installation, Version};
pub use port::free_port;
pub use server::StopMode;
