//! `b`, `P`, `K`, `r`, `p`: two-phase commit (protocol 3 and later, with `two_phase`).

use super::DecodeError;
use crate::message::{BeginPrepare, CommitPrepared, Prepare, RollbackPrepared};
use crate::reader::Reader;

pub(super) fn begin_prepare(reader: &mut Reader) -> Result<BeginPrepare, DecodeError> {
    Ok(BeginPrepare {
        prepare: reader.lsn("prepare_lsn")?,
        end: reader.lsn("end_lsn")?,
        prepared_at: reader.timestamp("prepare time")?,
        xid: reader.u32("transaction id")?,
        gid: reader.name("gid")?,
    })
}

pub(super) fn prepare(reader: &mut Reader) -> Result<Prepare, DecodeError> {
    reader.flags(0, "flags")?;
    Ok(Prepare {
        prepare: reader.lsn("prepare_lsn")?,
        end: reader.lsn("end_lsn")?,
        prepared_at: reader.timestamp("prepare time")?,
        xid: reader.u32("transaction id")?,
        gid: reader.name("gid")?,
    })
}

pub(super) fn commit_prepared(reader: &mut Reader) -> Result<CommitPrepared, DecodeError> {
    reader.flags(0, "flags")?;
    Ok(CommitPrepared {
        start: reader.commit_start("commit_lsn")?,
        end: reader.commit_end("end_lsn")?,
        committed_at: reader.timestamp("commit time")?,
        xid: reader.u32("transaction id")?,
        gid: reader.name("gid")?,
    })
}

pub(super) fn rollback_prepared(reader: &mut Reader) -> Result<RollbackPrepared, DecodeError> {
    reader.flags(0, "flags")?;
    Ok(RollbackPrepared {
        prepare_end: reader.lsn("prepare_end_lsn")?,
        rollback_end: reader.lsn("rollback_end_lsn")?,
        prepared_at: reader.timestamp("prepare time")?,
        rolled_back_at: reader.timestamp("rollback time")?,
        xid: reader.u32("transaction id")?,
        gid: reader.name("gid")?,
    })
}
