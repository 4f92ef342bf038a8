-- walcast, schema version 8: what history lacks is missed.
--
-- Rows that somebody deleted and partitions that somebody dropped must not be read over. Two things prove them: the last
-- change that was stored, which retention never drops, and the record of each partition, which goes only with it.

-- From the name, which is all that is left of a partition that was dropped by hand.
CREATE FUNCTION walcast.partition_lower(name text) RETURNS pg_lsn
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $function$
    SELECT (substr(name, 16, 8) || '/' || substr(name, 24, 8))::pg_lsn;
$function$;

COMMENT ON FUNCTION walcast.partition_lower(text) IS 'The position with which the partition of this name begins.';

-- From where on history is whole. oldest_lsn: as the record says. kept_lsn: later where a partition is gone that retention
-- has not dropped (its record is still there), or the last change that was stored (has_last is false then).
--
-- All of it is as of the snapshot of the statement that calls this; that is why the catalog is read as tables, and not asked
-- by functions like to_regclass(). Except for one thing: a partition that was dropped is gone for every snapshot. So where
-- the last change is missed it may also be that many others were stored and that one was dropped after the snapshot was
-- taken. Ask again then: when the last change is still the same, it is missing.
CREATE FUNCTION walcast.kept(OUT feed_id text, OUT oldest_lsn pg_lsn, OUT kept_lsn pg_lsn, OUT has_last bool,
                             OUT last_lsn pg_lsn, OUT last_seq int8)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $function$
DECLARE
    stored record;
    missing pg_lsn;
BEGIN
    SELECT f.feed_id, f.oldest_lsn, f.position_lsn, f.last_lsn, f.last_seq INTO stored FROM walcast.feed AS f;
    feed_id := stored.feed_id;
    oldest_lsn := stored.oldest_lsn;
    kept_lsn := stored.oldest_lsn;
    last_lsn := stored.last_lsn;
    last_seq := stored.last_seq;
    -- What is before the oldest position was dropped in good order.
    has_last := stored.last_lsn IS NULL OR stored.last_lsn < stored.oldest_lsn
        OR EXISTS (SELECT FROM walcast.change_history AS h WHERE h.lsn = stored.last_lsn AND h.seq = stored.last_seq);
    IF NOT has_last THEN
        -- An idle position is past the last transaction, and so may be cursors between the two that lack nothing.
        kept_lsn := greatest(kept_lsn, least(stored.position_lsn, stored.last_lsn + 1));
    END IF;
    SELECT max(walcast.partition_lower(r.name)) INTO missing FROM walcast.partition_record AS r
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = c.oid
                      WHERE i.inhparent = 'walcast.change_history'::regclass AND c.relname = r.name);
    IF missing IS NOT NULL THEN
        -- Without one after it, it held the last change, or nothing.
        SELECT min(p.lower_lsn) INTO missing FROM walcast.partition AS p WHERE p.lower_lsn > missing;
        kept_lsn := greatest(kept_lsn, least(stored.position_lsn, missing));
    END IF;
END
$function$;

COMMENT ON FUNCTION walcast.kept() IS 'From where on history is whole, also where rows or partitions were taken from it by hand.';

-- As before, and SQLSTATE WC002 where the last change that was stored is not there any more: once another is the last, nobody
-- could tell.
CREATE OR REPLACE FUNCTION walcast.advance(feed text, writer int8, from_lsn pg_lsn, from_seq int8, to_lsn pg_lsn, to_seq int8,
                                           last_lsn pg_lsn, last_seq int8)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $function$
DECLARE
    before record;
