#!lua
-- Publishes a message: numbers it, keeps it, and notifies the subscribed instances.
-- A channel that is absent, or of another incarnation of Redis, begins a new epoch. Data of another
-- incarnation may be older than acknowledged messages, so it is never continued.
-- Returns {0, epoch, offset} if published; {1, epoch, offset} if the request id was used before for
-- the same content; {2, epoch, offset} if it was used for other content. In cases 1 and 2, epoch
-- and offset are the position of the earlier message.
-- Not idempotent without a request id: the caller must not retry.

-- Fields of meta: epoch (16 hex), incarnation (40 hex), head, time (us, of the newest message).
local meta        = KEYS[1] -- hash; 30 days
local stream      = KEYS[2] -- stream: ids <offset>-0, fields t (us, publish time) and b (body); 1 h
local request     = KEYS[3] -- string: epoch, offset, fingerprint; 10 min. Only with a request id
local new_epoch   = ARGV[1] -- used if a new epoch begins
local body        = ARGV[2] -- [bytes] protobuf of the message without epoch, offset and time
local fingerprint = ARGV[3] -- [bytes] 32, hash of the content; empty without a request id
local max_count   = ARGV[4] -- [int] most messages to keep
local max_age     = tonumber(ARGV[5]) -- ms to keep a message
local meta_ttl    = ARGV[6] -- [int] ms to keep the channel's numbering
local request_ttl = ARGV[7] -- [int] ms to keep a request id
local pubsub      = ARGV[8] -- pub/sub channel

-- Most expired messages deleted per publish: more than the one it adds, and few enough to be fast.
local EXPIRED_MAX = 4

local function id(offset)
  return string.format('%.0f-0', offset)
end

local incarnation = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local epoch, written_in, head, before = unpack(redis.call('HMGET', meta, 'epoch', 'incarnation', 'head', 'time'))
local begins = written_in ~= incarnation
if begins then
  epoch, head, before = new_epoch, 0, 0
elseif request then
  local earlier = redis.call('GET', request)
  if earlier and string.sub(earlier, 1, 16) == epoch then
    local outcome = string.sub(earlier, 25) == fingerprint and 1 or 2
    return {outcome, epoch, (struct.unpack('>I8', earlier, 17))}
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
for _ = 1, EXPIRED_MAX do
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if tonumber(oldest[2][2]) >= time - max_age * 1000 then
    break
  end
  redis.call('XDEL', stream, oldest[1])
end
redis.call('PEXPIRE', stream, max_age)
redis.call('HSET', meta, 'epoch', epoch, 'incarnation', incarnation,
  'head', string.format('%.0f', offset), 'time', time_text)
redis.call('PEXPIRE', meta, meta_ttl)
if request then
  redis.call('SET', request, epoch .. struct.pack('>I8', offset) .. fingerprint, 'PX', request_ttl)
end
redis.call('PUBLISH', pubsub, epoch .. struct.pack('>I8I8', offset, time) .. body)
return {0, epoch, offset}
