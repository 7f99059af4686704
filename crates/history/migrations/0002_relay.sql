-- The outbox feeds broadcast, too. Its rows are relayed by shard, those of one conversation in order of their ids.
ALTER TABLE outbox
    ADD COLUMN shard       smallint NOT NULL GENERATED ALWAYS AS ((conversation_no % 16)::smallint) STORED,
    ADD COLUMN published   boolean NOT NULL DEFAULT false, -- only the tail has yet to hear of it
    ADD COLUMN attempts    integer NOT NULL DEFAULT 0,     -- how often broadcast refused it
    ADD COLUMN error       text,                           -- why, the last time
    ADD COLUMN park_time   timestamptz,                    -- when it was given up; NULL: it was not
    ADD COLUMN create_time timestamptz NOT NULL DEFAULT now();

CREATE INDEX outbox_pending ON outbox (shard, id) WHERE park_time IS NULL;
CREATE INDEX outbox_parked ON outbox (id) WHERE park_time IS NOT NULL;

-- Who relays a shard, until when unless it says so again. All times are those of Postgres.
CREATE TABLE relay_shard (
    shard       smallint PRIMARY KEY,
    worker      text COLLATE "C",
    lease_until timestamptz NOT NULL DEFAULT '-infinity'
);

INSERT INTO relay_shard (shard)
SELECT generate_series(0, 15);

-- Who relays at all, so that each takes a fair share.
CREATE TABLE relay_worker (
    worker      text PRIMARY KEY COLLATE "C",
    alive_until timestamptz NOT NULL
);
