//! Columns in the form in which the model holds them.

use std::error::Error as StdError;

use postgres_types::{FromSql, PgLsn, Type};
use tokio_postgres::Row;
use walcast_model::{Lsn, Timestamp};

use crate::Error;

/// A `timestamptz` as Postgres counts it, infinities included.
struct Micros(i64);

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        // Documented in the server's src/backend/utils/adt/timestamp.c, timestamptz_send: microseconds since 2000.
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

/// A text as its bytes: in an SQL_ASCII database they need not be UTF-8.
pub(crate) struct Raw<'a>(pub(crate) &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT
    }
}

/// Reads a column by its place.
///
/// # Errors
/// When it does not have this type, or is null and may not be.
pub(crate) fn get<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, Error> {
    let unreadable =
        |error: tokio_postgres::Error| Error::Unreadable { what: "column", problem: error.to_string() };
    row.try_get(index).map_err(unreadable)
}

pub(crate) fn lsn(row: &Row, index: usize) -> Result<Lsn, Error> {
    Ok(Lsn::new(get::<PgLsn>(row, index)?.into()))
}

pub(crate) fn optional_lsn(row: &Row, index: usize) -> Result<Option<Lsn>, Error> {
    Ok(get::<Option<PgLsn>>(row, index)?.map(|lsn| Lsn::new(lsn.into())))
}

pub(crate) fn timestamp(row: &Row, index: usize) -> Result<Timestamp, Error> {
    Ok(Timestamp::from_postgres_micros(get::<Micros>(row, index)?.0))
}

pub(crate) fn optional_timestamp(row: &Row, index: usize) -> Result<Option<Timestamp>, Error> {
    Ok(get::<Option<Micros>>(row, index)?.map(|micros| Timestamp::from_postgres_micros(micros.0)))
}

/// The parameter for a position.
pub(crate) fn parameter(lsn: Lsn) -> PgLsn {
    PgLsn::from(lsn.get())
}
