-- walcast, schema version 7: nobody who reads a partition stops it from being stored.
--
-- A partition that is old is cut at the next transaction, by a constraint that is checked at leisure and the new bound. When
-- somebody began to read in between, the bound cannot be had, and while the constraint was there nothing could be stored
-- behind the cut; dropping it takes the same lock. Now it can be given up without one.

ALTER TABLE walcast.partition_record ADD COLUMN cut_lsn pg_lsn;

COMMENT ON COLUMN walcast.partition_record.cut_lsn IS
    'Where a cut of the partition was begun that is not finished: nothing at or after it may be stored there. Null: everything may.';

-- Where the constraint of a cut ends; null, and so no constraint, when there is no cut. Immutable it is only for as long
-- as one cut takes, which is as long as anybody needs: Postgres puts the value into the constraint whenever that is used,
-- and so takes it for the proof of the new bound. A cut that cannot be finished, because somebody reads the partition, is
-- then given up by forgetting its end. To drop the constraint instead, the writer would wait for the reader. As its owner:
-- whoever may read change_history and nothing else asks for it, too, where the planner looks at constraints.
CREATE FUNCTION walcast.cut_end(partition text) RETURNS pg_lsn
LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    RETURN (SELECT r.cut_lsn FROM walcast.partition_record AS r WHERE r.name = partition);
END
$function$;

-- Also where that is not the default.
GRANT EXECUTE ON FUNCTION walcast.cut_end(text) TO PUBLIC;

COMMENT ON FUNCTION walcast.cut_end(text) IS 'Where the cut of a partition that is not finished ends it; null when there is none.';

CREATE OR REPLACE FUNCTION walcast.begin_cut(feed text, writer int8, from_lsn pg_lsn, partition text, at_lsn pg_lsn) RETURNS bool
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $function$
DECLARE
    is_used bool;
BEGIN
    PERFORM FROM walcast.feed AS f
    WHERE f.feed_id = feed AND f.writer = begin_cut.writer AND f.position_lsn = from_lsn AND f.position_seq = 0 FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WC001',
            MESSAGE = format('feed %s is not at %s, or this process has not claimed it', feed, from_lsn),
            HINT = 'Another walcast stores this feed.';
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM walcast.%I)', partition) INTO is_used;
    IF NOT is_used THEN
        UPDATE walcast.partition_record SET made_at = clock_timestamp() WHERE name = partition;
        RETURN false;
    END IF;
    UPDATE walcast.partition_record SET cut_lsn = at_lsn WHERE name = partition;
    -- One that was given up is still there, and was checked for another end.
    EXECUTE format('ALTER TABLE walcast.%I DROP CONSTRAINT IF EXISTS walcast_cut, '
                   'ADD CONSTRAINT walcast_cut CHECK (lsn IS NOT NULL AND lsn >= %L::pg_lsn AND lsn < walcast.cut_end(%L)) NOT VALID',
                   partition, (SELECT p.lower_lsn FROM walcast.partition AS p WHERE p.name = partition), partition);
    RETURN true;
END
$function$;

CREATE OR REPLACE FUNCTION walcast.finish_cut(partition text, at_lsn pg_lsn) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    lower pg_lsn := (SELECT p.lower_lsn FROM walcast.partition AS p WHERE p.name = partition);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('walcast.ensure_partition', 0));
    IF NOT EXISTS (SELECT FROM walcast.partition_record AS r WHERE r.name = partition AND r.cut_lsn = at_lsn) THEN
        RAISE EXCEPTION 'the cut of % at % was given up', partition, at_lsn
            USING HINT = 'Another walcast stores this feed.';
    END IF;
    EXECUTE format('ALTER TABLE walcast.change_history DETACH PARTITION walcast.%I', partition);
    EXECUTE format('ALTER TABLE walcast.change_history ATTACH PARTITION walcast.%I FOR VALUES FROM (%L) TO (%L)',
                   partition, lower, at_lsn);
    EXECUTE format('ALTER TABLE walcast.%I DROP CONSTRAINT walcast_cut', partition);
    UPDATE walcast.partition_record SET cut_lsn = NULL WHERE name = partition;
END
$function$;

-- As before, and needs no lock on a partition that is there.
CREATE OR REPLACE FUNCTION walcast.ensure_partition(at_lsn pg_lsn, width int8, OUT name text, OUT lower_lsn pg_lsn,
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
        -- A cut that was interrupted is given up.
        UPDATE walcast.partition_record AS r SET cut_lsn = NULL WHERE r.name = ensure_partition.name AND r.cut_lsn IS NOT NULL;
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
