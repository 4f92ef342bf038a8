-- walcast, schema version 3: retention.
--
-- Old changes go by dropping whole partitions of change_history, oldest first; no row is ever deleted. All changes of
-- a transaction have its lsn, and partitions are ranges of lsn, so no transaction is ever split.
--
-- A partition covers a range of WAL, of which an idle system makes none: so one that was made long ago is also cut, at
-- the next transaction, and the rest of its range is given to a new one.

ALTER TABLE walcast.feed
    ADD COLUMN dropped_xid int8,
    ADD COLUMN dropped_snapshot text;

COMMENT ON COLUMN walcast.feed.dropped_xid IS 'The largest transaction id among the changes that retention has dropped.';
COMMENT ON COLUMN walcast.feed.dropped_snapshot IS
    'A snapshot of the source (pg_current_snapshot) that sees every transaction that retention has dropped.';

CREATE TABLE walcast.partition_record (
    name            text PRIMARY KEY,
    made_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    names_relations bool NOT NULL
);

COMMENT ON TABLE walcast.partition_record IS 'What is known of the partitions of change_history beside their bounds.';
COMMENT ON COLUMN walcast.partition_record.made_at IS
    'By this server''s clock. Nothing was stored in a partition after the next one was made: that is its age.';
COMMENT ON COLUMN walcast.partition_record.names_relations IS
    'Whether partition_relation has all of its definitions; false for partitions that are older than that table.';

CREATE TABLE walcast.partition_relation (
    partition text NOT NULL REFERENCES walcast.partition_record ON DELETE CASCADE,
    digest    int8 NOT NULL,
    PRIMARY KEY (partition, digest)
);

COMMENT ON TABLE walcast.partition_relation IS 'Which definitions the changes of a partition refer to.';

INSERT INTO walcast.partition_record (name, names_relations) SELECT name, false FROM walcast.partition;

DROP FUNCTION walcast.ensure_partition(pg_lsn, int8);

-- As before, and says when the partition was made. A cut that was interrupted is forgotten.
CREATE FUNCTION walcast.ensure_partition(at_lsn pg_lsn, width int8, OUT name text, OUT lower_lsn pg_lsn,
                                         OUT upper_lsn pg_lsn, OUT made_at timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    zero CONSTANT pg_lsn := '0/0';
    last CONSTANT numeric := 'FFFFFFFF/FFFFFFFF'::pg_lsn - '0/0'::pg_lsn;
    floor_bytes numeric := floor((at_lsn - zero) / width) * width;
    below pg_lsn;
    above pg_lsn;
    is_new bool := false;
    is_used bool;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('walcast.ensure_partition', 0));
    SELECT p.name, p.lower_lsn, p.upper_lsn INTO name, lower_lsn, upper_lsn
    FROM walcast.partition AS p WHERE p.lower_lsn <= at_lsn AND at_lsn < p.upper_lsn;
    IF FOUND THEN
        IF EXISTS (SELECT FROM pg_constraint AS c
                   WHERE c.conrelid = format('walcast.%I', name)::regclass AND c.conname = 'walcast_cut') THEN
            EXECUTE format('ALTER TABLE walcast.%I DROP CONSTRAINT walcast_cut', name);
        END IF;
        -- One that is empty was made ahead, or before the feed went back; those after it will be.
        EXECUTE format('SELECT EXISTS (SELECT FROM walcast.%I)', name) INTO is_used;
        UPDATE walcast.partition_record AS r SET made_at = clock_timestamp() FROM walcast.partition AS p
        WHERE p.name = r.name AND (p.lower_lsn > at_lsn OR (p.name = ensure_partition.name AND NOT is_used));
    ELSE
        is_new := true;
        SELECT max(p.upper_lsn) FILTER (WHERE p.upper_lsn <= at_lsn), min(p.lower_lsn) FILTER (WHERE p.lower_lsn > at_lsn)
        INTO below, above FROM walcast.partition AS p;
        lower_lsn := greatest(zero + floor_bytes, below);
        upper_lsn := least(zero + least(floor_bytes + width, last), above);
        name := lower(format('change_history_%s%s', lpad(split_part(lower_lsn::text, '/', 1), 8, '0'),
                             lpad(split_part(lower_lsn::text, '/', 2), 8, '0')));
        EXECUTE format('CREATE TABLE walcast.%I (LIKE walcast.change_history INCLUDING DEFAULTS INCLUDING STORAGE)', name);
        EXECUTE format('ALTER TABLE walcast.change_history ATTACH PARTITION walcast.%I FOR VALUES FROM (%L) TO (%L)',
                       name, lower_lsn, upper_lsn);
        -- The record of a partition of the same name that was dropped by hand.
        DELETE FROM walcast.partition_record AS r WHERE r.name = ensure_partition.name;
    END IF;
    INSERT INTO walcast.partition_record AS r (name, names_relations) VALUES (ensure_partition.name, is_new)
    ON CONFLICT DO NOTHING;
    SELECT r.made_at INTO made_at FROM walcast.partition_record AS r WHERE r.name = ensure_partition.name;
