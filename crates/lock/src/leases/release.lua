-- Ends a hold, and offers the lock to the next waiter. Compares lease and seq, so that it never
-- ends a newer hold.
-- Returns {'RELEASED'}, or {'NOT_HELD'} if the hold was over before.

local name     = ARGV[4]
local lease    = ARGV[5]
local hold_seq = tonumber(ARGV[6]) -- seq of the hold; no hold has 0

local refused = pass_gate()
if refused then
  return refused
end
local hold = hold_of(name)
if not hold or hold.lease ~= lease or hold.seq ~= hold_seq or hold.offered then
  return {'NOT_HELD'}
end
end_hold(name, hold)
offer_next(name)
return {hold.ends > clock and 'RELEASED' or 'NOT_HELD'}
