-- Reads a range of messages from a tail, if the tail has no gap and the range begins or ends in it.
-- Returns {seq of the tail's newest message, element, ...} in ascending order, or {} if the tail
-- does not have the range.

local tail     = KEYS[1] -- list: seq, edit version, running total of bytes, protobuf; 24 h
local backward = ARGV[1] == 'back' -- back: the newest below bound; forth: the oldest above it
local bound    = tonumber(ARGV[2]) -- seq: exclusive end (back) or start (forth)
local limit    = tonumber(ARGV[3]) -- maximum number of messages
local min_seq  = tonumber(ARGV[4]) -- seq that the tail must reach

local count = redis.call('LLEN', tail)
if count == 0 then
  return {}
end
local first = struct.unpack('>I8', redis.call('LINDEX', tail, 0))
local last = struct.unpack('>I8', redis.call('LINDEX', tail, -1))
if last - first + 1 ~= count or last < min_seq then
  return {}
end

local from, to
if backward then
  to = math.min(last, bound - 1)
  from = math.max(first, to - limit + 1)
  if to < first then
    return {}
  end
else
  from = bound + 1
  to = math.min(last, from + limit - 1)
  if from < first then
    return {}
  end
end
if from > to then
  return {last}
end
local elements = redis.call('LRANGE', tail, from - first, to - first)
if struct.unpack('>I8', elements[1]) ~= from then
  return {}
end
return {last, unpack(elements)}
