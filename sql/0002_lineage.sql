-- walcast, schema version 2: which server the feed was read from last, which feeds it continues, and what the source lost.

ALTER TABLE walcast.feed
    ADD COLUMN timeline_began pg_lsn,
    ADD COLUMN server_run int8,
    ADD COLUMN last_lsn pg_lsn,
    ADD COLUMN last_seq int8;

COMMENT ON COLUMN walcast.feed.timeline_began IS 'Where that timeline left the one before it.';
COMMENT ON COLUMN walcast.feed.server_run IS 'When the source server that was last read from had been started: microseconds since 1970, by its own clock.';
COMMENT ON COLUMN walcast.feed.last_lsn IS 'With last_seq: the last change that was stored. When it is not there any more, history was cut by hand.';

CREATE TABLE walcast.lineage (
    feed_id  text PRIMARY KEY,
    valid_to pg_lsn NOT NULL,
    timeline int8 NOT NULL,
    reason   text NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE walcast.lineage IS 'Feeds that the one in walcast.feed continues. A cursor of one of them is as good as one of this feed, up to valid_to.';
COMMENT ON COLUMN walcast.lineage.valid_to IS 'What was delivered after it may not have happened at the source as it is now.';
COMMENT ON COLUMN walcast.lineage.timeline IS 'The timeline that the feed was on.';
COMMENT ON COLUMN walcast.lineage.reason IS 'Why it ended: promoted, went_back, differs or restarted.';

CREATE TABLE walcast.lost_change (
    feed_id text NOT NULL,
    lost_at timestamptz NOT NULL DEFAULT now(),
    LIKE walcast.change_history
);

COMMENT ON TABLE walcast.lost_change IS 'Changes that were stored and that the source then lost, by a failover or a restore. For people: walcast never reads it.';

-- As walcast.advance with six arguments, and notes the last change that is stored with it.
CREATE FUNCTION walcast.advance(feed text, writer int8, from_lsn pg_lsn, from_seq int8, to_lsn pg_lsn, to_seq int8,
                                last_lsn pg_lsn, last_seq int8)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    IF (to_lsn, to_seq) < (from_lsn, from_seq) THEN
        RAISE EXCEPTION 'the position of feed % cannot move back from %:% to %:%', feed, from_lsn, from_seq, to_lsn, to_seq;
    END IF;
    UPDATE walcast.feed AS f SET position_lsn = to_lsn, position_seq = to_seq, writer = advance.writer,
                                 last_lsn = advance.last_lsn, last_seq = advance.last_seq
    WHERE f.feed_id = advance.feed AND f.position_lsn = from_lsn AND f.position_seq = from_seq;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WC001',
            MESSAGE = format('the position of feed %s is not %s:%s', feed, from_lsn, from_seq),
            HINT = 'Another walcast stores this feed.';
    END IF;
END
$function$;

COMMENT ON FUNCTION walcast.advance(text, int8, pg_lsn, int8, pg_lsn, int8, pg_lsn, int8) IS
    'Moves the stored position, and notes the last change; SQLSTATE WC001 when the position is not where the caller believes it to be.';
