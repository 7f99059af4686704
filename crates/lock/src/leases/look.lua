-- Looks at a lock, and changes nothing.
-- Returns {'SEEN', the last seq given to any lock, ms of quarantine left, how many wait, {seq, 1 if it is only offered} or {},
--   who holds it (see `seen`), owner and ms waited of the first waiters, flat}.

local name  = ARGV[4]
local limit = tonumber(ARGV[5]) -- most waiters to tell of

local shut = open(true)
if shut then
  return shut
end
local hold = hold_of(name)
if hold and hold.ends <= clock then
  hold = nil -- it is over, and nobody has ended it yet
end
local first = redis.call('ZRANGEBYLEX', QUEUE, '[' .. name .. '\0', '(' .. name .. '\1', 'LIMIT', 0, limit)
local waiters = {}
for _, place in ipairs(first) do
  local waiter = waiter_of(string.sub(place, #name + 16))
  waiters[#waiters + 1] = waiter.owner
  waiters[#waiters + 1] = clock - waiter.since
end
local given = hold and {hold.seq, hold.offered and 1 or 0} or {}
return {'SEEN', seq, math.max(0, quarantine - clock), waiting(name), given, seen(hold), waiters}
