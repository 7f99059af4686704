#!lua flags=no-writes
-- Reads the head of a channel. It runs for every channel every few seconds, so it is minimal.
-- Returns {epoch, head}; {'', 0} if the channel is absent, or of another incarnation of Redis.

local meta = KEYS[1] -- hash: epoch, incarnation, head, time

local incarnation = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local epoch, written_in, head = unpack(redis.call('HMGET', meta, 'epoch', 'incarnation', 'head'))
if written_in ~= incarnation then
  return {'', 0}
end
return {epoch, tonumber(head)}
