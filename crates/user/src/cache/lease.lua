-- Gives a reader that found nothing, or something old, the right to fill the value, if nobody else has it.
-- Returns {0, nil} if granted, {1, token} if another reader has it, {2, value} if the value is there by now and shall stay.

local value = KEYS[1] -- string: kind byte, version, time read, protobuf; 24 h, absent 15 s
local lease = KEYS[2] -- string: 16-byte token of the reader; 3 s
local token = ARGV[1] -- [bytes] the reader's token
local ttl   = ARGV[2] -- [int]   ms the lease lasts
local renew = ARGV[3] -- [int]   1: also if there is a value, which the fill will replace

if renew ~= '1' then
  local found = redis.call('GET', value)
  if found then
    return {2, found}
  end
end
if redis.call('SET', lease, token, 'NX', 'PX', ttl) then
  return {0, false}
end
return {1, redis.call('GET', lease)}
