#!lua
-- Publishes a message: numbers it, keeps it, tells everybody who listens.
-- A channel that is not there, or was written in another reign of the server, begins a new epoch: what came from
-- another reign may be older than what was acknowledged, and is never continued.
-- Returns {0, epoch, offset} if published; {1, epoch, offset} if the request id had published the same before,
-- {2, epoch, offset} if it had published something else, with the position of that message.
-- Not safe to run twice without a request id: whoever calls it must not resend.

local meta        = KEYS[1] -- hash: epoch (16 hex), reign (40 hex), head, time (us, of the newest); 30 days
local stream      = KEYS[2] -- stream: ids <offset>-0, fields t (us, when published) and b (the body); 1 h
local request     = KEYS[3] -- string: epoch, offset, fingerprint; 10 min. Absent if there is no request id
local offered     = ARGV[1] -- epoch to begin, if one begins
local body        = ARGV[2] -- [bytes] protobuf of the message without epoch, offset and time
local fingerprint = ARGV[3] -- [bytes] 32, of what the publisher asked for; empty without a request id
local max_count   = ARGV[4] -- [int] most messages that are kept
local max_age     = tonumber(ARGV[5]) -- ms a message is kept
local meta_life   = ARGV[6] -- [int] ms the channel's numbering is kept
local key_life    = ARGV[7] -- [int] ms a request id is remembered
local ear         = ARGV[8] -- pub/sub channel

-- Each publish adds one message and takes away at most so many that are too old: enough to catch up, and never long.
local AGED_MAX = 4

local function id(offset)
  return string.format('%.0f-0', offset)
end

local reign = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local epoch, written, head, before = unpack(redis.call('HMGET', meta, 'epoch', 'reign', 'head', 'time'))
local begins = written ~= reign
if begins then
  epoch, head, before = offered, 0, 0
elseif request then
  local remembered = redis.call('GET', request)
  if remembered and string.sub(remembered, 1, 16) == epoch then
    local outcome = string.sub(remembered, 25) == fingerprint and 1 or 2
    return {outcome, epoch, (struct.unpack('>I8', remembered, 17))}
  end
end

local offset = tonumber(head) + 1
local now = redis.call('TIME')
local time = math.max(tonumber(before), tonumber(now[1]) * 1000000 + tonumber(now[2]))
local time_text = string.format('%.0f', time)

if begins then
  redis.call('DEL', stream)
end
redis.call('XADD', stream, 'MAXLEN', '=', max_count, id(offset), 't', time_text, 'b', body)
for _ = 1, AGED_MAX do
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if tonumber(oldest[2][2]) >= time - max_age * 1000 then
    break
  end
  redis.call('XDEL', stream, oldest[1])
end
redis.call('PEXPIRE', stream, max_age)
redis.call('HSET', meta, 'epoch', epoch, 'reign', reign, 'head', string.format('%.0f', offset), 'time', time_text)
redis.call('PEXPIRE', meta, meta_life)
if request then
  redis.call('SET', request, epoch .. struct.pack('>I8', offset) .. fingerprint, 'PX', key_life)
end
redis.call('PUBLISH', ear, epoch .. struct.pack('>I8I8', offset, time) .. body)
return {0, epoch, offset}
