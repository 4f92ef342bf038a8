//! Types as the catalog has them, for the JSON writers.

use tokio_postgres::Row;
use walcast_model::Oid;
use walcast_pgoutput::json::{TypeKind, Types};

use crate::{Error, Session};

/// One row a type, its attributes as two arrays when it is composite. A type is an array by its subscript handler
/// (as in `jsonb_categorize_type`, through `get_element_type`); hstore is known by the extension that owns it and
/// by its cast to json, which `to_jsonb` follows.
const TYPES: &str = "\
SELECT t.oid, t.typtype, t.typelem, t.typbasetype,
       t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc AND t.typelem <> 0 AS is_array,
       (SELECT e.typdelim FROM pg_catalog.pg_type e WHERE e.oid = t.typelem) AS delimiter,
       EXISTS (
           SELECT FROM pg_catalog.pg_depend d
           JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid AND x.extname = 'hstore'
           WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
             AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND t.typname = 'hstore'
       ) AND EXISTS (
           SELECT FROM pg_catalog.pg_cast c
           WHERE c.castsource = t.oid AND c.casttarget = 'pg_catalog.json'::regtype AND c.castmethod = 'f'
       ) AS is_hstore,
       ARRAY (SELECT a.attname::text FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS names,
       ARRAY (SELECT a.atttypid FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS field_types
FROM pg_catalog.pg_type t WHERE t.oid = ANY ($1)";

/// Tells `types` what `oids` are and, down to built-in ones, what they are made of. What it knows already is not asked
/// for again; a type that the catalog does not have (any more) is told as [`TypeKind::Text`].
///
/// # Errors
/// When the session fails; `types` then knows a part.
pub async fn types(session: &Session, oids: &[Oid], types: &mut Types) -> Result<(), Error> {
    loop {
        let missing = types.missing(oids.iter().copied());
        if missing.is_empty() {
            return Ok(());
        }
        let numbers: Vec<u32> = missing.iter().map(|oid| oid.get()).collect();
        for row in session.query(TYPES, &[&numbers]).await? {
            types.insert(Oid::new(row.try_get("oid")?), kind(&row)?);
        }
        for oid in missing {
            if !types.contains(oid) {
                types.insert(oid, TypeKind::Text);
            }
        }
    }
}

fn kind(row: &Row) -> Result<TypeKind, Error> {
    if row.try_get::<_, bool>("is_hstore")? {
        return Ok(TypeKind::Hstore);
    }
    if row.try_get::<_, bool>("is_array")? {
        let delimiter = row.try_get::<_, Option<i8>>("delimiter")?.map_or(b',', i8::cast_unsigned);
        return Ok(TypeKind::Array { element: Oid::new(row.try_get("typelem")?), delimiter });
    }
    Ok(match row.try_get::<_, i8>("typtype")?.cast_unsigned() {
        b'd' => TypeKind::Domain { base: Oid::new(row.try_get("typbasetype")?) },
        b'c' => {
            let names: Vec<String> = row.try_get("names")?;
            let types: Vec<u32> = row.try_get("field_types")?;
            TypeKind::Composite { fields: names.into_iter().zip(types.into_iter().map(Oid::new)).collect() }
        }
        // Enums, ranges, multiranges and the base types of extensions: a string of their text.
        _ => TypeKind::Text,
    })
}
