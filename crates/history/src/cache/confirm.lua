-- Checks whether a tail has a committed message, and raises the floor of a load in flight.
-- Returns 1 if the tail has the message, begins after it, or is absent; 0 if the tail lacks it; 3
-- if Redis is in another incarnation. A value that is not a tail is deleted: it must not block the
-- relay.

local tail  = KEYS[1] -- list: seq, edit version, running total of bytes, protobuf; 24 h
local lease = KEYS[2] -- hash: token of the loader, floor it must reach; 3 s
local last  = ARGV[1] -- [int] seq of the message, below 2^53
local incarnation = ARGV[2] -- first 10 hex digits of the incarnation of the keys

local HEADER_BYTES = 20

-- A server can start another incarnation while its connections stay open. No reader looks at keys
-- of the old one, so neither the result nor a floor raised here would have any effect.
if not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. incarnation, 1, true) then
  return 3
end

local floor = redis.call('HGET', lease, 'floor')
if floor and tonumber(floor) < tonumber(last) then
  redis.call('HSET', lease, 'floor', last)
end
local newest = redis.pcall('LINDEX', tail, -1)
if not newest then
  return 1
end
if type(newest) == 'table' or #newest < HEADER_BYTES then
  redis.call('DEL', tail)
  return 1
end
local wanted = tonumber(last)
local seq = struct.unpack('>I8', newest)
local start = struct.unpack('>I8', redis.call('LINDEX', tail, 0))
if redis.call('LLEN', tail) == seq - start + 1 or seq < wanted then
  return seq >= wanted and 1 or 0
end
-- The tail has a gap, which is rare and short-lived: search it from its newest message down.
local index = -1
while seq > wanted and seq > start do
  index = index - 1
  seq = struct.unpack('>I8', redis.call('LINDEX', tail, index))
end
return seq >= wanted and (seq == wanted or wanted < start) and 1 or 0
