-- Applies a committed write: deletes the lease of any reader, which may have read Postgres before
-- the commit, and replaces an older value. Never creates a value: on an absent key a paused writer
-- would store a version that a newer write has replaced.
-- Returns 1 if replaced, 0 if there is no value, 2 if the value has this or a newer version, 3 if
-- the server's incarnation is not that of the keys: then nothing is done.

local value       = KEYS[1] -- string: kind byte, version, time read, protobuf; 24 h, absent 15 s
local lease       = KEYS[2] -- string: 16-byte token of the reader; 3 s
local new         = ARGV[1] -- [bytes] the committed value
local ttl         = ARGV[2] -- [int]   TTL of the value in ms
local incarnation = ARGV[3] -- [hex]   first 10 digits of the incarnation in the keys
local version     = struct.unpack('>I8', new, 2) -- row version, below 2^53

-- A server may change its incarnation while connections stay open: then no instance reads these
-- keys.
if not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. incarnation, 1, true) then
  return 3
end

redis.call('DEL', lease)
local current = redis.call('GET', value)
if not current then
  return 0
end
if #current >= 9 and struct.unpack('>I8', current, 2) >= version then
  return 2
end
redis.call('SET', value, new, 'PX', ttl)
return 1
