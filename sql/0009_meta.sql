-- walcast, schema version 9: what transactions say about themselves.

COMMENT ON COLUMN walcast.change_history.meta IS 'JSON object: what the transaction had said about itself before this change, with walcast.set_meta.';

-- For applications: says about the transaction that it is called in who made it and why, before its changes.
--
--   SELECT walcast.set_meta('{"origin": "device 7", "user": "ann"}');
--
-- Clients are sent it as "meta", and it stands beside each change that follows in the transaction; a later call replaces
-- it. It writes one record of WAL and no table. Where schema walcast is in another database, call
-- pg_logical_emit_message(true, 'walcast', convert_to('{...}', 'UTF8')).
CREATE FUNCTION walcast.set_meta(meta jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    bytes_max CONSTANT int4 := 8192;
    content CONSTANT bytea := convert_to(meta::text, 'UTF8');
BEGIN
    IF jsonb_typeof(meta) <> 'object' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('what a transaction says about itself is a JSON object, not %s', jsonb_typeof(meta)),
            HINT = 'Write it as {"origin": "device 7", "user": "ann"}.';
    ELSIF octet_length(content) > bytes_max THEN
        RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded',
            MESSAGE = format('what a transaction says about itself has %s bytes, and %s are the most', octet_length(content), bytes_max),
            HINT = 'Store it in a table of your own, and say where it is.';
    END IF;
    PERFORM pg_logical_emit_message(true, 'walcast', content);
END
$function$;

COMMENT ON FUNCTION walcast.set_meta(jsonb) IS
    'Says about the transaction that it is called in who made it and why; delivered as "meta" with the changes that follow.';

-- As before, with meta.
DROP FUNCTION walcast.page(pg_lsn, int8, pg_lsn, int8, int8, int8);

-- A page of changes in the order of the feed: what is at or after (from_lsn, from_seq) and before (to_lsn, to_seq),
-- at most changes_max changes, and no further change once bytes_max bytes are reached. bytes_through is the sum
-- up to and with this change. To see no hole, ask only up to a position that walcast.feed had before.
--
-- Without statistics (a young partition never has good ones) the planner would rather read and sort millions of
-- rows than follow the key, hence the settings. octet_length() does not fetch what is stored out of line.
CREATE FUNCTION walcast.page(from_lsn pg_lsn, from_seq int8, to_lsn pg_lsn, to_seq int8, changes_max int8, bytes_max int8)
RETURNS TABLE (lsn pg_lsn, seq int8, xid int8, committed_at timestamptz, relation int8, commit_end pg_lsn, op text,
               key text, "row" text, old text, unchanged text, meta text, bytes_through int8)
LANGUAGE plpgsql STABLE ROWS 1000 SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $function$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT p.lsn, p.seq, p.xid, p.committed_at, p.relation, p.commit_end, p.op, p.key, p."row", p.old, p.unchanged, p.meta, p.bytes_through
    FROM (
        SELECT h.lsn, h.seq, h.xid, h.committed_at, h.relation, h.commit_end, h.op, h.key, h."row", h.old, h.unchanged, h.meta,
               size.bytes, sum(size.bytes) OVER (ORDER BY h.lsn, h.seq ROWS UNBOUNDED PRECEDING) AS bytes_through
        FROM walcast.change_history AS h
        CROSS JOIN LATERAL (SELECT 64 + coalesce(octet_length(h.key), 0) + coalesce(octet_length(h."row"), 0)
                                      + coalesce(octet_length(h.old), 0) + coalesce(octet_length(h.meta), 0) AS bytes) AS size
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
