-- Makes a committed write known: kills the lease of a reader that may have read before it, and replaces an older value.
-- Never creates a value: on an absent key a writer that was paused would bring back what a newer one had replaced.
-- Returns 1 if replaced, 0 if there was nothing to replace, 2 if the same or a newer version is there, 3 if this is
-- another reign than that of the keys: then nothing is done.

local value   = KEYS[1] -- string: kind byte, version, time read, protobuf; 24 h, absent 15 s
local lease   = KEYS[2] -- string: 16-byte token of the reader; 3 s
local new     = ARGV[1] -- [bytes] what was committed
local ttl     = ARGV[2] -- [int]   ms it stays
local reign   = ARGV[3] -- first 10 hex digits of the reign that the keys are of
local version = struct.unpack('>I8', new, 2) -- row version, below 2^53

-- A server may begin another reign while its connections stay: what is told to the old one, nobody would read.
if not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. reign, 1, true) then
  return 3
end

redis.call('DEL', lease)
local found = redis.call('GET', value)
if not found then
  return 0
end
if #found >= 9 and struct.unpack('>I8', found, 2) >= version then
  return 2
end
redis.call('SET', value, new, 'PX', ttl)
return 1
