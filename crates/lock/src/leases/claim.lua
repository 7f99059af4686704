-- Claims the offer to a call: its lease begins. A repeated claim returns the time left of that
-- lease.
-- Returns one of
--   {'CLAIMED', seq, ms of the lease}
--   {'WAITING'}     the call is queued, without an offer
--   {'TAKEN_OVER'}  a retry of the request owns the entry
--   {'ABSENT'}      the call has neither

local name = ARGV[4]
local id   = ARGV[5] -- of the queue entry
local call = ARGV[6] -- id of the AcquireLock call

local refused = pass_gate()
if refused then
  return refused
end
local hold, waiter = hold_of(name), waiter_of(id)
if hold and hold.lease == id and hold.call == call then
  if hold.offered then
    start_lease(name, hold)
  end
  return {'CLAIMED', hold.seq, time_left(hold)}
end
if hold and hold.lease == id or waiter and waiter.call ~= call then
  return {'TAKEN_OVER'}
end
return {waiter and 'WAITING' or 'ABSENT'}
