//! `B`, `C`, `O`: where a transaction begins and ends.

use super::DecodeError;
use crate::message::{Begin, Commit, Origin};
use crate::reader::Reader;

pub(super) fn begin(reader: &mut Reader) -> Result<Begin, DecodeError> {
    Ok(Begin {
        start: reader.commit_start("final_lsn")?,
        committed_at: reader.timestamp("commit time")?,
        xid: reader.u32("transaction id")?,
    })
}

pub(super) fn commit(reader: &mut Reader) -> Result<Commit, DecodeError> {
    reader.flags(0, "flags")?;
    Ok(Commit {
        start: reader.commit_start("commit_lsn")?,
        end: reader.commit_end("end_lsn")?,
        committed_at: reader.timestamp("commit time")?,
    })
}

pub(super) fn origin(reader: &mut Reader) -> Result<Origin, DecodeError> {
    Ok(Origin { lsn: reader.lsn("origin_lsn")?, name: reader.name("origin's name")? })
}
