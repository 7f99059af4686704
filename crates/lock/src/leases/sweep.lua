-- Ends what is over by the logical clock: holds, offers, places in the queue, the memory of requests. Says that an instance
-- lives, and forgets those that have been silent for long.
-- Returns {'SWEPT', 1 if there may be more, ms of quarantine left}.

local instance = ARGV[4]
local limit    = tonumber(ARGV[5]) -- most things to end at once

local FORGOTTEN = 300000 -- ms of silence after which an instance is forgotten: all its places in queues are long over

local shut = open()
if shut then
  return shut
end
redis.call('HSET', INSTANCES, instance, clock)

local due = redis.call('ZRANGEBYSCORE', DUE, '-inf', clock, 'LIMIT', 0, limit)
for _, entry in ipairs(due) do
  local kind, key = string.sub(entry, 1, 1), string.sub(entry, 2)
  if kind == 'h' then
    local hold = hold_of(key)
    if hold and hold.ends <= clock then -- one that was ended in this run may have been offered anew
      run_out(key, hold)
      offer_next(key)
    end
  else
    local waiter = waiter_of(key)
    if waiter then
      local hold = hold_of(waiter.name)
      drop_waiter(key, waiter)
      forget(waiter.request)
      if hold and hold.lease == key then
        drop_hold(waiter.name)
        offer_next(waiter.name)
      end
    end
  end
end

local ended = redis.call('ZRANGEBYSCORE', ENDED, '-inf', clock, 'LIMIT', 0, limit)
for _, request in ipairs(ended) do
  redis.call('ZREM', ENDED, request)
  forget(request)
end

local known = redis.call('HGETALL', INSTANCES)
for i = 1, #known, 2 do
  if clock - known[i + 1] > FORGOTTEN then
    redis.call('HDEL', INSTANCES, known[i])
  end
end
local more = #due == limit or #ended == limit
return {'SWEPT', more and 1 or 0, math.max(0, quarantine - clock)}
