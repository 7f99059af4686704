-- Appends committed messages, which follow each other, to the tail of their conversation.
-- Skips what is there, pushes what is next. A gap drops the tail, and so does a message too long to be kept here. An
-- absent tail is not created, but a load in flight is told how far it must reach. Whoever relays the messages to broadcast
-- is woken, if asked for.
-- Returns 1 if the tail has them now, 0 if there is no tail, 2 if it was dropped, 3 if this is another reign. Without
-- messages, which are then too long to be kept, it drops the tail.

local tail        = KEYS[1] -- list: seq, edit version, running total of bytes, protobuf; 24 h
local lease       = KEYS[2] -- hash: token of a loader, floor it must reach; 3 s
local ttl         = ARGV[1] -- [int] ms the tail stays
local max_count   = tonumber(ARGV[2]) -- most messages
local max_bytes   = tonumber(ARGV[3]) -- most bytes of messages
local max_element = tonumber(ARGV[4]) -- most bytes of one message
local first       = tonumber(ARGV[5]) -- seq of the first message given, below 2^53
local last        = ARGV[6]           -- seq of the last message given
local reign       = ARGV[7]           -- first 10 hex digits of the reign that the keys are of
local wake        = ARGV[8]           -- pub/sub channel on which relays are woken; empty: they are not
local shard       = ARGV[9]           -- [int] what to tell them
-- ARGV[10], ARGV[11], ...: edit version and protobuf of each message

local HEADER = '>I8I4I8'
local HEADER_BYTES = 20

-- A server may begin another reign while its connections stay: what is told to the old one, nobody would read.
if not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. reign, 1, true) then
  return 3
end

if wake ~= '' then
  redis.call('PUBLISH', wake, shard)
end

local floor = redis.call('HGET', lease, 'floor')
if floor and tonumber(floor) < tonumber(last) then
  redis.call('HSET', lease, 'floor', last)
end

local tip = redis.call('LINDEX', tail, -1)
if not tip then
  return 0
end
local seq, _, total = struct.unpack(HEADER, tip)
local drop = first > seq + 1 or #ARGV < 10
for i = 11, #ARGV, 2 do
  drop = drop or #ARGV[i] > max_element
end
if drop then
  redis.call('DEL', tail)
  return 2
end

for i = 10, #ARGV, 2 do
  local number = first + (i - 10) / 2
  if number > seq then
    total = total + #ARGV[i + 1]
    redis.call('RPUSH', tail, struct.pack(HEADER, number, tonumber(ARGV[i]), total) .. ARGV[i + 1])
  end
end

redis.call('LTRIM', tail, -max_count, -1)
local oldest = redis.call('LINDEX', tail, 0)
local _, _, before = struct.unpack(HEADER, oldest)
while total - before + #oldest - HEADER_BYTES > max_bytes do
  redis.call('LPOP', tail)
  oldest = redis.call('LINDEX', tail, 0)
  _, _, before = struct.unpack(HEADER, oldest)
end
redis.call('PEXPIRE', tail, ttl)
return 1
