//! The frequent frames, written straight from rows that are JSON already.
//!
//! A frame is a head that names the subscription and a tail that does not, so that the tail of a shape can be written
//! once and sent to many:
//!
//! ```text
//! {"type":"transaction","id":"orders"  ,"cursor":"0/2A","lsn":"0/10","xid":7,"committed_at":"…","changes":[…]}
//! └────────────── head ─────────────┘  └──────────────────────────── tail ──────────────────────────────────┘
//! ```

use std::io::Write;

use walcast_model::{Cursor, Meta, RelationName, Transaction, json};

use crate::server_message::Progress;
use crate::subscription_id::SubscriptionId;

/// Appends the head of a message: `{"type":"<type_name>","id":"<id>"`, without a comma after it.
pub fn head(out: &mut Vec<u8>, type_name: &str, id: &SubscriptionId) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(type_name.as_bytes());
    out.extend_from_slice(b"\",\"id\":");
    json::write_string(out, id.as_str());
}

/// Appends the tail of a `transaction`: from its comma to its last brace. `changes` appends the changes, separated by
/// commas. `cursor` is `None` before `snapshot_complete`, `meta` where there is none or it is not for the client.
pub fn transaction_tail(
    out: &mut Vec<u8>,
    cursor: Option<Cursor>,
    transaction: &Transaction,
    meta: Option<&Meta>,
    changes: impl FnOnce(&mut Vec<u8>),
    more: bool,
) {
    if let Some(cursor) = cursor {
        out.extend_from_slice(b",\"cursor\":\"");
        cursor.write(out);
        out.push(b'"');
    }
    let Transaction { start, xid, committed_at } = transaction;
    out.extend_from_slice(b",\"lsn\":\"");
    start.lsn().write(out);
    out.extend_from_slice(b"\",\"xid\":");
    xid.write(out);
    out.extend_from_slice(b",\"committed_at\":\"");
    committed_at.write(out);
    out.extend_from_slice(b"\",\"changes\":[");
    changes(out);
    out.push(b']');
    if let Some(meta) = meta {
        out.extend_from_slice(b",\"meta\":");
        out.extend_from_slice(meta.json().as_bytes());
    }
    out.extend_from_slice(if more { b",\"more\":true}" } else { b"}" });
}

/// Says of the `transaction` whose tail was written last that it is compacted.
pub fn compacted(tail: &mut Vec<u8>) {
    if tail.pop_if(|last| *last == b'}').is_some() {
        tail.extend_from_slice(b",\"compacted\":true}");
    }
}

/// Appends the tail of a `snapshot`: from its comma to its last brace. `rows` are row objects separated by commas.
pub fn snapshot_tail(out: &mut Vec<u8>, table: &RelationName, rows: &[u8], progress: Progress) {
    out.extend_from_slice(b",\"table\":");
    json::write_string(out, &table.to_string());
    out.extend_from_slice(b",\"rows\":[");
    out.extend_from_slice(rows);
    append(out, format_args!("],\"progress\":{{\"done\":{}", progress.done));
    if let Some(estimate) = progress.estimate {
        append(out, format_args!(",\"estimate\":{estimate}"));
    }
    out.extend_from_slice(b"}}");
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Cannot fail: a Vec takes everything, and the Display of positions and times does not fail.
    let _ = out.write_fmt(text);
}
