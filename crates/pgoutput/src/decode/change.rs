//! `I`, `U`, `D`, `T`, `M`: what a transaction did.

use super::{DecodeError, stream_xid};
use crate::message::{Delete, Insert, LogicalMessage, Truncate, Update};
use crate::reader::Reader;
use crate::tuple::{OldTuple, Tuple};

const TRUNCATE_CASCADE: u8 = 1;
const TRUNCATE_RESTART_IDENTITY: u8 = 2;
const MESSAGE_TRANSACTIONAL: u8 = 1;

pub(super) fn insert(reader: &mut Reader, in_stream: bool) -> Result<Insert, DecodeError> {
    let (stream_xid, relation) = (stream_xid(reader, in_stream)?, reader.oid("relation")?);
    match reader.u8("kind of tuple")? {
        b'N' => Ok(Insert { stream_xid, relation, new: Tuple::read(reader)? }),
        other => Err(reader.invalid("kind of tuple", other)),
    }
}

pub(super) fn update(reader: &mut Reader, in_stream: bool) -> Result<Update, DecodeError> {
    let (stream_xid, relation) = (stream_xid(reader, in_stream)?, reader.oid("relation")?);
    let (old, kind) = match reader.u8("kind of tuple")? {
        b'K' => (Some(OldTuple::Key(Tuple::read(reader)?)), reader.u8("kind of new tuple")?),
        b'O' => (Some(OldTuple::Full(Tuple::read(reader)?)), reader.u8("kind of new tuple")?),
        kind => (None, kind),
    };
    if kind != b'N' {
        return Err(reader.invalid("kind of tuple", kind));
    }
    Ok(Update { stream_xid, relation, old, new: Tuple::read(reader)? })
}

pub(super) fn delete(reader: &mut Reader, in_stream: bool) -> Result<Delete, DecodeError> {
    let (stream_xid, relation) = (stream_xid(reader, in_stream)?, reader.oid("relation")?);
    let old = match reader.u8("kind of tuple")? {
        b'K' => OldTuple::Key(Tuple::read(reader)?),
        b'O' => OldTuple::Full(Tuple::read(reader)?),
        other => return Err(reader.invalid("kind of tuple", other)),
    };
    Ok(Delete { stream_xid, relation, old })
}

pub(super) fn truncate(reader: &mut Reader, in_stream: bool) -> Result<Truncate, DecodeError> {
    let (stream_xid, count) = (stream_xid(reader, in_stream)?, reader.u32("number of relations")?);
    let flags = reader.flags(TRUNCATE_CASCADE | TRUNCATE_RESTART_IDENTITY, "flags")?;
    if usize::try_from(count).map_or(true, |count| count > reader.left() / size_of::<u32>()) {
        return Err(reader.truncated("relations"));
    }
    let relations = (0..count).map(|_| reader.oid("relation")).collect::<Result<_, _>>()?;
    Ok(Truncate {
        stream_xid,
        cascade: flags & TRUNCATE_CASCADE != 0,
        restart_identity: flags & TRUNCATE_RESTART_IDENTITY != 0,
        relations,
    })
}

pub(super) fn logical_message(reader: &mut Reader, in_stream: bool) -> Result<LogicalMessage, DecodeError> {
    let stream_xid = stream_xid(reader, in_stream)?;
    let transactional = reader.flags(MESSAGE_TRANSACTIONAL, "flags")? == MESSAGE_TRANSACTIONAL;
    let (lsn, prefix) = (reader.lsn("lsn")?, reader.name("prefix")?);
    let length = usize::try_from(reader.u32("content length")?).unwrap_or(usize::MAX);
    Ok(LogicalMessage { stream_xid, transactional, lsn, prefix, content: reader.bytes(length, "content")? })
}
