#!lua flags=no-writes
-- Says where a channel stands, as cheaply as can be: it is asked for every channel again and again.
-- Returns {epoch, head}; {'', 0} if the channel is not there, or was written in another reign of the server.

local meta = KEYS[1] -- hash: epoch, reign, head, time

local reign = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local epoch, written, head = unpack(redis.call('HMGET', meta, 'epoch', 'reign', 'head'))
if written ~= reign then
  return {'', 0}
end
return {epoch, tonumber(head)}
