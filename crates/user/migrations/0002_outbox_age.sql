-- How far the relay is behind.
ALTER TABLE cache_outbox
    ADD COLUMN create_time timestamptz NOT NULL DEFAULT now();
