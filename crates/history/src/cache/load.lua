-- Makes the tail of a conversation from its newest messages, which follow each other, read under a lease.
-- Returns {1} if done, {0} if the lease is gone, {2, floor} if messages up to `floor` were committed meanwhile: fetch
-- the missing ones and try again.

local tail  = KEYS[1] -- list: seq, edit version, running total of bytes, protobuf; 24 h
local lease = KEYS[2] -- hash: token of the loader, floor it must reach; 3 s
local token = ARGV[1] -- [bytes] the loader's token
local life  = ARGV[2] -- [int]   ms the lease lasts, if it is needed again; 0: it is not
local ttl   = ARGV[3] -- [int]   ms the tail stays
local first = tonumber(ARGV[4]) -- seq of the first message given, below 2^53
-- ARGV[5], ARGV[6], ...: edit version and protobuf of each message

if redis.call('HGET', lease, 'token') ~= token then
  return {0}
end
local last = first + (#ARGV - 4) / 2 - 1
local floor = redis.call('HGET', lease, 'floor')
if tonumber(floor) > last then
  redis.call('PEXPIRE', lease, life)
  return {2, floor}
end

redis.call('DEL', tail, lease)
local total = 0
for i = 5, #ARGV, 2 do
  total = total + #ARGV[i + 1]
  local number = first + (i - 5) / 2
  redis.call('RPUSH', tail, struct.pack('>I8I4I8', number, tonumber(ARGV[i]), total) .. ARGV[i + 1])
end
redis.call('PEXPIRE', tail, ttl)
return {1}
