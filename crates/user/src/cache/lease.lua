-- Grants a reader the lease to fill a missing value, or to replace one past its soft TTL, unless
-- another reader holds it.
-- Returns {0, nil} if granted, {1, nil} if another reader holds it, {2, value} if there is a value
-- that is not to be replaced.

local value   = KEYS[1] -- string: kind byte, version, time read, protobuf; 24 h, absent 15 s
local lease   = KEYS[2] -- string: 16-byte token of the reader; 3 s
local token   = ARGV[1] -- [bytes] the reader's token
local ttl     = ARGV[2] -- [int]   TTL of the lease in ms
local replace = ARGV[3] -- [int]   1: grant it although there is a value, which the fill replaces

if replace ~= '1' then
  local current = redis.call('GET', value)
  if current then
    return {2, current}
  end
end
if redis.call('SET', lease, token, 'NX', 'PX', ttl) then
  return {0, false}
end
return {1, false}
