-- Stores a profile read from Postgres, if the reader still holds its lease.
-- Returns 1 if stored, 0 if the lease is lost, 2 if the value has a newer version.

local value   = KEYS[1] -- string: kind byte, version, time read, protobuf; 24 h, absent 15 s
local lease   = KEYS[2] -- string: 16-byte token of the reader; 3 s
local token   = ARGV[1] -- [bytes] the reader's token
local new     = ARGV[2] -- [bytes] the value to store
local ttl     = ARGV[3] -- [int]   TTL of the value in ms
local version = struct.unpack('>I8', new, 2) -- row version, below 2^53

if redis.call('GET', lease) ~= token then
  return 0
end
local current = redis.call('GET', value)
redis.call('DEL', lease)
if current and struct.unpack('>I8', current, 2) > version then
  return 2
end
redis.call('SET', value, new, 'PX', ttl)
return 1
