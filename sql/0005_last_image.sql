-- walcast, schema version 5: the newest full row of each key, of the tables that last_images names.
--
-- Written in the transaction that stores the changes and moves the position, so it is exactly as of the position. An image
-- is never wrong: what is not known for certain has none. Retention leaves it alone.

CREATE TABLE walcast.imaged_table (
    relation    oid PRIMARY KEY,
    digest      int8 NOT NULL,
    storage     int8 NOT NULL,
    since       pg_lsn NOT NULL,
    schema_name text NOT NULL,
    table_name  text NOT NULL
);

COMMENT ON TABLE walcast.imaged_table IS 'Tables of which walcast.last_image has rows. All images of a table are of one definition and one storage.';
COMMENT ON COLUMN walcast.imaged_table.relation IS 'The table''s oid in the source database.';
COMMENT ON COLUMN walcast.imaged_table.digest IS 'The definition of its images, as in walcast.relation.';
COMMENT ON COLUMN walcast.imaged_table.storage IS 'Names the file and the publication of the table: another one when it was rewritten or not published for a while.';
COMMENT ON COLUMN walcast.imaged_table.since IS 'Since when it surely has this storage.';

CREATE TABLE walcast.last_image (
    relation oid NOT NULL,
    key      text COLLATE "C" NOT NULL,
    "row"    text NOT NULL,
    lsn      pg_lsn NOT NULL,
    seq      int8 NOT NULL,
    PRIMARY KEY (relation, key)
);

COMMENT ON TABLE walcast.last_image IS 'The newest full row of each key, as of the stored position; of tables that last_images names, where it is known.';
COMMENT ON COLUMN walcast.last_image.key IS 'JSON object: the columns that name the row.';
COMMENT ON COLUMN walcast.last_image."row" IS 'JSON object: the whole row.';
COMMENT ON COLUMN walcast.last_image.lsn IS 'With seq: the change that made the row what it is.';
