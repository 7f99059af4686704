-- The epoch of each partition of the locks; there is one partition. A token consists of the epoch
-- and a sequence number from Redis. After Redis has lost its data, the tokens of the next epoch are
-- above all tokens granted before. Losing this row loses that guarantee.
CREATE TABLE lock_epoch (
    partition     smallint PRIMARY KEY,
    epoch         bigint NOT NULL,      -- the latest opened epoch; only grows
    incarnation   text NOT NULL,        -- the incarnation of Redis that the epoch was opened for
    max_ttl_ms    bigint NOT NULL,      -- longest lease of this epoch; raised before its grant
    carry_ttl_ms  bigint NOT NULL,      -- longest lease of earlier epochs that may still be held
    activate_time timestamptz NOT NULL  -- time of opening
);
