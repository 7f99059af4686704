-- Appends committed messages with consecutive seqs to the tail of their conversation. Skips
-- messages that the tail has and pushes those that are next. A message that arrives before its
-- predecessors is stored all the same: the tail then has a gap, and is not read until the gap is
-- filled. A message that is more than EARLY_MAX ahead, or too long to be cached, drops the tail;
-- the caller sends no messages at all if one of them is too long. An absent tail is not created,
-- but the floor of a load in flight is raised. Wakes the relay of the shard, if asked to.
-- Returns 1 if the tail has the messages now, 0 if there is no tail, 2 if the tail was dropped, 3
-- if Redis is in another incarnation.

local tail        = KEYS[1] -- list: seq, edit version, running total of bytes, protobuf; 24 h
local lease       = KEYS[2] -- hash: token of the loader, floor it must reach; 3 s
local ttl         = ARGV[1] -- [int] TTL of the tail in ms
local max_count   = tonumber(ARGV[2]) -- maximum number of messages
local max_bytes   = tonumber(ARGV[3]) -- maximum size of all messages, in bytes
local max_element = tonumber(ARGV[4]) -- maximum size of one message, in bytes
local first       = tonumber(ARGV[5]) -- seq of the first message given, below 2^53
local last        = ARGV[6]           -- seq of the last message given
local incarnation = ARGV[7]           -- first 10 hex digits of the incarnation of the keys
local wake        = ARGV[8]           -- pub/sub channel of the relays; empty: do not wake them
local shard       = ARGV[9]           -- [int] shard of the outbox that has new rows
-- ARGV[10], ARGV[11], ...: edit version and protobuf of each message

local HEADER = '>I8I4I8'
local HEADER_BYTES = 20
-- Maximum distance between an early message and the tail's newest: commits may overtake each other
-- by this many messages.
local EARLY_MAX = 64

-- A server can start another incarnation while its connections stay open. No reader looks at keys
-- of the old one, so a write there would be lost.
if not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. incarnation, 1, true) then
  return 3
end

if wake ~= '' then
  redis.call('PUBLISH', wake, shard)
end

local floor = redis.call('HGET', lease, 'floor')
if floor and tonumber(floor) < tonumber(last) then
  redis.call('HSET', lease, 'floor', last)
end

local newest = redis.call('LINDEX', tail, -1)
if not newest then
  return 0
end
local seq, _, total = struct.unpack(HEADER, newest)
local start = struct.unpack(HEADER, redis.call('LINDEX', tail, 0))
local contiguous = redis.call('LLEN', tail) == seq - start + 1
local drop = first > seq + EARLY_MAX or #ARGV < 10
for i = 11, #ARGV, 2 do
  drop = drop or #ARGV[i] > max_element
end
if drop then
  redis.call('DEL', tail)
  return 2
end

local function push(message_seq, version, sum, body)
  redis.call('RPUSH', tail, struct.pack(HEADER, message_seq, version, sum) .. body)
end

-- Inserts a late message at its position, between two messages of the tail.
local function insert(message_seq, version, body)
  local above = {}
  local at, _, sum = struct.unpack(HEADER, redis.call('LINDEX', tail, -1))
  while at > message_seq do
    above[#above + 1] = redis.call('RPOP', tail)
    at, _, sum = struct.unpack(HEADER, redis.call('LINDEX', tail, -1))
  end
  if at < message_seq then
    sum = sum + #body
    total = total + #body
    push(message_seq, version, sum, body)
  end
  for k = #above, 1, -1 do
    local upper, its_version = struct.unpack(HEADER, above[k])
    local its_body = string.sub(above[k], HEADER_BYTES + 1)
    sum = sum + #its_body
    push(upper, its_version, sum, its_body)
  end
end

for i = 10, #ARGV, 2 do
  local message_seq = first + (i - 10) / 2
  if message_seq > seq then
    total = total + #ARGV[i + 1]
    push(message_seq, tonumber(ARGV[i]), total, ARGV[i + 1])
  elseif not contiguous and message_seq > start then
    insert(message_seq, tonumber(ARGV[i]), ARGV[i + 1])
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
