-- Gives a reader that found no tail the right to load it, if nobody else has it.
-- Returns 1 if granted, 0 if another reader has it.

local lease = KEYS[1] -- hash: token of a loader, floor it must reach; 3 s
local token = ARGV[1] -- [bytes] the reader's token
local ttl   = ARGV[2] -- [int]   ms the lease lasts

if redis.call('EXISTS', lease) == 1 then
  return 0
end
redis.call('HSET', lease, 'token', token, 'floor', 0)
redis.call('PEXPIRE', lease, ttl)
return 1
