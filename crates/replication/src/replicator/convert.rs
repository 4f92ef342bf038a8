//! Values whose type has a cast to json: the server runs it, for many values at a time.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;
use walcast_model::Oid;
use walcast_pgoutput::json::{Conversion, Conversions};
use walcast_pgoutput::{DecodeError, Decoder};
use walcast_postgres::{Error, Session};

use crate::assemble::Assembler;
use crate::connection::StreamFrame;

/// How many values are asked for at once, and how many bytes of text, the first value apart.
const CONVERTED_VALUES_MAX: usize = 1000;
const CONVERTED_BYTES_MAX: usize = 4 << 20;

/// Values come from whoever may write to the tables, so the functions are kept from writing, and from taking for ever:
/// a statement that is not done in this time has not converted anything.
const BEGIN: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = '10s'";

/// Adds what changes in the frames `ahead` will want, up to the limits and up to the next definition of a table, and takes
/// out what is there twice.
pub(super) fn look_ahead(
    decoder: &mut Decoder,
    assembler: &Assembler,
    ahead: &[StreamFrame],
    wanted: &mut Vec<Conversion>,
) -> Result<(), DecodeError> {
    let (mut bytes, mut counted) = (0, 0);
    for frame in ahead {
        bytes += wanted[counted..].iter().map(|conversion| conversion.text.len()).sum::<usize>();
        counted = wanted.len();
        if wanted.len() >= CONVERTED_VALUES_MAX || bytes >= CONVERTED_BYTES_MAX {
            break;
        }
        match frame {
            StreamFrame::XLogData { data, .. } if data.first() == Some(&b'R') => break,
            // Decoding a change leaves no trace in the decoder.
            StreamFrame::XLogData { start, data, .. } if matches!(data.first(), Some(b'I' | b'U' | b'D')) => {
                assembler.look_ahead(*start, &decoder.decode(data.clone())?, wanted);
            }
            _ => {}
        }
    }
    let mut seen = HashSet::new();
    wanted.retain(|conversion| seen.insert(conversion.clone()));
    Ok(())
}

/// Converts values in one session.
#[derive(Debug, Default)]
pub(super) struct Converter {
    statements: HashMap<Oid, Statement>,
}

impl Converter {
    /// Asks for all of `wanted`, and adds an answer for each to `conversions`: without JSON for a value that the server's
    /// own `to_jsonb` refuses.
    pub(super) async fn convert(
        &mut self,
        session: &Session,
        wanted: Vec<Conversion>,
        conversions: &mut Conversions,
    ) -> Result<(), Error> {
        let mut by_type: HashMap<Oid, Vec<Conversion>> = HashMap::new();
        for conversion in wanted {
            by_type.entry(conversion.type_oid).or_default().push(conversion);
        }
        for (type_oid, values) in by_type {
            // Halves of what failed, until what remains is what cannot be converted.
            let mut open = vec![values];
            while let Some(mut values) = open.pop() {
                let converted = match self.ask(session, type_oid, &values).await {
                    Ok(converted) => converted,
                    Err(error) if error.sqlstate().is_none() || error.is_shutting_down() => {
                        return Err(error);
                    }
                    Err(error) if values.len() > 1 && error.sqlstate() != Some(QUERY_CANCELED) => {
                        let rest = values.split_off(values.len() / 2);
                        open.extend([rest, values]);
                        continue;
                    }
                    Err(error) => {
                        tracing::debug!(%type_oid, %error, "the server cannot convert a value to json");
                        Vec::new()
                    }
                };
                let converted = converted.into_iter().chain(std::iter::repeat(None));
                for (conversion, json) in values.into_iter().zip(converted) {
                    conversions.insert(conversion, json.map(|json| json.into_bytes().into()));
                }
            }
        }
        Ok(())
    }

    /// One JSON text for each value.
    async fn ask(
        &mut self,
        session: &Session,
        type_oid: Oid,
        values: &[Conversion],
    ) -> Result<Vec<Option<String>>, Error> {
        let statement = match self.statements.get(&type_oid) {
            Some(statement) => statement.clone(),
            None => {
                let statement = prepare(session, type_oid).await?;
                self.statements.entry(type_oid).or_insert(statement).clone()
            }
        };
        // Bytes that are no text (in an SQL_ASCII database) are not asked for: NULL has no JSON.
        let texts: Vec<Option<&str>> =
            values.iter().map(|value| std::str::from_utf8(&value.text).ok()).collect();
        let parameters: [&(dyn ToSql + Sync); 1] = [&texts];
        // Together on the wire, in this order.
        let (begun, rows, ended) = tokio::join!(
            session.batch_execute(BEGIN),
            session.query(&statement, &parameters),
            session.batch_execute("COMMIT")
        );
        begun?;
        let rows = rows?;
        ended?;
        Ok(rows.iter().map(|row| row.try_get(0).ok().flatten()).collect())
    }
}

const QUERY_CANCELED: &str = "57014";

async fn prepare(session: &Session, type_oid: Oid) -> Result<Statement, Error> {
    // Qualified, as the session's search path has nothing but the catalog.
    let name = session.query_one("SELECT format_type($1, NULL)", &[&type_oid.get()]).await?;
    let name: String = name.try_get(0)?;
    let sql = format!(
        "SELECT to_jsonb(v::{name})::text FROM unnest($1::text[]) WITH ORDINALITY AS value (v, place) ORDER BY place"
    );
    Ok(session.prepare(&sql).await?)
}
