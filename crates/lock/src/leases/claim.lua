-- Takes the offer that was made to a call: its lease begins. Once more, it says what is left of that lease.
-- Returns one of
--   {'CLAIMED', seq, ms of the lease}
--   {'WAITING'}  there is no offer, but a place in the queue
--   {'TAKEN'}    a repeat of the request has them
--   {'GONE'}     there is neither

local name = ARGV[4]
local id   = ARGV[5] -- of the place in the queue
local call = ARGV[6] -- whose it is

local shut = open()
if shut then
  return shut
end
local hold, waiter = hold_of(name), waiter_of(id)
if hold and hold.lease == id and hold.call == call then
  if hold.offered then
    start(name, hold)
  end
  return {'CLAIMED', hold.seq, remaining(hold)}
end
if hold and hold.lease == id or waiter and waiter.call ~= call then
  return {'TAKEN'}
end
return {waiter and 'WAITING' or 'GONE'}
