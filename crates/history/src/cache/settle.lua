-- Asks whether a tail knows of a committed message, and tells a load in flight how far it must reach.
-- Returns 1 if the tail reaches it or there is no tail, 0 if the tail is behind.

local tail  = KEYS[1] -- list: seq, edit version, running total of bytes, protobuf; 24 h
local lease = KEYS[2] -- hash: token of a loader, floor it must reach; 3 s
local last  = ARGV[1] -- [int] seq of the message, below 2^53

local floor = redis.call('HGET', lease, 'floor')
if floor and tonumber(floor) < tonumber(last) then
  redis.call('HSET', lease, 'floor', last)
end
local tip = redis.call('LINDEX', tail, -1)
if tip and struct.unpack('>I8', tip) < tonumber(last) then
  return 0
end
return 1