END
$function$;

COMMENT ON FUNCTION walcast.ensure_partition(pg_lsn, int8) IS 'The partition of change_history that holds a position, made if it is not there.';

-- Cutting a partition at a position before which all its changes are, in three transactions, of which only the second
-- takes long and locks out neither readers nor writers: a constraint that the new upper bound implies, its check
-- against the rows, and the new bounds. Between them nothing may be stored at or after the position.
--
-- The first: false, and the partition counts as made now, when there is nothing in it.
CREATE FUNCTION walcast.begin_cut(feed text, from_lsn pg_lsn, partition text, at_lsn pg_lsn) RETURNS bool
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    is_used bool;
BEGIN
    PERFORM FROM walcast.feed AS f WHERE f.feed_id = feed AND f.position_lsn = from_lsn AND f.position_seq = 0 FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WC001', MESSAGE = format('the position of feed %s is not %s', feed, from_lsn),
            HINT = 'Another walcast stores this feed.';
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM walcast.%I)', partition) INTO is_used;
    IF NOT is_used THEN
        UPDATE walcast.partition_record SET made_at = clock_timestamp() WHERE name = partition;
        RETURN false;
    END IF;
    EXECUTE format('ALTER TABLE walcast.%I ADD CONSTRAINT walcast_cut CHECK (lsn IS NOT NULL AND lsn >= %L::pg_lsn AND lsn < %L::pg_lsn) NOT VALID',
                   partition, (SELECT p.lower_lsn FROM walcast.partition AS p WHERE p.name = partition), at_lsn);
    RETURN true;
END
$function$;

COMMENT ON FUNCTION walcast.begin_cut(text, pg_lsn, text, pg_lsn) IS 'Begins to cut a partition at a position that is after all its changes.';

-- The third.
CREATE FUNCTION walcast.finish_cut(partition text, at_lsn pg_lsn) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    lower pg_lsn := (SELECT p.lower_lsn FROM walcast.partition AS p WHERE p.name = partition);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('walcast.ensure_partition', 0));
    EXECUTE format('ALTER TABLE walcast.change_history DETACH PARTITION walcast.%I', partition);
    EXECUTE format('ALTER TABLE walcast.change_history ATTACH PARTITION walcast.%I FOR VALUES FROM (%L) TO (%L)',
                   partition, lower, at_lsn);
    EXECUTE format('ALTER TABLE walcast.%I DROP CONSTRAINT walcast_cut', partition);
END
$function$;

COMMENT ON FUNCTION walcast.finish_cut(text, pg_lsn) IS 'Gives a partition its new upper bound.';

-- Stores a definition, and that changes of this partition refer to it: before they are stored.
CREATE FUNCTION walcast.store_relation(partition text, digest int8, oid oid, schema_name text, table_name text,
                                       definition text, first_lsn pg_lsn) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
