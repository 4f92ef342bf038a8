//! What the replicator is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use walcast_feed::MessageWriter;

use super::{Keeper, LastImages};
use crate::connection::ReplicationSettings;
use crate::identity::Origin;

/// What the replicator reads, and how.
#[derive(Clone)]
pub struct ReplicatorSettings {
    /// The slot.
    pub slot: String,
    /// The publications, in no order.
    pub publications: Vec<String>,
    /// The feed's secret, with which `walcast.rows` messages start.
    pub secret: String,
    /// What the feed's record says that it was read from last.
    pub origin: Origin,
    /// Whether the server, although it is the recorded one, may have been restored before it was recorded: then what its
    /// slot sends again is compared with what is stored, before anything is acknowledged.
    pub must_compare: bool,
    /// Who keeps the feed's record. Without one a server that was started again is trusted.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// Who keeps last images, by which changes are completed. `None` when no table was chosen for it.
    pub last_images: Option<Arc<dyn LastImages>>,
    /// Where what the source says to channels goes. `None` where nobody tells it.
    pub messages: Option<MessageWriter>,
    /// JSON bytes after which a part of a transaction is closed. Default 1 MiB.
    pub part_bytes_max: usize,
    /// The walsender's settings.
    pub connection: ReplicationSettings,
    /// How long a shutdown waits for the history's last acknowledgement, and again for the server's goodbye. Default
    /// 5 s each; beyond it the connection is dropped, and the slot sends again what was not acknowledged.
    pub finish_timeout: Duration,
}

impl ReplicatorSettings {
    /// The defaults, for this slot and these publications of the cluster with this identity.
    #[must_use]
    pub fn new(
        slot: impl Into<String>,
        publications: Vec<String>,
        secret: impl Into<String>,
        system_identifier: impl Into<String>,
        timeline: u32,
    ) -> Self {
        Self {
            slot: slot.into(),
            publications,
            secret: secret.into(),
            origin: Origin {
                system_identifier: system_identifier.into(),
                timeline,
                began: None,
                server_run: None,
            },
            must_compare: false,
            keeper: None,
            last_images: None,
            messages: None,
            part_bytes_max: 1 << 20,
            connection: ReplicationSettings::default(),
            finish_timeout: Duration::from_secs(5),
        }
    }
}

// The secret stays out.
impl fmt::Debug for ReplicatorSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicatorSettings")
            .field("slot", &self.slot)
            .field("publications", &self.publications)
            .field("origin", &self.origin)
            .field("must_compare", &self.must_compare)
            .field("part_bytes_max", &self.part_bytes_max)
            .finish_non_exhaustive()
    }
}
