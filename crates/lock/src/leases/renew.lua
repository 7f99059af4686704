-- Renews a lease for its whole TTL.
-- Returns {'RENEWED', ms of the lease}, or {'LOST'} if it is over.

local name     = ARGV[4]
local lease    = ARGV[5]
local hold_seq = tonumber(ARGV[6]) -- seq of the hold; no hold has 0

local refused = pass_gate()
if refused then
  return refused
end
local hold = hold_of(name)
if not hold or hold.lease ~= lease or hold.seq ~= hold_seq or hold.offered or hold.ends <= clock then
  return {'LOST'}
end
start_lease(name, hold)
return {'RENEWED', hold.ttl}
