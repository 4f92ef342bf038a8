//! Types as the catalog has them, for the JSON writers.

use tokio_postgres::{Row, Statement};
use walcast_model::{Lsn, Oid, Xid};
use walcast_pgoutput::json::{Attribute, TypeKind, Types};

use crate::{Error, Session};

/// One row for each type that is asked about, its attributes as arrays when it is composite.
///
/// - A type is an array by its subscript handler (as in `jsonb_categorize_type`, through `get_element_type`).
/// - `to_jsonb` follows a cast to json that is a function, for types that are neither built in nor arrays nor composite
///   (`json_categorize_type`). hstore's is known, by the extension that owns the type. Any other has to be run by the
///   server with our rights, so it counts only when those who may replace the function have them anyway.
/// - An attribute is recent when the transaction that wrote its catalog row need not be over before the WAL that is
///   read begins: when it is not older than `$2`, the slot's `catalog_xmin`.
/// - `$3` is a transaction that must not be overlooked, `position` a place in the WAL after all that is seen here.
const TYPES: &str = "\
SELECT wanted.oid, t.typtype, t.typelem, t.typbasetype,
       t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc AND t.typelem <> 0 AS is_array,
       (SELECT e.typdelim FROM pg_catalog.pg_type e WHERE e.oid = t.typelem) AS delimiter,
       EXISTS (
           SELECT FROM pg_catalog.pg_depend d
           JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid AND x.extname = 'hstore'
           WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
             AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND t.typname = 'hstore'
       ) AS is_hstore,
       (SELECT r.rolsuper OR r.rolname = current_user
        FROM pg_catalog.pg_cast c
        JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc
        JOIN pg_catalog.pg_roles r ON r.oid = p.proowner
        WHERE c.castsource = t.oid AND c.casttarget = 'pg_catalog.json'::regtype AND c.castmethod = 'f'
          AND t.oid >= 16384) AS is_cast_trusted,
       a.numbers, a.names, a.types, a.recent,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
            ELSE pg_catalog.pg_current_wal_insert_lsn() END::text AS position,
       coalesce(pg_catalog.pg_visible_in_snapshot($3::text::xid8, pg_catalog.pg_current_snapshot()), true) AS is_seen
FROM unnest($1::oid[]) AS wanted (oid)
LEFT JOIN pg_catalog.pg_type t ON t.oid = wanted.oid
LEFT JOIN LATERAL (
    SELECT array_agg(a.attnum ORDER BY a.attnum) AS numbers,
           array_agg(CASE WHEN NOT a.attisdropped THEN a.attname::text END ORDER BY a.attnum) AS names,
           array_agg(a.atttypid ORDER BY a.attnum) AS types,
           array_agg(coalesce(age(a.xmin) <= age($2::text::xid), false) ORDER BY a.attnum) AS recent
    FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0
) AS a ON true";

/// Whether somebody may be altering one of these composite types in a transaction that others do not see yet: ALTER
/// TYPE holds this lock until they do.
const ALTERING: &str = "\
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_type t JOIN pg_catalog.pg_locks l ON l.relation = t.typrelid
    WHERE t.oid = ANY ($1) AND t.typrelid <> 0 AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
      AND l.granted AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database()))";

/// Tells `types` what `oids` are and, down to built-in ones, what they are made of, for values that the server prints
/// now. What it knows already is not asked for again.
///
/// # Errors
/// When the session fails; `types` then knows a part.
pub async fn types(session: &Session, oids: &[Oid], types: &mut Types) -> Result<(), Error> {
    TypeReader::default().complete(session, oids, types).await
}

/// Reads types for values of the WAL, which may be older than what the catalog says. For one session.
#[derive(Debug, Default)]
pub struct TypeReader {
    statement: Option<Statement>,
    /// Transactions before it were over before the WAL that is read.
    horizon: Option<String>,
}

/// When a reading was made.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Everything that was seen had been committed before it.
    position: Lsn,
    /// Whether the transaction in question was seen.
    is_seen: bool,
}

impl TypeReader {
    /// For changes that this logical slot sends from now on.
    ///
    /// # Errors
    /// When the session fails.
    pub async fn for_slot(session: &Session, slot: &str) -> Result<Self, Error> {
        const HORIZON: &str =
            "SELECT catalog_xmin::text FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
        let horizon = session.query_opt(HORIZON, &[&slot]).await?;
        let horizon = horizon.map(|row| row.try_get(0)).transpose()?.flatten();
        Ok(Self { statement: None, horizon })
    }

