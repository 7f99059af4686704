-- Profiles. A deleted user remains as a tombstone with id, version, times and request_id only.
CREATE TABLE user_account (
    id           text PRIMARY KEY COLLATE "C",
    handle       text NOT NULL,
    handle_key   text COLLATE "C" UNIQUE, -- the case-folded handle; NULL: none
    display_name text NOT NULL,
    age          smallint,
    avatar_uri   text NOT NULL,
    bio          text NOT NULL,
    attributes   jsonb NOT NULL,
    version      bigint NOT NULL,
    request_id   text COLLATE "C" UNIQUE, -- idempotency key of the creation; NULL: none
    fingerprint  bytea,                   -- SHA-256 of the creation request; NULL: deleted
    create_time  timestamptz NOT NULL DEFAULT now(),
    update_time  timestamptz NOT NULL DEFAULT now(),
    delete_time  timestamptz
);

-- Users whose cached profile may be older than their row. Inserted in the statement that changes
-- the row, deleted once the cache is up to date.
CREATE TABLE cache_outbox (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL COLLATE "C"
);
