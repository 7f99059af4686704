-- Gives back a lease that is not needed any more, because nothing could be read.
-- Returns 1 if it was given back, 0 if it was gone.

local lease = KEYS[1] -- string: 16-byte token of the reader; 3 s
local token = ARGV[1] -- [bytes] the reader's token

if redis.call('GET', lease) ~= token then
  return 0
end
return redis.call('DEL', lease)
