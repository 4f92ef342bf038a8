-- walcast, schema version 11: under which rights clients have acknowledged.

ALTER TABLE walcast.client ADD COLUMN rights text;

COMMENT ON COLUMN walcast.client.rights IS 'A name for what policies gave the client when it acknowledged; NULL when none were in force, or before version 11.';

DROP FUNCTION walcast.acknowledge(text, int8, int8, int8, int8, float8, text[], text[], text[], pg_lsn[], int8[], text[], bool[]);

-- Stores what was acknowledged, for the process that stores the feed: one that was replaced must not take a client back,
-- and neither must a batch that was sent before another one that is stored.
-- A client that is not known becomes so only where adds says so. Where it does not, the client has begun at a cursor of its
-- own, and acknowledged nothing under the rights that it has now: those of before stay, unless granted has others.
-- Returns the places in the arrays, from 1, of those that are refused, because user_max or all_max is reached.
CREATE FUNCTION walcast.acknowledge(feed text, writer int8, batch int8, user_max int8, all_max int8, away_seconds float8, user_names text[], client_ids text[],
                                    subscriptions text[], lsns pg_lsn[], seqs int8[], labels text[], adds bool[], granted text[])
RETURNS SETOF int4
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    known int8;
    away_since timestamptz := clock_timestamp() - away_seconds * interval '1 second';
BEGIN
    -- Not held up by a standby that is away, and durable even where the database says off.
    PERFORM set_config('synchronous_commit', 'local', true);
    -- One after the other, also of two processes; so who has the feed is looked up after that.
    UPDATE walcast.acknowledged_batch AS b SET writer = acknowledge.writer, batch = acknowledge.batch
    WHERE b.writer <> acknowledge.writer OR b.batch < acknowledge.batch;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WC003', MESSAGE = format('batch %s comes after a later one', acknowledge.batch);
    END IF;
    PERFORM FROM walcast.feed AS f WHERE f.feed_id = acknowledge.feed AND f.writer = acknowledge.writer;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WC001', MESSAGE = format('this process does not store feed %s', feed),
            HINT = 'Another walcast stores this feed.';
    END IF;
    FOR i IN 1 .. coalesce(array_length(client_ids, 1), 0) LOOP
        UPDATE walcast.client AS c
        SET feed_id = acknowledge.feed, lsn = lsns[i], seq = seqs[i], tables = labels[i], seen_at = clock_timestamp(),
            came_at = CASE WHEN c.seen_at < away_since THEN clock_timestamp() ELSE c.came_at END,
            rights = CASE WHEN adds[i] OR granted[i] IS NOT NULL THEN granted[i] ELSE c.rights END
        WHERE c.user_name = user_names[i] AND c.client_id = client_ids[i] AND c.subscription = subscriptions[i];
        CONTINUE WHEN FOUND OR NOT adds[i];
        -- Of all of them once, since nobody else adds any meanwhile.
        known := coalesce(known, (SELECT count(*) FROM walcast.client));
        -- Without authentication all are of one user.
        IF (user_names[i] <> '' AND (SELECT count(*) FROM walcast.client AS c WHERE c.user_name = user_names[i]) >= user_max)
           OR known >= all_max THEN
            RETURN NEXT i;
            CONTINUE;
        END IF;
        INSERT INTO walcast.client (user_name, client_id, subscription, feed_id, lsn, seq, tables, rights)
        VALUES (user_names[i], client_ids[i], subscriptions[i], acknowledge.feed, lsns[i], seqs[i], labels[i], granted[i]);
        known := known + 1;
    END LOOP;
END
$function$;

COMMENT ON FUNCTION walcast.acknowledge(text, int8, int8, int8, int8, float8, text[], text[], text[], pg_lsn[], int8[], text[], bool[], text[]) IS
    'Stores what clients have acknowledged; SQLSTATE WC001 for all but the process that stores the feed, WC003 when a later batch is stored.';
