-- Asks whether a tail knows of a committed message, and tells a load in flight how far it must reach.
-- Returns 1 if the tail has it, or begins behind it, or there is no tail; 0 if the tail lacks it; 3 if this is another reign. What is no
-- tail of ours is dropped: it must not hold up the relay.

local tail  = KEYS[1] -- list: seq, edit version, running total of bytes, protobuf; 24 h
local lease = KEYS[2] -- hash: token of a loader, floor it must reach; 3 s
local last  = ARGV[1] -- [int] seq of the message, below 2^53
local reign = ARGV[2] -- first 10 hex digits of the reign that the keys are of

local HEADER_BYTES = 20

-- A server may begin another reign while its connections stay: what is told to the old one, nobody would read.
if not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. reign, 1, true) then
  return 3
end

local floor = redis.call('HGET', lease, 'floor')
if floor and tonumber(floor) < tonumber(last) then
  redis.call('HSET', lease, 'floor', last)
end
local tip = redis.pcall('LINDEX', tail, -1)
if not tip then
  return 1
end
if type(tip) == 'table' or #tip < HEADER_BYTES then
  redis.call('DEL', tail)
  return 1
end
local wanted = tonumber(last)
local seq = struct.unpack('>I8', tip)
local start = struct.unpack('>I8', redis.call('LINDEX', tail, 0))
if redis.call('LLEN', tail) == seq - start + 1 or seq < wanted then
  return seq >= wanted and 1 or 0
end
-- One that is not whole, which is rare and does not last.
local place = -1
while seq > wanted and seq > start do
  place = place - 1
  seq = struct.unpack('>I8', redis.call('LINDEX', tail, place))
end
return seq >= wanted and (seq == wanted or wanted < start) and 1 or 0
