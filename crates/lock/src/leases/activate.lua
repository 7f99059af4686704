-- Begins an epoch, which Postgres knows already: whatever was held or waited for before is gone, and nobody is granted
-- anything until the quarantine is over. To be sent once; a late one is refused.
-- Returns {'ACTIVATED'}, or {'REFUSED'} if this is another reign, or if Redis is there already, or further.

local opened = ARGV[4]           -- [hex] the reign that was read when the epoch was opened
local length = tonumber(ARGV[5]) -- ms of quarantine

local known = redis.call('HGET', META, 'epoch')
if reign() ~= opened or known and tonumber(known) >= tonumber(EPOCH) then
  return {'REFUSED'}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('DEL', META, HOLDS, QUEUE, WAITERS, DUE, REQUESTS, ENDED, INSTANCES)
redis.call('HSET', META, 'epoch', EPOCH, 'reign', opened, 'seq', 0, 'arrivals', 0, 'clock', 0, 'last', now,
  'quarantine', length)
return {'ACTIVATED'}
