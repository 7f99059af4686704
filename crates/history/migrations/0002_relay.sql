-- The outbox also feeds broadcast. Rows are relayed by shard; rows of one conversation in order of
-- id.
ALTER TABLE outbox
    ADD COLUMN shard       smallint NOT NULL GENERATED ALWAYS AS ((conversation_no % 16)::smallint) STORED,
    ADD COLUMN published   boolean NOT NULL DEFAULT false, -- true: only the tail update is pending
    ADD COLUMN attempts    integer NOT NULL DEFAULT 0,     -- refusals by broadcast
    ADD COLUMN error       text,                           -- reason of the last refusal
    ADD COLUMN park_time   timestamptz,                    -- time of parking; NULL: not parked
    ADD COLUMN create_time timestamptz NOT NULL DEFAULT now();

CREATE INDEX outbox_pending ON outbox (shard, id) WHERE park_time IS NULL;
CREATE INDEX outbox_parked ON outbox (id) WHERE park_time IS NOT NULL;

-- Lease of a shard: its worker and expiry. All times are those of Postgres.
CREATE TABLE relay_shard (
    shard       smallint PRIMARY KEY,
    worker      text COLLATE "C",
    lease_until timestamptz NOT NULL DEFAULT '-infinity'
);

INSERT INTO relay_shard (shard)
SELECT generate_series(0, 15);

-- Live workers, to compute the fair share of each.
CREATE TABLE relay_worker (
    worker      text PRIMARY KEY COLLATE "C",
    alive_until timestamptz NOT NULL
);
