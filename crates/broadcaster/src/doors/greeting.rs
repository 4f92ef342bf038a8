//! What every connection is told first.

use walcast_feed::SourceState;
use walcast_protocol::{
    ChannelLimits, Limits as ClientLimits, PROTOCOL_VERSION, SourceStatus, Status, Welcome,
};

use crate::broadcaster::Broadcaster;

pub(super) fn welcome(broadcaster: &Broadcaster) -> Welcome {
    let limits = broadcaster.limits();
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Welcome {
        protocol: PROTOCOL_VERSION,
        feed: broadcaster.feed_id().clone(),
        cursor: broadcaster.feed().head(),
        oldest: broadcaster.oldest(),
        server: concat!("walcast/", env!("CARGO_PKG_VERSION")).to_owned(),
        heartbeat_ms: u64::try_from(limits.heartbeat.as_millis()).unwrap_or(u64::MAX),
        limits: ClientLimits {
            message_bytes_max: limits.message_bytes_max as u64,
            subscriptions_max: narrow(limits.subscriptions_max),
            tables_max: narrow(limits.tables_max),
            channels: Some(ChannelLimits {
                channels_per_connection_max: narrow(limits.channels_per_connection_max),
                channel_name_bytes_max: narrow(limits.channel_name_bytes_max),
                payload_bytes_max: limits.payload_bytes_max as u64,
                state_bytes_max: limits.state_bytes_max as u64,
                publishes_per_second_max: narrow(limits.publishes_per_second_max),
            }),
        },
    }
}

pub(super) fn status(state: &SourceState, is_open: bool) -> Status {
    let plain = |state| Status { state, message: None, hint: None };
    match state {
        SourceState::Starting => plain(SourceStatus::Starting),
        SourceState::Streaming => plain(SourceStatus::Streaming),
        // What is wrong with it names hosts and roles: not for strangers.
        SourceState::Interrupted { .. } if !is_open => plain(SourceStatus::Interrupted),
        SourceState::Interrupted { reason, hint } => {
            Status { state: SourceStatus::Interrupted, message: Some(reason.clone()), hint: hint.clone() }
        }
    }
}
