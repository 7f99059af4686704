-- Keeps what a reader found out about a handle, if the hint is still the one that it saw before it looked.
-- Returns 1 if kept, 0 if somebody else has changed the hint, who may know better.

local hint  = KEYS[1] -- string: the id of the user who may have the handle; 10 min
local saw   = ARGV[1] -- [id]  what the reader saw; empty: nothing
local owner = ARGV[2] -- [id]  what it found; empty: nobody, which is not kept
local ttl   = ARGV[3] -- [int] ms it stays

if (redis.call('GET', hint) or '') ~= saw then
  return 0
end
if owner == '' then
  redis.call('DEL', hint)
else
  redis.call('SET', hint, owner, 'PX', ttl)
end
return 1
