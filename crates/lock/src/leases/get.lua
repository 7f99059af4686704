-- Reads a lock, and changes nothing.
-- Returns {'LOCK', last seq granted to any lock, ms of quarantine left, number of waiters,
--   {seq, 1 if only offered} of the hold or {}, holder (`holder_view`),
--   owner and ms waited of the first waiters, flat}.

local name  = ARGV[4]
local limit = tonumber(ARGV[5]) -- most waiters to list

local refused = pass_gate(true)
if refused then
  return refused
end
local hold = hold_of(name)
if hold and hold.ends <= clock then
  hold = nil -- expired, and not yet swept
end
local first = redis.call('ZRANGEBYLEX', QUEUE, '[' .. name .. '\0', '(' .. name .. '\1', 'LIMIT', 0, limit)
local waiters = {}
for _, member in ipairs(first) do
  local waiter = waiter_of(string.sub(member, #name + 16))
  waiters[#waiters + 1] = waiter.owner
  waiters[#waiters + 1] = clock - waiter.since
end
local newest = hold and {hold.seq, hold.offered and 1 or 0} or {}
return {'LOCK', seq, math.max(0, quarantine - clock), waiter_count(name), newest, holder_view(hold), waiters}
