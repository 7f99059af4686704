-- Conversations. `last_seq` numbers messages without gaps: an append locks the row until its
-- commit.
CREATE TABLE conversation (
    no          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          text NOT NULL UNIQUE COLLATE "C",
    kind        smallint NOT NULL,
    title       text NOT NULL,
    attributes  jsonb NOT NULL,
    last_seq    bigint NOT NULL DEFAULT 0,
    last_time   timestamptz, -- create_time of the newest message
    version     bigint NOT NULL DEFAULT 1,
    request_id  text COLLATE "C" UNIQUE, -- idempotency key of the creation; NULL: none
    fingerprint bytea NOT NULL,          -- SHA-256 of the creation request
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now()
);

-- Messages. Every unique key contains conversation_no, the partition key (a possible shard key).
CREATE TABLE message (
    conversation_no   bigint NOT NULL,
    seq               bigint NOT NULL,
    id                uuid NOT NULL,
    sender_id         text NOT NULL COLLATE "C",
    client_message_id text NOT NULL COLLATE "C",
    fingerprint       bytea NOT NULL, -- SHA-256 of the append request
    body_text         text,           -- a text body
    body_data         bytea,          -- or a binary body, with content_type
    content_type      text,
    reply_to_seq      bigint NOT NULL,
    attributes        jsonb NOT NULL,
    state             smallint NOT NULL DEFAULT 1,
    edit_version      integer NOT NULL DEFAULT 1,
    change_seq        bigint NOT NULL DEFAULT 0,
    create_time       timestamptz NOT NULL,
    PRIMARY KEY (conversation_no, seq),
    UNIQUE (conversation_no, sender_id, client_message_id)
) PARTITION BY HASH (conversation_no);

DO $$
BEGIN
    FOR part IN 0..15 LOOP
        EXECUTE format(
            'CREATE TABLE message_%s PARTITION OF message FOR VALUES WITH (MODULUS 16, REMAINDER %s)',
            to_char(part, 'FM00'), part
        );
    END LOOP;
END
$$;

-- The messages of one sender, newest first.
CREATE INDEX message_by_sender ON message (sender_id, create_time DESC, conversation_no DESC, seq DESC);

-- Ranges of messages that the tail in Redis may lack. Inserted with the messages, deleted once the
-- tail holds them.
CREATE TABLE outbox (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversation_no bigint NOT NULL,
    first_seq       bigint NOT NULL,
    last_seq        bigint NOT NULL
);
