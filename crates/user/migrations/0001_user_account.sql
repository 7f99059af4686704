-- Profiles. A deleted user stays as a tombstone: id, version, times and request_id, nothing else.
CREATE TABLE user_account (
    id           text PRIMARY KEY COLLATE "C",
    handle       text NOT NULL,
    handle_key   text COLLATE "C" UNIQUE, -- the handle in lower case; NULL: has none
    display_name text NOT NULL,
    age          smallint,
    avatar_uri   text NOT NULL,
    bio          text NOT NULL,
    attributes   jsonb NOT NULL,
    version      bigint NOT NULL,
    request_id   text COLLATE "C" UNIQUE, -- names the creation; NULL: was not named
    fingerprint  bytea,                   -- SHA-256 of what was asked to be created; NULL: deleted
    create_time  timestamptz NOT NULL DEFAULT now(),
    update_time  timestamptz NOT NULL DEFAULT now(),
    delete_time  timestamptz
);

-- Users whose cached profile may be older than their row; written with the row, deleted when the cache has it.
CREATE TABLE cache_outbox (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL COLLATE "C"
);
