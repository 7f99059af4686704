-- Gives up what a call has: its place in the queue, an offer, or a hold of which its caller never heard. Whoever is next is
-- made an offer. Does nothing to what a repeat has taken over.
-- Returns {'LEFT', the place in the queue or 0, who holds the lock (see `seen`)}, or {'NOTHING'}.

local name    = ARGV[4]
local id      = ARGV[5] -- of the place in the queue, or of the lease
local call    = ARGV[6] -- whose it is
local request = ARGV[7] -- its name, if it has one: the place may have had another id before
local claimed = ARGV[8] == '1' -- also what was claimed

local shut = open()
if shut then
  return shut
end
local record = record_of(request)
id = record and record.id or id
local hold, waiter = hold_of(name), waiter_of(id)
local held = hold and hold.lease == id and hold.call == call and (hold.offered or claimed)
local queued = waiter and waiter.call == call
if not held and not queued then
  return {'NOTHING'}
end

local place = 0
if queued then
  place = redis.call('ZLEXCOUNT', QUEUE, '[' .. name .. '\0', '[' .. member(id, waiter))
  drop_waiter(id, waiter)
end
forget((held and hold or waiter).request)
if held then
  drop_hold(name)
  offer_next(name)
end
return {'LEFT', place, held and {} or seen(hold)}
