-- Ends entries that expired by the logical clock: holds, offers, waiters, remembered requests.
-- Records a heartbeat of an instance, and forgets instances without one for FORGET_AFTER.
-- Returns {'SWEPT', 1 if more may be due, ms of quarantine left}.

local instance = ARGV[4]
local limit    = tonumber(ARGV[5]) -- most entries to end

local FORGET_AFTER = 300000 -- ms; by then all waiters of the instance have expired

local refused = pass_gate()
if refused then
  return refused
end
redis.call('HSET', INSTANCES, instance, clock)

local due = redis.call('ZRANGEBYSCORE', DUE, '-inf', clock, 'LIMIT', 0, limit)
for _, entry in ipairs(due) do
  local kind, key = string.sub(entry, 1, 1), string.sub(entry, 2)
  if kind == 'h' then
    local hold = hold_of(key)
    if hold and hold.ends <= clock then -- it may be a new offer, made in this run
      end_hold(key, hold)
      offer_next(key)
    end
  else
    local waiter = waiter_of(key)
    if waiter then
      local hold = hold_of(waiter.name)
      drop_waiter(key, waiter)
      forget_request(waiter.request)
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
  forget_request(request)
end

local known = redis.call('HGETALL', INSTANCES)
for i = 1, #known, 2 do
  if clock - known[i + 1] > FORGET_AFTER then
    redis.call('HDEL', INSTANCES, known[i])
  end
end
local more = #due == limit or #ended == limit
return {'SWEPT', more and 1 or 0, math.max(0, quarantine - clock)}
