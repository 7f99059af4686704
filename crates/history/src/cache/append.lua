-- Appends committed messages, which follow each other, to the tail of their conversation.
-- Skips what is there, pushes what is next. What comes before the messages that it follows is kept in its place: the tail is not
-- whole then, and not read, until they have come, too. One that is too early, or too long to be kept here, drops the tail. An
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
local EARLY_MAX = 64 -- places between a message that comes early and the tail's newest: as many commits may overtake each other

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
local start = struct.unpack(HEADER, redis.call('LINDEX', tail, 0))
local whole = redis.call('LLEN', tail) == seq - start + 1
local drop = first > seq + EARLY_MAX or #ARGV < 10
for i = 11, #ARGV, 2 do
  drop = drop or #ARGV[i] > max_element
end
if drop then
  redis.call('DEL', tail)
  return 2
end

local function push(number, version, sum, body)
  redis.call('RPUSH', tail, struct.pack(HEADER, number, version, sum) .. body)
end

-- Puts a message that comes late in its place, which is between two that are there.
local function insert(number, version, body)
  local above = {}
  local at, _, sum = struct.unpack(HEADER, redis.call('LINDEX', tail, -1))
  while at > number do
    above[#above + 1] = redis.call('RPOP', tail)
    at, _, sum = struct.unpack(HEADER, redis.call('LINDEX', tail, -1))
  end
  if at < number then
    sum = sum + #body
    total = total + #body
    push(number, version, sum, body)
  end
  for k = #above, 1, -1 do
    local upper, its_version = struct.unpack(HEADER, above[k])
    local its_body = string.sub(above[k], HEADER_BYTES + 1)
    sum = sum + #its_body
    push(upper, its_version, sum, its_body)
  end
end

for i = 10, #ARGV, 2 do
  local number = first + (i - 10) / 2
  if number > seq then
    total = total + #ARGV[i + 1]
    push(number, tonumber(ARGV[i]), total, ARGV[i + 1])
  elseif not whole and number > start then
    insert(number, tonumber(ARGV[i]), ARGV[i + 1])
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