#variable_conflict use_variable
BEGIN
    -- Definitions that nothing refers to are deleted under the same lock.
    PERFORM pg_advisory_xact_lock(hashtextextended('walcast.relation', 0));
    INSERT INTO walcast.relation AS r VALUES (digest, oid, schema_name, table_name, definition, first_lsn)
    ON CONFLICT DO NOTHING;
    INSERT INTO walcast.partition_relation AS r VALUES (partition, digest) ON CONFLICT DO NOTHING;
END
$function$;

COMMENT ON FUNCTION walcast.store_relation(text, int8, oid, text, text, text, pg_lsn) IS 'Stores a table''s definition for the changes of a partition.';

-- The largest transaction id of a partition that is complete, 0 when it is empty; null while the snapshot does not see
-- all of its transactions: an initial sync that began now would still need them. Both are looked up in the BRIN
-- index: transaction ids grow with positions, nearly.
CREATE FUNCTION walcast.dropped_xid(partition text, snapshot pg_snapshot) RETURNS int8
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $function$
DECLARE
    last int8;
    largest int8;
    invisible text := format('xid >= %s', pg_snapshot_xmax(snapshot));
    is_needed bool;
BEGIN
    EXECUTE format('SELECT xid FROM walcast.%I ORDER BY lsn DESC, seq DESC LIMIT 1', partition) INTO last;
    IF last IS NULL THEN
        RETURN 0;
    END IF;
    EXECUTE format('SELECT max(xid) FROM (SELECT xid FROM walcast.%I WHERE xid > %s OFFSET 0) AS later', partition, last)
    INTO largest;
    largest := greatest(largest, last);
    IF largest::text::xid8 < pg_snapshot_xmin(snapshot) THEN
        RETURN largest;
    END IF;
    SELECT invisible || coalesce(string_agg(format(' OR xid = %s', open.xid), ''), '')
    INTO invisible FROM pg_snapshot_xip(snapshot) AS open(xid);
    EXECUTE format('SELECT EXISTS (SELECT FROM walcast.%I WHERE %s)', partition, invisible) INTO is_needed;
    RETURN CASE WHEN NOT is_needed THEN largest END;
END
$function$;

COMMENT ON FUNCTION walcast.dropped_xid(text, pg_snapshot) IS
    'The largest transaction id of a partition; null while a snapshot does not see all of its transactions.';

-- Drops the partitions below a bound and moves the oldest position, in one transaction, for the process that stores the
-- feed. The newest partition stays, and so does everything that may still be stored into. lock_timeout bounds how long
-- readers and the writer queue behind this; its SQLSTATE, 55P03, means: later.
CREATE FUNCTION walcast.drop_partitions(feed text, writer int8, below_lsn pg_lsn, xid int8, snapshot text, wait_ms int4)
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
    END LOOP;
    UPDATE walcast.feed AS f SET oldest_lsn = oldest, dropped_snapshot = snapshot,
                                 dropped_xid = greatest(f.dropped_xid, drop_partitions.xid)
    WHERE f.feed_id = feed;
    DELETE FROM walcast.partition_record AS r WHERE NOT EXISTS (SELECT FROM walcast.partition AS p WHERE p.name = r.name);
    IF NOT EXISTS (SELECT FROM walcast.partition AS p LEFT JOIN walcast.partition_record AS r USING (name)
                   WHERE r.names_relations IS NOT TRUE) THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('walcast.relation', 0));
        DELETE FROM walcast.relation AS r
        WHERE NOT EXISTS (SELECT FROM walcast.partition_relation AS used WHERE used.digest = r.digest);
    END IF;
    RETURN oldest;
END
$function$;

COMMENT ON FUNCTION walcast.drop_partitions(text, int8, pg_lsn, int8, text, int4) IS
    'Drops partitions of change_history and moves the oldest position; SQLSTATE WC001 for all but the process that stores the feed.';
