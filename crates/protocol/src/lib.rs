//! What clients and the daemon say to each other over `GET /v1/stream`: the types, the codes, the text forms.
//!
//! `docs/protocol.md` is the contract in words; `golden/` in this crate has every message as it stands on the wire,
//! and the tests hold both directions to it. This crate does no I/O and keeps no state.
//!
//! A frame is one JSON object with a `type`. Unknown fields are ignored, an unknown `type` is an error of its own
//! ([`DecodeError::UnknownType`]), so that either side can be newer than the other. Rows and keys stay
//! [`serde_json::value::RawValue`]: the text as the server wrote it, numbers with all their digits.
//!
//! ```
//! use walcast_protocol::{ClientMessage, ServerMessage, StartAt, Subscribe, TablePattern};
//!
//! let mut subscribe = Subscribe::new("orders".parse()?, vec!["public.orders".parse::<TablePattern>()?]);
//! subscribe.cursor = StartAt::Latest;
//! let text = ClientMessage::from(subscribe).to_json();
//! assert_eq!(
//!     text,
//!     r#"{"type":"subscribe","id":"orders","tables":[{"table":"public.orders"}],"cursor":"latest"}"#
//! );
//!
//! let frame = r#"{"type":"caught_up","id":"orders","cursor":"16/B374D848","added_in_2031":true}"#;
//! let ServerMessage::CaughtUp(caught_up) = ServerMessage::decode(frame)? else { panic!() };
//! assert_eq!(caught_up.cursor, "16/B374D848".parse()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod channel;
mod client_message;
mod code;
#[cfg(test)]
mod contract_tests;
mod decode;
pub mod encode;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod schema;
mod server_message;
mod start_at;
mod subscription_id;
mod table_pattern;

pub use channel::{
    ChannelMessage, Dropped, JoinChannel, Joined, LeaveChannel, Member, Presence, PublishMessage, Sender,
    SetPresence,
};
pub use client_message::{
    Ack, Auth, Catchup, ClientMessage, ListClients, Payload, Subscribe, TableSelection, Unsubscribe,
};
pub use code::{CloseCode, ErrorCode};
pub use decode::{DecodeError, Malformed};
pub use server_message::{
    Acked, AuthRequired, CaughtUp, Change, ChannelLimits, ClientList, ClientState, Column, ErrorMessage,
    Heartbeat, Limits, Mode, Progress, RelationMessage, ServerMessage, SnapshotComplete, SnapshotRows,
    SourceStatus, Status, Subscribed, TransactionMessage, Waiting, Welcome,
};
pub use start_at::{ParseStartAtError, StartAt};
pub use subscription_id::{ParseSubscriptionIdError, SubscriptionId};
pub use table_pattern::{ParseTablePatternError, TablePattern};

/// The version of the contract that these types speak; `welcome.protocol`.
pub const PROTOCOL_VERSION: u32 = 1;

/// The WebSocket subprotocol (RFC 6455 section 1.9) that a client offers and the daemon picks.
pub const SUBPROTOCOL: &str = "walcast.v1";

/// The path of the WebSocket door.
pub const STREAM_PATH: &str = "/v1/stream";
