-- Publish keys: the request ids under which the relay publishes the messages of a row. They are random,
-- so that no other publisher can use one first, and so that a message that gets the number of another,
-- as after a restore, is not taken for a repeat of it.
ALTER TABLE outbox
    ADD COLUMN publish_key uuid NOT NULL DEFAULT gen_random_uuid();
