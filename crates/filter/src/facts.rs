//! The queries that tell what a [`Schema`](crate::Schema) has to know. They work on Postgres 14 to 18; run them by the
//! same session, close to each other.

/// The database: provider (text), locale, ctype (text, NULL for none) of its default collation, and whether its encoding
/// is UTF8. For [`Collation::classify`](crate::Collation::classify) and
/// [`SchemaBuilder::with_database`](crate::SchemaBuilder::with_database).
pub const DATABASE: &str = "\
SELECT coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') AS provider,
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', d.datcollate) AS locale,
       d.datctype::text AS ctype,
       pg_catalog.pg_encoding_to_char(d.encoding) = 'UTF8' AS utf8
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";

/// Of the table `$1` (an oid) each column with a collation: name, provider, locale, ctype (text), whether it is
/// deterministic. The provider `d` stands for the database's own collation.
pub const COLLATIONS: &str = "\
SELECT a.attname::text AS name, c.collprovider::text AS provider,
       coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale', c.collcollate::text, '') AS locale,
       coalesce(c.collctype::text, '') AS ctype, c.collisdeterministic AS deterministic
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";

/// The types of the columns of the table `$1` (an oid) and what they are made of: oid, kind (`e` enum, `d` domain, `a`
/// array, `c` composite), the oid of a domain's base or an array's element, its name as SQL (text), an enum's labels in
/// their order (text array). Other types have no row.
pub const TYPES: &str = "\
WITH RECURSIVE used(oid) AS (
    SELECT a.atttypid FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END
    FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.oid
    WHERE t.typtype = 'd' OR t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc
)
SELECT t.oid,
       CASE WHEN t.typtype = 'b' THEN 'a' ELSE t.typtype::text END AS kind,
       CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END AS inner_oid,
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.typname) AS name,
       ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid
             ORDER BY e.enumsortorder) AS labels
FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype IN ('e', 'd', 'c')
   OR t.typtype = 'b' AND t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc";
