-- The epoch of each partition of the locks, of which there is one. A token is the epoch and a number that Redis counts in it:
-- whatever Redis forgets, the next epoch begins above all tokens given. Losing this row loses that promise.
CREATE TABLE lock_epoch (
    partition     smallint PRIMARY KEY,
    epoch         bigint NOT NULL,      -- the last one that was opened; only grows
    reign         text NOT NULL,        -- the reign of Redis that it was opened for
    max_ttl_ms    bigint NOT NULL,      -- no lease of this epoch is longer; raised before one is granted
    carry_ttl_ms  bigint NOT NULL,      -- the longest lease of earlier epochs that may still be believed in
    activate_time timestamptz NOT NULL  -- when it was opened
);