    /// Tells `types` what is [missing](Types::missing) of `oids`. A type that the catalog does not have (any more) is told
    /// as [`TypeKind::Dropped`].
    ///
    /// # Errors
    /// When the session fails; `types` then knows a part.
    pub async fn complete(
        &mut self,
        session: &Session,
        oids: &[Oid],
        types: &mut Types,
    ) -> Result<(), Error> {
        loop {
            let missing = types.missing(oids.iter().copied());
            if missing.is_empty() {
                return Ok(());
            }
            self.read(session, &missing, None, types).await?;
        }
    }

    /// Reads `oids` again, known or not, and what they are made of if it is new. Answers a position in the WAL:
    /// everything that was committed before it was seen, but for a transaction that nobody can see yet, as when it
    /// waits for a synchronous standby.
    ///
    /// `None` when `transaction` is not seen yet and may be altering one of the types: to be tried again.
    ///
    /// # Errors
    /// When the session fails; `types` then knows a part.
    pub async fn refresh(
        &mut self,
        session: &Session,
        oids: &[Oid],
        transaction: Option<Xid>,
        types: &mut Types,
    ) -> Result<Option<Lsn>, Error> {
        let mut reading = self.read(session, oids, transaction, types).await?;
        if !reading.is_seen {
            if session.query_one(ALTERING, &[&numbers(oids)]).await?.try_get(0)? {
                return Ok(None);
            }
            // Nobody holds a lock, so what the transaction may have altered can be seen now.
            reading = self.read(session, oids, transaction, types).await?;
        }
        self.complete(session, oids, types).await?;
        Ok(Some(reading.position))
    }

    async fn read(
        &mut self,
        session: &Session,
        oids: &[Oid],
        transaction: Option<Xid>,
        types: &mut Types,
    ) -> Result<Reading, Error> {
        let statement = match &self.statement {
            Some(statement) => statement.clone(),
            None => self.statement.insert(session.prepare(TYPES).await?).clone(),
        };
        let transaction = transaction.map(|transaction| transaction.to_string());
        let rows = session.query(&statement, &[&numbers(oids), &self.horizon, &transaction]).await?;
        let mut reading = Reading { position: Lsn::ZERO, is_seen: true };
        for row in rows {
            let position: &str = row.try_get("position")?;
            reading.position = position
                .parse()
                .map_err(|_| Error::Protocol(format!("{position:?} as a position in the WAL")))?;
            reading.is_seen = row.try_get("is_seen")?;
            types.insert(Oid::new(row.try_get("oid")?), kind(&row, reading.position)?);
        }
        Ok(reading)
    }
}

fn numbers(oids: &[Oid]) -> Vec<u32> {
    oids.iter().map(|oid| oid.get()).collect()
}

fn kind(row: &Row, position: Lsn) -> Result<TypeKind, Error> {
    let Some(kind) = row.try_get::<_, Option<i8>>("typtype")? else { return Ok(TypeKind::Dropped) };
    if row.try_get::<_, bool>("is_array")? {
        let delimiter = row.try_get::<_, Option<i8>>("delimiter")?.map_or(b',', i8::cast_unsigned);
        return Ok(TypeKind::Array { element: Oid::new(row.try_get("typelem")?), delimiter });
    }
    let is_cast_trusted: Option<bool> = row.try_get("is_cast_trusted")?;
    Ok(match (kind.cast_unsigned(), is_cast_trusted) {
        (b'd', _) => TypeKind::Domain { base: Oid::new(row.try_get("typbasetype")?) },
        (b'c', _) => TypeKind::Composite { attributes: attributes(row, position)? },
        (_, Some(_)) if row.try_get("is_hstore")? => TypeKind::Hstore,
        (_, Some(true)) => TypeKind::Cast,
        (_, Some(false)) => TypeKind::UntrustedCast,
        // Enums, ranges, multiranges and the base types of extensions: a string of their text.
        (_, None) => TypeKind::Text,
    })
}

fn attributes(row: &Row, position: Lsn) -> Result<Vec<Attribute>, Error> {
    // All NULL for a type without any.
    let Some(numbers) = row.try_get::<_, Option<Vec<i16>>>("numbers")? else { return Ok(Vec::new()) };
    let names: Vec<Option<String>> = row.try_get("names")?;
    let types: Vec<u32> = row.try_get("types")?;
    let recent: Vec<bool> = row.try_get("recent")?;
    let attributes = numbers.into_iter().zip(names).zip(types.into_iter().zip(recent));
    Ok(attributes
        .map(|((number, name), (type_oid, recent))| Attribute {
            number,
            since: if recent { position } else { Lsn::ZERO },
            live: name.map(|name| (name, Oid::new(type_oid))),
        })
        .collect())
}
