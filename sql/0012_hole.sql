-- walcast, schema version 12: changes that are missing for good, which only who reads the slot finds out.
--
-- What servers show is not kept here: it is seen by whoever looks, for as long as it is so.

ALTER TABLE walcast.feed
    ADD COLUMN hole_at timestamptz,
    ADD COLUMN hole_lsn pg_lsn,
    ADD COLUMN hole_publication text,
    ADD COLUMN hole_reason text;

COMMENT ON COLUMN walcast.feed.hole_at IS 'When it was recorded that changes are missing from the feed for good; NULL when none are known to be.';
COMMENT ON COLUMN walcast.feed.hole_lsn IS 'Up to here the feed is complete.';
COMMENT ON COLUMN walcast.feed.hole_publication IS 'The publication that was missing when they were written: for who does not read it nothing is missing.';
COMMENT ON COLUMN walcast.feed.hole_reason IS 'Why they are missing, for people.';
