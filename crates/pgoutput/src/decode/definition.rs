//! `R`, `Y`: what the oids of later messages stand for.

use walcast_model::ReplicaIdentity;

use super::{DecodeError, stream_xid};
use crate::message::{RelationColumn, RelationDefinition, TypeDefinition};
use crate::reader::Reader;

/// `LOGICALREP_IS_REPLICA_IDENTITY` in the server's `logicalproto`.
const COLUMN_IN_IDENTITY: u8 = 1;
/// The least that a column takes: flags, an empty name, type, modifier.
const COLUMN_BYTES_MIN: usize = 1 + 1 + 4 + 4;

pub(super) fn relation(reader: &mut Reader, in_stream: bool) -> Result<RelationDefinition, DecodeError> {
    let stream_xid = stream_xid(reader, in_stream)?;
    let oid = reader.oid("relation")?;
    let (schema, name) = (reader.name("schema")?, reader.name("table")?);
    let identity = match reader.u8("replica identity")? {
        b'd' => ReplicaIdentity::Default,
        b'i' => ReplicaIdentity::Index,
        b'f' => ReplicaIdentity::Full,
        b'n' => ReplicaIdentity::Nothing,
        other => return Err(reader.invalid("replica identity", other)),
    };
    let count = usize::from(reader.u16("number of columns")?);
    if count > reader.left() / COLUMN_BYTES_MIN {
        return Err(reader.truncated("columns"));
    }
    let columns = (0..count).map(|_| column(reader)).collect::<Result<_, _>>()?;
    Ok(RelationDefinition { stream_xid, oid, schema, name, identity, columns })
}

fn column(reader: &mut Reader) -> Result<RelationColumn, DecodeError> {
    Ok(RelationColumn {
        identity: reader.flags(COLUMN_IN_IDENTITY, "column flags")? == COLUMN_IN_IDENTITY,
        name: reader.name("column")?,
        type_oid: reader.oid("column's type")?,
        type_modifier: reader.i32("column's type modifier")?,
    })
}

pub(super) fn type_definition(reader: &mut Reader, in_stream: bool) -> Result<TypeDefinition, DecodeError> {
    Ok(TypeDefinition {
        stream_xid: stream_xid(reader, in_stream)?,
        oid: reader.oid("type")?,
        schema: reader.name("type's schema")?,
        name: reader.name("type's name")?,
    })
}
