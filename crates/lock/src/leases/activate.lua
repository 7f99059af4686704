-- Begins an epoch that is committed in Postgres: ends all holds, waiters and requests, and starts
-- the quarantine, in which nothing is granted. To be sent once; a late activation is refused.
-- Returns {'ACTIVATED'}, or {'REFUSED'} if the incarnation is another one, or if Redis is already
-- in this epoch or a later one.

local opened_for = ARGV[4]           -- [hex] incarnation for which the epoch was opened
local length     = tonumber(ARGV[5]) -- ms of quarantine

local known = redis.call('HGET', META, 'epoch')
if incarnation() ~= opened_for or known and tonumber(known) >= tonumber(EPOCH) then
  return {'REFUSED'}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('DEL', META, HOLDS, QUEUE, WAITERS, DUE, REQUESTS, ENDED, INSTANCES)
redis.call('HSET', META, 'epoch', EPOCH, 'incarnation', opened_for, 'seq', 0, 'arrivals', 0, 'clock', 0,
  'last', now, 'quarantine', length)
return {'ACTIVATED'}
