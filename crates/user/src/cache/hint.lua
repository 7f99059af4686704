-- Stores the owner of a handle that a reader found, if the hint is still the one that it saw before
-- it read Postgres.
-- Returns 1 if stored, 0 if the hint has changed: the other change may be newer.

local hint  = KEYS[1] -- string: the id of the user that may have the handle; 10 min
local seen  = ARGV[1] -- [id]  the hint that the reader saw; empty: none
local owner = ARGV[2] -- [id]  the owner that it found; empty: none, which deletes the hint
local ttl   = ARGV[3] -- [int] TTL of the hint in ms

if (redis.call('GET', hint) or '') ~= seen then
  return 0
end
if owner == '' then
  redis.call('DEL', hint)
else
  redis.call('SET', hint, owner, 'PX', ttl)
end
return 1