BEGIN
    IF (to_lsn, to_seq) < (from_lsn, from_seq) THEN
        RAISE EXCEPTION 'the position of feed % cannot move back from %:% to %:%', feed, from_lsn, from_seq, to_lsn, to_seq;
    END IF;
    SELECT f.last_lsn, f.last_seq, f.oldest_lsn INTO before FROM walcast.feed AS f
    WHERE f.feed_id = advance.feed AND f.writer = advance.writer AND f.position_lsn = from_lsn AND f.position_seq = from_seq
    FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WC001',
            MESSAGE = format('feed %s is not at %s:%s, or this process has not claimed it', feed, from_lsn, from_seq),
            HINT = 'Another walcast stores this feed.';
    END IF;
    IF before.last_lsn >= before.oldest_lsn AND NOT EXISTS (
        SELECT FROM walcast.change_history AS h WHERE h.lsn = before.last_lsn AND h.seq = before.last_seq
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'WC002',
            MESSAGE = format('the last change of feed %s, %s:%s, is not there any more', feed, before.last_lsn, before.last_seq),
            HINT = 'Rows of change_history were deleted, or a partition was dropped by hand.';
    END IF;
    UPDATE walcast.feed AS f SET position_lsn = to_lsn, position_seq = to_seq,
                                 last_lsn = advance.last_lsn, last_seq = advance.last_seq
    WHERE f.feed_id = advance.feed;
END
$function$;

COMMENT ON FUNCTION walcast.advance(text, int8, pg_lsn, int8, pg_lsn, int8, pg_lsn, int8) IS
    'Moves the stored position, and notes the last change; SQLSTATE WC001 when the position is not where the caller believes it to be, or another process has claimed the feed, WC002 when the last change before is gone.';

-- As before, and keeps the records of partitions that were dropped by hand until everything before them is dropped too.
CREATE OR REPLACE FUNCTION walcast.drop_partitions(feed text, writer int8, below_lsn pg_lsn, xid int8, snapshot text, wait_ms int4)
RETURNS pg_lsn LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    now_stored pg_lsn;
    oldest pg_lsn;
    ends pg_lsn;
    part record;
BEGIN
    -- In the order in which the appender locks, first the record and then the table, so that neither waits for the other.
    -- The last change stays too, however far the position is by now: that it is there proves that nothing was cut off.
    SELECT least(f.position_lsn, f.last_lsn), f.oldest_lsn INTO now_stored, oldest
    FROM walcast.feed AS f WHERE f.feed_id = feed AND f.writer = drop_partitions.writer FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WC001', MESSAGE = format('this process does not store feed %s', feed),
            HINT = 'Another walcast stores this feed.';
    END IF;
    IF below_lsn > now_stored OR NOT EXISTS (SELECT FROM walcast.partition AS p WHERE p.lower_lsn >= below_lsn) THEN
        RAISE EXCEPTION 'the partition below % is still being written', below_lsn;
    END IF;
    PERFORM set_config('lock_timeout', wait_ms || 'ms', true);
    LOCK TABLE walcast.change_history IN ACCESS EXCLUSIVE MODE;
    FOR part IN SELECT p.name, p.upper_lsn FROM walcast.partition AS p WHERE p.upper_lsn <= below_lsn ORDER BY p.lower_lsn LOOP
        -- The cursor after the last transaction that goes: a client that has it lacks nothing.
        EXECUTE format('SELECT coalesce(commit_end, %L::pg_lsn) FROM walcast.%I ORDER BY lsn DESC, seq DESC LIMIT 1',
                       part.upper_lsn, part.name) INTO ends;
        oldest := greatest(oldest, ends);
        EXECUTE format('DROP TABLE walcast.%I', part.name);
        DELETE FROM walcast.partition_record AS r WHERE r.name = part.name;
    END LOOP;
    -- What was dropped by hand below that is passed over: the end of what it held is not known.
    SELECT greatest(oldest, max(p.lower_lsn)) INTO oldest
    FROM (SELECT (SELECT min(p.lower_lsn) FROM walcast.partition AS p WHERE p.lower_lsn > walcast.partition_lower(r.name))
          FROM walcast.partition_record AS r
          WHERE walcast.partition_lower(r.name) < below_lsn
            AND NOT EXISTS (SELECT FROM walcast.partition AS p WHERE p.name = r.name)) AS p(lower_lsn);
    DELETE FROM walcast.partition_record AS r
    WHERE walcast.partition_lower(r.name) < below_lsn AND NOT EXISTS (SELECT FROM walcast.partition AS p WHERE p.name = r.name);
    UPDATE walcast.feed AS f SET oldest_lsn = oldest, dropped_snapshot = snapshot,
                                 dropped_xid = greatest(f.dropped_xid, drop_partitions.xid)
    WHERE f.feed_id = feed;
    IF NOT EXISTS (SELECT FROM walcast.partition AS p LEFT JOIN walcast.partition_record AS r USING (name)
                   WHERE r.names_relations IS NOT TRUE) THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('walcast.relation', 0));
        DELETE FROM walcast.relation AS r
        WHERE NOT EXISTS (SELECT FROM walcast.partition_relation AS used WHERE used.digest = r.digest);
    END IF;
    RETURN oldest;
END
$function$;
