-- Stores the tail of a conversation, built from its newest messages, which a loader read from
-- Postgres while it held the lease. The messages have consecutive seqs.
-- Returns {1} if stored, {0} if the lease has expired, {2, floor} if messages up to `floor` were
-- committed since the read: the loader reads the missing ones and retries.

local tail      = KEYS[1] -- list: seq, edit version, running total of bytes, protobuf; 24 h
local lease     = KEYS[2] -- hash: token of the loader, floor it must reach; 3 s
local token     = ARGV[1] -- [bytes] the loader's token
local lease_ttl = ARGV[2] -- [int]   new TTL of the lease in ms if the load is behind; 0: release it
local ttl       = ARGV[3] -- [int]   TTL of the tail in ms
local first     = tonumber(ARGV[4]) -- seq of the first message given, below 2^53
-- ARGV[5], ARGV[6], ...: edit version and protobuf of each message

if redis.call('HGET', lease, 'token') ~= token then
  return {0}
end
local last = first + (#ARGV - 4) / 2 - 1
local floor = redis.call('HGET', lease, 'floor')
if tonumber(floor) > last then
  redis.call('PEXPIRE', lease, lease_ttl)
  return {2, floor}
end

redis.call('DEL', tail, lease)
local total = 0
for i = 5, #ARGV, 2 do
  total = total + #ARGV[i + 1]
  local seq = first + (i - 5) / 2
  redis.call('RPUSH', tail, struct.pack('>I8I4I8', seq, tonumber(ARGV[i]), total) .. ARGV[i + 1])
end
redis.call('PEXPIRE', tail, ttl)
return {1}
