-- walcast, schema version 4: one process stores the feed, and says so before it does.
--
-- A process that has the slot claims the feed: it writes its number into walcast.feed.writer, if record and position
-- are as it had read them. From then on nothing that another process has still on its way can be stored, so whoever
-- has claimed the feed is not surprised by a commit of its predecessor.

COMMENT ON COLUMN walcast.feed.writer IS
    'Which process has claimed the feed: a random number of its own. The position moves for no other.';

CREATE OR REPLACE FUNCTION walcast.advance(feed text, writer int8, from_lsn pg_lsn, from_seq int8, to_lsn pg_lsn, to_seq int8)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    IF (to_lsn, to_seq) < (from_lsn, from_seq) THEN
        RAISE EXCEPTION 'the position of feed % cannot move back from %:% to %:%', feed, from_lsn, from_seq, to_lsn, to_seq;
    END IF;
    UPDATE walcast.feed AS f SET position_lsn = to_lsn, position_seq = to_seq
    WHERE f.feed_id = advance.feed AND f.writer = advance.writer AND f.position_lsn = from_lsn AND f.position_seq = from_seq;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WC001',
            MESSAGE = format('feed %s is not at %s:%s, or this process has not claimed it', feed, from_lsn, from_seq),
            HINT = 'Another walcast stores this feed.';
    END IF;
END
$function$;

COMMENT ON FUNCTION walcast.advance(text, int8, pg_lsn, int8, pg_lsn, int8) IS
    'Moves the stored position; SQLSTATE WC001 when it is not where the caller believes it to be, or another process has claimed the feed.';

CREATE OR REPLACE FUNCTION walcast.advance(feed text, writer int8, from_lsn pg_lsn, from_seq int8, to_lsn pg_lsn, to_seq int8,
                                           last_lsn pg_lsn, last_seq int8)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    IF (to_lsn, to_seq) < (from_lsn, from_seq) THEN
        RAISE EXCEPTION 'the position of feed % cannot move back from %:% to %:%', feed, from_lsn, from_seq, to_lsn, to_seq;
    END IF;
    UPDATE walcast.feed AS f SET position_lsn = to_lsn, position_seq = to_seq,
                                 last_lsn = advance.last_lsn, last_seq = advance.last_seq
    WHERE f.feed_id = advance.feed AND f.writer = advance.writer AND f.position_lsn = from_lsn AND f.position_seq = from_seq;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WC001',
            MESSAGE = format('feed %s is not at %s:%s, or this process has not claimed it', feed, from_lsn, from_seq),
            HINT = 'Another walcast stores this feed.';
    END IF;
END
$function$;

COMMENT ON FUNCTION walcast.advance(text, int8, pg_lsn, int8, pg_lsn, int8, pg_lsn, int8) IS
    'Moves the stored position, and notes the last change; SQLSTATE WC001 when the position is not where the caller believes it to be, or another process has claimed the feed.';

DROP FUNCTION walcast.begin_cut(text, pg_lsn, text, pg_lsn);

-- As before, for the process that has claimed the feed: one that was replaced must not cut where its successor stores.
CREATE FUNCTION walcast.begin_cut(feed text, writer int8, from_lsn pg_lsn, partition text, at_lsn pg_lsn) RETURNS bool
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
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
    EXECUTE format('ALTER TABLE walcast.%I ADD CONSTRAINT walcast_cut CHECK (lsn IS NOT NULL AND lsn >= %L::pg_lsn AND lsn < %L::pg_lsn) NOT VALID',
                   partition, (SELECT p.lower_lsn FROM walcast.partition AS p WHERE p.name = partition), at_lsn);
    RETURN true;
END
$function$;

COMMENT ON FUNCTION walcast.begin_cut(text, int8, pg_lsn, text, pg_lsn) IS 'Begins to cut a partition at a position that is after all its changes.';
