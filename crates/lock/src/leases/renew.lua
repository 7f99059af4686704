-- Lets a lease last its whole time again.
-- Returns {'RENEWED', ms of the lease}, or {'LOST'} if it is over.

local name  = ARGV[4]
local lease = ARGV[5]
local given = tonumber(ARGV[6]) -- the seq of the hold; 0 is that of none

local shut = open()
if shut then
  return shut
end
local hold = hold_of(name)
if not hold or hold.lease ~= lease or hold.seq ~= given or hold.offered or hold.ends <= clock then
  return {'LOST'}
end
start(name, hold)
return {'RENEWED', hold.ttl}
