-- walcast, schema version 1: the durable history of the change feed.
--
-- Everything lives in schema "walcast". `walcast setup` applies this file (and its successors) once, in order,
-- in one transaction, and records it in walcast.schema_version; `walcast setup --print` prints it for an
-- administrator to run; `walcast teardown` drops the schema. It needs no extension and no superuser:
-- CREATE on the database is enough, or an existing schema "walcast" that the role owns.
--
--   walcast.change_history   every change, in the order of the feed, partitioned by WAL position
--   walcast.changes          the same for people: JSON as jsonb
--   walcast.relation         the tables' definitions of their time
--   walcast.feed             which feed this is, and up to where it is stored
--
-- Grant SELECT on change_history, changes and relation as you like, but not on feed: it holds a secret.

DO $do$
BEGIN
    -- Not CREATE SCHEMA IF NOT EXISTS: that asks for CREATE on the database even where the schema is there.
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'walcast') THEN
        CREATE SCHEMA walcast;
    END IF;
END
$do$;

COMMENT ON SCHEMA walcast IS 'walcast: the durable history of a change feed. Made by "walcast setup".';

CREATE TABLE walcast.schema_version (
    version    int4 PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE walcast.schema_version IS 'The numbered files of sql/ that were applied here.';

-- The feed -------------------------------------------------------------------------------------------------

CREATE TABLE walcast.feed (
    feed_id           text PRIMARY KEY CHECK (feed_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    slot_name         text NOT NULL,
    database          text NOT NULL,
    system_identifier text NOT NULL,
    timeline          int8 NOT NULL,
    secret            text NOT NULL,
    oldest_lsn        pg_lsn NOT NULL,
    position_lsn      pg_lsn NOT NULL,
    position_seq      int8 NOT NULL DEFAULT 0,
    writer            int8 NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL DEFAULT now(),
    CHECK (oldest_lsn <= position_lsn)
) WITH (fillfactor = 10); -- one row, updated by every commit of the history: leave its page room for HOT updates

-- change_history does not say which feed a change belongs to, because there is only one.
CREATE UNIQUE INDEX feed_is_one ON walcast.feed ((true));

CREATE TABLE walcast.planned_slot (
    slot_name  text PRIMARY KEY,
    planned_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE walcast.planned_slot IS
    'Slots that setup has begun to create for a feed that is not there yet: one that is found was left by a setup that was interrupted.';

COMMENT ON TABLE walcast.feed IS 'The feed that this history belongs to, and up to where it is stored.';
COMMENT ON COLUMN walcast.feed.feed_id IS 'Cursors of one feed id are comparable; a history that is started over gets another.';
COMMENT ON COLUMN walcast.feed.slot_name IS 'The replication slot that the feed is read from.';
COMMENT ON COLUMN walcast.feed.system_identifier IS 'Of the source cluster (IDENTIFY_SYSTEM): a restored or other cluster shows here.';
COMMENT ON COLUMN walcast.feed.timeline IS 'Of the source cluster when it was last connected to.';
COMMENT ON COLUMN walcast.feed.secret IS 'Proves that a walcast.rows message in the WAL was written by walcast. Keep it from other roles.';
COMMENT ON COLUMN walcast.feed.oldest_lsn IS 'No cursor before it can be served.';
COMMENT ON COLUMN walcast.feed.position_lsn IS 'Every change before (position_lsn, position_seq) is stored, none at or after it.';
COMMENT ON COLUMN walcast.feed.writer IS 'Which process moved the position last: a random number of its own.';
COMMENT ON COLUMN walcast.feed.position_seq IS 'Above zero only while a huge transaction is being stored in several commits.';

-- Moves the position, from where the caller believes it to be. A daemon that was replaced without noticing
-- believes wrong, gets SQLSTATE WC001 and has changed nothing: call this first in the transaction that stores.
CREATE FUNCTION walcast.advance(feed text, writer int8, from_lsn pg_lsn, from_seq int8, to_lsn pg_lsn, to_seq int8)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    IF (to_lsn, to_seq) < (from_lsn, from_seq) THEN
        RAISE EXCEPTION 'the position of feed % cannot move back from %:% to %:%', feed, from_lsn, from_seq, to_lsn, to_seq;
    END IF;
    UPDATE walcast.feed AS f SET position_lsn = to_lsn, position_seq = to_seq, writer = advance.writer
    WHERE f.feed_id = advance.feed AND f.position_lsn = from_lsn AND f.position_seq = from_seq;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WC001',
            MESSAGE = format('the position of feed %s is not %s:%s', feed, from_lsn, from_seq),
            HINT = 'Another walcast stores this feed.';
    END IF;
END
$function$;

COMMENT ON FUNCTION walcast.advance(text, int8, pg_lsn, int8, pg_lsn, int8) IS
    'Moves the stored position; SQLSTATE WC001 when it is not where the caller believes it to be.';

-- The changes ----------------------------------------------------------------------------------------------

CREATE TABLE walcast.relation (
    digest      int8 PRIMARY KEY,
    oid         oid NOT NULL,
    schema_name text NOT NULL,
    table_name  text NOT NULL,
    definition  text NOT NULL,
    first_lsn   pg_lsn NOT NULL
);

COMMENT ON TABLE walcast.relation IS 'Definitions of published tables, as they were when their changes were written.';
COMMENT ON COLUMN walcast.relation.digest IS 'Equal for equal definitions; change_history.relation refers to it.';
COMMENT ON COLUMN walcast.relation.oid IS 'The table''s oid in the source database.';
COMMENT ON COLUMN walcast.relation.definition IS 'JSON: replica identity and columns, in the order of a row.';
COMMENT ON COLUMN walcast.relation.first_lsn IS 'The position of the first change that was seen with it.';

-- Fixed widths first, so that no row has holes in it. JSON as text: COPY is 1.5 times as fast as with jsonb,
-- and every value keeps the digits that Postgres printed.
CREATE TABLE walcast.change_history (
    lsn          pg_lsn NOT NULL,
    seq          int8 NOT NULL,
    xid          int8 NOT NULL,
    committed_at timestamptz NOT NULL,
    relation     int8 NOT NULL,
    commit_end   pg_lsn,
    op           text NOT NULL,
    schema_name  text NOT NULL,
    table_name   text NOT NULL,
    key          text,
    "row"        text,
    old          text,
    unchanged    text,
    meta         text,
    PRIMARY KEY (lsn, seq)
) PARTITION BY RANGE (lsn);

-- For new clients: which stored transactions did a snapshot not see? 40 kB instead of a btree's 30 MB per
-- million rows. walcast summarizes it as it writes; autosummarize would fill the server's log under load.
CREATE INDEX change_history_xid ON walcast.change_history USING brin (xid);

COMMENT ON TABLE walcast.change_history IS 'Every change in the order of the feed, (lsn, seq). Partitioned by WAL position: retention drops partitions.';
COMMENT ON COLUMN walcast.change_history.lsn IS 'Where the transaction''s commit record starts.';
COMMENT ON COLUMN walcast.change_history.seq IS '0, 1, 2 and so on in the transaction.';
COMMENT ON COLUMN walcast.change_history.xid IS 'The top-level transaction id, 64 bits.';
COMMENT ON COLUMN walcast.change_history.committed_at IS 'By the source server''s clock.';
COMMENT ON COLUMN walcast.change_history.relation IS 'The table''s definition: walcast.relation.digest.';
COMMENT ON COLUMN walcast.change_history.commit_end IS 'On the last change of a transaction only: where its commit record ends, the cursor after it.';
COMMENT ON COLUMN walcast.change_history.op IS 'insert, update, delete or truncate.';
COMMENT ON COLUMN walcast.change_history.key IS 'JSON object: the columns that name the row, as they were before the change.';
COMMENT ON COLUMN walcast.change_history."row" IS 'JSON object: the row after the change, without its unchanged columns.';
COMMENT ON COLUMN walcast.change_history.old IS 'JSON object: the row before the change, under REPLICA IDENTITY FULL.';
COMMENT ON COLUMN walcast.change_history.unchanged IS 'JSON array: names of large columns that the WAL did not carry because they were not written.';
COMMENT ON COLUMN walcast.change_history.meta IS 'JSON object: what the transaction said about itself. Not used yet.';

CREATE VIEW walcast.changes AS
SELECT lsn, seq, xid, committed_at, op, schema_name, table_name,
       key::jsonb AS key, "row"::jsonb AS "row", old::jsonb AS old, unchanged::jsonb AS unchanged, meta::jsonb AS meta,
       commit_end, relation
FROM walcast.change_history;

COMMENT ON VIEW walcast.changes IS 'change_history with its JSON as jsonb.';

-- The partition that holds a position, made if it is not there: width bytes of WAL, aligned to a multiple of
-- width, less what its neighbours (made with another width, perhaps) cover. Made as a table of its own and then
-- attached, which locks out no reader and no writer.
CREATE FUNCTION walcast.ensure_partition(at_lsn pg_lsn, width int8, OUT name text, OUT lower_lsn pg_lsn, OUT upper_lsn pg_lsn)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    zero CONSTANT pg_lsn := '0/0';
    last CONSTANT numeric := 'FFFFFFFF/FFFFFFFF'::pg_lsn - '0/0'::pg_lsn;
    floor_bytes numeric := floor((at_lsn - zero) / width) * width;
    below pg_lsn;
    above pg_lsn;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('walcast.ensure_partition', 0));
    SELECT p.name, p.lower_lsn, p.upper_lsn INTO name, lower_lsn, upper_lsn
    FROM walcast.partition AS p WHERE p.lower_lsn <= at_lsn AND at_lsn < p.upper_lsn;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT max(p.upper_lsn) FILTER (WHERE p.upper_lsn <= at_lsn), min(p.lower_lsn) FILTER (WHERE p.lower_lsn > at_lsn)
    INTO below, above FROM walcast.partition AS p;
    lower_lsn := greatest(zero + floor_bytes, below);
    upper_lsn := least(zero + least(floor_bytes + width, last), above);
    name := lower(format('change_history_%s%s', lpad(split_part(lower_lsn::text, '/', 1), 8, '0'),
                         lpad(split_part(lower_lsn::text, '/', 2), 8, '0')));
    EXECUTE format('CREATE TABLE walcast.%I (LIKE walcast.change_history INCLUDING DEFAULTS INCLUDING STORAGE)', name);
    EXECUTE format('ALTER TABLE walcast.change_history ATTACH PARTITION walcast.%I FOR VALUES FROM (%L) TO (%L)',
                   name, lower_lsn, upper_lsn);
END
$function$;

COMMENT ON FUNCTION walcast.ensure_partition(pg_lsn, int8) IS 'The partition of change_history that holds a position, made if it is not there.';

CREATE VIEW walcast.partition AS
SELECT child.relname::text AS name, (bounds.match)[1]::pg_lsn AS lower_lsn, (bounds.match)[2]::pg_lsn AS upper_lsn,
       child.oid AS oid
FROM pg_catalog.pg_inherits AS link
JOIN pg_catalog.pg_class AS child ON child.oid = link.inhrelid
CROSS JOIN LATERAL regexp_match(pg_catalog.pg_get_expr(child.relpartbound, child.oid),
    '^FOR VALUES FROM \(''([0-9A-F]+/[0-9A-F]+)''\) TO \(''([0-9A-F]+/[0-9A-F]+)''\)$') AS bounds(match)
WHERE link.inhparent = 'walcast.change_history'::regclass;

COMMENT ON VIEW walcast.partition IS 'The partitions of change_history and the positions they hold: lower_lsn <= lsn < upper_lsn.';

-- Brings a partition's index by transaction id up to date: ranges that were never summarized are read in full by
-- everybody who uses it.
CREATE FUNCTION walcast.summarize(partition regclass) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $function$
    SELECT brin_summarize_new_values(i.indexrelid)
    FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam
    WHERE i.indrelid = partition AND a.amname = 'brin';
$function$;

COMMENT ON FUNCTION walcast.summarize(regclass) IS 'Brings a partition''s index by transaction id up to date.';

-- A page of changes in the order of the feed: what is at or after (from_lsn, from_seq) and before (to_lsn, to_seq),
-- at most changes_max changes, and no further change once bytes_max bytes are reached. bytes_through is the sum
-- up to and with this change. To see no hole, ask only up to a position that walcast.feed had before.
--
-- Without statistics (a young partition never has good ones) the planner would rather read and sort millions of
-- rows than follow the key, hence the settings. octet_length() does not fetch what is stored out of line.
CREATE FUNCTION walcast.page(from_lsn pg_lsn, from_seq int8, to_lsn pg_lsn, to_seq int8, changes_max int8, bytes_max int8)
RETURNS TABLE (lsn pg_lsn, seq int8, xid int8, committed_at timestamptz, relation int8, commit_end pg_lsn, op text,
               key text, "row" text, old text, unchanged text, bytes_through int8)
LANGUAGE plpgsql STABLE ROWS 1000 SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $function$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT p.lsn, p.seq, p.xid, p.committed_at, p.relation, p.commit_end, p.op, p.key, p."row", p.old, p.unchanged, p.bytes_through
    FROM (
        SELECT h.lsn, h.seq, h.xid, h.committed_at, h.relation, h.commit_end, h.op, h.key, h."row", h.old, h.unchanged,
               size.bytes, sum(size.bytes) OVER (ORDER BY h.lsn, h.seq ROWS UNBOUNDED PRECEDING) AS bytes_through
        FROM walcast.change_history AS h
        CROSS JOIN LATERAL (SELECT 64 + coalesce(octet_length(h.key), 0) + coalesce(octet_length(h."row"), 0)
                                      + coalesce(octet_length(h.old), 0) AS bytes) AS size
        -- The row comparisons are exact; those of lsn alone leave out partitions.
        WHERE (h.lsn, h.seq) >= (from_lsn, from_seq) AND h.lsn >= from_lsn
          AND (h.lsn, h.seq) < (to_lsn, to_seq) AND h.lsn <= to_lsn
        ORDER BY h.lsn, h.seq
        LIMIT changes_max
    ) AS p
    WHERE p.bytes_through - p.bytes < bytes_max;
END
$function$;

COMMENT ON FUNCTION walcast.page(pg_lsn, int8, pg_lsn, int8, int8, int8) IS
    'A page of change_history in the order of the feed, bounded in changes and bytes.';

-- The step "which transaction was not in this snapshot" of an initial sync: the position of the first stored
-- transaction before (before_lsn, before_seq) that the snapshot does not see, or null. The snapshot's numbers
-- become constants in the query, so that each is looked up in the BRIN index by itself: a writer that has been
-- open for hours then costs one look-up and not a read of these hours.
CREATE FUNCTION walcast.first_invisible(snapshot pg_snapshot, before_lsn pg_lsn, before_seq int8) RETURNS pg_lsn
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_indexscan = off AS $function$
DECLARE
    invisible text := format('xid >= %s', pg_snapshot_xmax(snapshot));
    result pg_lsn;
BEGIN
    SELECT invisible || coalesce(string_agg(format(' OR xid = %s', open.xid), ''), '')
    INTO invisible FROM pg_snapshot_xip(snapshot) AS open(xid);
    -- OFFSET 0 keeps the primary key out of it: no walk from its start, no bitmap of all positions.
    EXECUTE format('SELECT min(lsn) FROM (SELECT lsn, seq FROM walcast.change_history WHERE %s OFFSET 0) AS invisible
                    WHERE seq = 0 AND (lsn, seq) < ($1, $2)', invisible)
    INTO result USING before_lsn, before_seq;
    RETURN result;
END
$function$;

COMMENT ON FUNCTION walcast.first_invisible(pg_snapshot, pg_lsn, int8) IS
    'The first stored transaction before a position that a snapshot of the source does not see.';
