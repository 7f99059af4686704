-- Grants the lease to load a tail to a reader that found none, unless another reader holds the
-- lease.
-- Returns 1 if granted, 0 if another reader holds it.

local lease = KEYS[1] -- hash: token of the loader, floor it must reach; 3 s
local token = ARGV[1] -- [bytes] the reader's token
local ttl   = ARGV[2] -- [int]   TTL of the lease in ms

if redis.call('EXISTS', lease) == 1 then
  return 0
end
redis.call('HSET', lease, 'token', token, 'floor', 0)
redis.call('PEXPIRE', lease, ttl)
return 1
