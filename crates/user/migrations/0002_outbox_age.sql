-- Shows the lag of the relay.
ALTER TABLE cache_outbox
    ADD COLUMN create_time timestamptz NOT NULL DEFAULT now();
