-- Compares queue entries with what their calls expect: notifications and entries may have been
-- lost. Offers a lock that is still free because no instance of its waiters was live.
-- Returns {'CHECKED', and for each entry one of
--   'OFFERED'     the call can claim
--   'WAITING'
--   'TAKEN_OVER'  a retry of the request owns the entry
--   'ABSENT'      there is no such entry
-- }

local instance = ARGV[4]
-- ARGV[5], ARGV[6], ARGV[7], ...: name, id and call of each entry

local refused = pass_gate()
if refused then
  return refused
end
redis.call('HSET', INSTANCES, instance, clock)

local statuses = {'CHECKED'}
for i = 5, #ARGV, 3 do
  local name, id, call = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local hold, waiter = hold_of(name), waiter_of(id)
  if waiter and waiter.call == call then
    if waiter.missed then
      waiter.missed = nil
      put_waiter(id, waiter)
    end
    hold = hold or offer_next(name)
  end
  local ours = hold and hold.lease == id
  if ours and hold.call == call then
    statuses[#statuses + 1] = 'OFFERED'
  elseif ours or waiter and waiter.call ~= call then
    statuses[#statuses + 1] = 'TAKEN_OVER'
  else
    statuses[#statuses + 1] = waiter and 'WAITING' or 'ABSENT'
  end
end
return statuses
