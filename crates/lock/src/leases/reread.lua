-- Looks after places in queues, on behalf of the calls that have them: news may have been lost, and so may the places. A lock
-- that is free all the same, because nobody who waits for it was heard of, is offered.
-- Returns {'READ', for each place one of
--   'OFFERED'  claim it
--   'WAITING'
--   'TAKEN'    a repeat of the request has it
--   'MISSING'  it is not there
-- }

local instance = ARGV[4]
-- ARGV[5], ARGV[6], ARGV[7], ...: name, id and call of each place

local shut = open()
if shut then
  return shut
end
redis.call('HSET', INSTANCES, instance, clock)

local states = {'READ'}
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
    states[#states + 1] = 'OFFERED'
  elseif ours or waiter and waiter.call ~= call then
    states[#states + 1] = 'TAKEN'
  else
    states[#states + 1] = waiter and 'WAITING' or 'MISSING'
  end
end
return states
