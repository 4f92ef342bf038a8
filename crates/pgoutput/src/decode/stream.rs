//! `S`, `c`, `A`: transactions that are sent while they are in progress (protocol 2 and later).

use super::DecodeError;
use crate::message::{StreamAbort, StreamCommit, StreamStart};
use crate::reader::Reader;

pub(super) fn start(reader: &mut Reader) -> Result<StreamStart, DecodeError> {
    Ok(StreamStart { xid: reader.u32("transaction id")?, first: reader.flags(1, "first block")? == 1 })
}

pub(super) fn commit(reader: &mut Reader) -> Result<StreamCommit, DecodeError> {
    let xid = reader.u32("transaction id")?;
    reader.flags(0, "flags")?;
    Ok(StreamCommit {
        xid,
        start: reader.commit_start("commit_lsn")?,
        end: reader.commit_end("end_lsn")?,
        committed_at: reader.timestamp("commit time")?,
    })
}

/// Position and time follow only with `streaming 'parallel'`, which the message itself does not say.
pub(super) fn abort(reader: &mut Reader) -> Result<StreamAbort, DecodeError> {
    let (xid, subxid) = (reader.u32("transaction id")?, reader.u32("subtransaction id")?);
    let aborted = match reader.left() {
        0 => None,
        _ => Some((reader.lsn("abort_lsn")?, reader.timestamp("abort time")?)),
    };
    Ok(StreamAbort { xid, subxid, aborted })
}
