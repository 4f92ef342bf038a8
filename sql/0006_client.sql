-- walcast, schema version 6: what clients have acknowledged.

CREATE TABLE walcast.client (
    user_name    text NOT NULL,
    client_id    text NOT NULL,
    subscription text NOT NULL,
    feed_id      text NOT NULL,
    lsn          pg_lsn NOT NULL,
    seq          int8 NOT NULL,
    tables       text NOT NULL,
    seen_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    came_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_name, client_id, subscription)
);

COMMENT ON TABLE walcast.client IS 'Up to where clients have stored what they were sent, as they said.';
COMMENT ON COLUMN walcast.client.user_name IS 'The subject of the token; empty without authentication.';
COMMENT ON COLUMN walcast.client.subscription IS 'The id that the client gave its subscription.';
COMMENT ON COLUMN walcast.client.feed_id IS 'The feed that lsn and seq are a cursor of.';
COMMENT ON COLUMN walcast.client.lsn IS 'With seq, the cursor: everything before it is stored by the client. 0/0: nothing is, since an initial sync began.';
COMMENT ON COLUMN walcast.client.tables IS 'What it subscribed to, for people.';
COMMENT ON COLUMN walcast.client.seen_at IS 'When it was last known to be there, by this server''s clock; an hour or so late while it says nothing.';
COMMENT ON COLUMN walcast.client.came_at IS 'Since when it was never away for client_expiry.';

CREATE INDEX client_seen ON walcast.client (seen_at);

-- One row: a statement whose connection was lost may still run, after what was stored instead of it.
CREATE TABLE walcast.acknowledged_batch (
    is_one bool PRIMARY KEY DEFAULT true CHECK (is_one),
    writer int8 NOT NULL,
    batch  int8 NOT NULL
) WITH (fillfactor = 10); -- updated by every commit of acknowledged cursors: leave its page room for HOT updates

INSERT INTO walcast.acknowledged_batch (writer, batch) VALUES (0, 0);

COMMENT ON TABLE walcast.acknowledged_batch IS 'What was stored last of what clients acknowledge; an earlier batch is refused from then on.';
COMMENT ON COLUMN walcast.acknowledged_batch.writer IS 'The process that stored it, as in walcast.feed.';
COMMENT ON COLUMN walcast.acknowledged_batch.batch IS 'Counts the batches of that process.';

-- Stores what was acknowledged, for the process that stores the feed: one that was replaced must not take a client back,
-- and neither must a batch that was sent before another one that is stored.
-- A client that is not known becomes so only where adds says so. Returns the places in the arrays, from 1, of those that are refused, because user_max or all_max is reached.
CREATE FUNCTION walcast.acknowledge(feed text, writer int8, batch int8, user_max int8, all_max int8, away_seconds float8, user_names text[], client_ids text[],
                                    subscriptions text[], lsns pg_lsn[], seqs int8[], labels text[], adds bool[])
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
            came_at = CASE WHEN c.seen_at < away_since THEN clock_timestamp() ELSE c.came_at END
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
        INSERT INTO walcast.client (user_name, client_id, subscription, feed_id, lsn, seq, tables)
        VALUES (user_names[i], client_ids[i], subscriptions[i], acknowledge.feed, lsns[i], seqs[i], labels[i]);
        known := known + 1;
    END LOOP;
END
$function$;

COMMENT ON FUNCTION walcast.acknowledge(text, int8, int8, int8, int8, float8, text[], text[], text[], pg_lsn[], int8[], text[], bool[]) IS
    'Stores what clients have acknowledged; SQLSTATE WC001 for all but the process that stores the feed, WC003 when a later batch is stored.';
