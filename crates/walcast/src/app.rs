//! The composition root: builds the daemon from its settings, runs it, and takes it down in order.
//!
//! ```text
//!               setup ──► Feed ◄── Replicator (slot) ◄── BarrierEmitter (SQL)      Reconciler (publications)
//!                          │
//!                          ├──► Appender (history) ──acknowledge──► Replicator      Retention (old partitions)
//!                          └──► Broadcaster ◄── Gate (opened by the first barrier)
//! ```
//!
//! The listener is bound first, so that a mistake in the address is found at once; until the feed is set up it
//! answers `/livez`, and everything else with "not ready".

mod again;
mod daemon;
mod entrance;
mod error;
mod foundations;
mod gate;
mod identity;
mod images;
mod policies;
mod policy_watch;
mod tasks;
mod upkeep;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walcast_broadcaster::doors;

use daemon::Daemon;
use entrance::Entrance;
pub(crate) use error::ServeError;
use foundations::until_set_up;
pub(crate) use identity::{may_have_hole, origin};
pub(crate) use policies::{PolicyFile, describe};

use crate::commands::setup::Target;
use crate::settings::ServeSettings;

/// Runs the daemon until `shutdown`; `listening` is told the addresses, `reload` tells that keys, certificate or policies
/// have changed. Returns after everything has been taken down.
pub(crate) async fn serve(
    settings: ServeSettings,
    policies: Option<PolicyFile>,
    metrics: PrometheusHandle,
    reload: watch::Receiver<()>,
    shutdown: CancellationToken,
    listening: impl FnOnce(&[String]),
) -> Result<(), ServeError> {
    let target = Target::of(&settings);
    let entrance = match Entrance::open(&settings.entrance).await {
        Ok(entrance) => entrance,
        Err(error) => return Err(error.with_foundations(&target).await),
    };
    let failed = |error| ServeError::Sockets { error };
    listening(&entrance.addresses().map_err(failed)?);
    let keepers = {
        let listeners = entrance.listeners().map_err(failed)?;
        tokio::select! {
            keepers = entrance.keepers(policies) => keepers?,
            ended = doors::serve_unprepared(&listeners) => return ended.map_err(failed),
            () = shutdown.cancelled() => return Ok(()),
        }
    };
    let mut again = None;
    // Once, but for a failover or a restore of the source: then the feed is continued as another one.
    loop {
        let listeners = entrance.listeners().map_err(failed)?;
        let settled = tokio::select! {
            settled = until_set_up(&settings, &target, again.as_ref()) => settled?,
            ended = doors::serve_unprepared(&listeners) => return ended.map_err(failed),
            () = shutdown.cancelled() => return Ok(()),
        };
        let mut daemon = Daemon::start(&settings, settled, metrics.clone(), &keepers, listeners);
        keepers.spawn(&mut daemon.tasks, reload.clone(), &daemon.stop_source, daemon.feed.outages());
        keepers.watch_policies(&mut daemon.tasks, &target, &daemon.stop_source);
        // Boxed: it holds everything.
        match Box::pin(daemon.run(&shutdown)).await? {
            Some(told) => again = Some(told),
            None => return Ok(()),
        }
    }
}
