-- Ends a hold, and offers the lock to whoever is next. Compares lease and seq, so that it never ends a newer hold.
-- Returns {'RELEASED'}, or {'NOT_HELD'} if the hold was over before.

local name  = ARGV[4]
local lease = ARGV[5]
local given = tonumber(ARGV[6]) -- the seq of the hold; 0 is that of none

local shut = open()
if shut then
  return shut
end
local hold = hold_of(name)
if not hold or hold.lease ~= lease or hold.seq ~= given or hold.offered then
  return {'NOT_HELD'}
end
run_out(name, hold)
offer_next(name)
return {hold.ends > clock and 'RELEASED' or 'NOT_HELD'}
