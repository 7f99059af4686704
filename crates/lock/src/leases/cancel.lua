-- Cancels what a call has: its queue entry, an offer, or a hold that its caller did not receive.
-- Offers the lock to the next waiter. Changes nothing that a retry has taken over.
-- Returns one of
--   {'CANCELLED', queue position or 0, holder (`holder_view`)}
--   {'KEPT'}     the queue entry waits for a retry, for `POSITION_TTL`
--   {'NOTHING'}

local name    = ARGV[4]
local id      = ARGV[5] -- of the queue entry or the lease
local call    = ARGV[6] -- id of the AcquireLock call
local request = ARGV[7] -- request id or empty; its entry may have had another id before
local scope   = ARGV[8] -- 'unclaimed': not a claimed hold; 'keep': not the queue entry; or 'all'

local refused = pass_gate()
if refused then
  return refused
end
local known = request_of(request)
id = known and known.id or id
local hold, waiter = hold_of(name), waiter_of(id)
local held = hold and hold.lease == id and hold.call == call and (hold.offered or scope ~= 'unclaimed')
local queued = waiter and waiter.call == call
if not held and not queued then
  return {'NOTHING'}
end

if queued and scope == 'keep' then
  waiter.absent, waiter.ends = true, math.min(waiter.ends, clock + POSITION_TTL)
  put_waiter(id, waiter)
  if held then
    drop_hold(name)
    offer_next(name)
  end
  return {'KEPT'}
end

local position = 0
if queued then
  position = redis.call('ZLEXCOUNT', QUEUE, '[' .. name .. '\0', '[' .. queue_member(id, waiter))
  drop_waiter(id, waiter)
end
forget_request((held and hold or waiter).request)
if held then
  drop_hold(name)
  offer_next(name)
end
return {'CANCELLED', position, held and {} or holder_view(hold)}
