-- walcast, schema version 10: messages of the database to channels.

-- For applications: says something to whoever is in a channel now. Nothing of it is stored, in no table, and nobody who
-- comes later is told.
--
--   SELECT walcast.publish('room:1', '{"typing": true}');
--
-- At once, also when the transaction is rolled back; with transactional => true when it commits, and then only. It writes
-- one record of WAL. Where schema walcast is in another database, call
-- pg_logical_emit_message(false, 'walcast.message', convert_to('{"channel": "room:1", "payload": ...}', 'UTF8')).
CREATE FUNCTION walcast.publish(channel text, payload jsonb, transactional bool DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    bytes_max CONSTANT int4 := 65536;
    content CONSTANT bytea := convert_to(json_build_object('channel', channel, 'payload', payload)::text, 'UTF8');
BEGIN
    IF channel = '' OR channel ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'a channel''s name is not empty and has no control characters';
    ELSIF octet_length(content) > bytes_max THEN
        RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded',
            MESSAGE = format('the message has %s bytes with its channel, and %s are the most', octet_length(content), bytes_max),
            HINT = 'Store it in a table of your own, and say where it is.';
    END IF;
    PERFORM pg_logical_emit_message(transactional, 'walcast.message', content);
END
$function$;

COMMENT ON FUNCTION walcast.publish(text, jsonb, bool) IS
    'Says something to whoever is in a channel now; not stored.';
