-- Releases a lease whose reader could not read Postgres.
-- Returns 1 if released, 0 if the lease was lost before.

local lease = KEYS[1] -- string: 16-byte token of the reader; 3 s
local token = ARGV[1] -- [bytes] the reader's token

if redis.call('GET', lease) ~= token then
  return 0
end
return redis.call('DEL', lease)
