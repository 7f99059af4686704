-- Grants a lock, queues the call, or returns the holder.
--
-- State that the call or its request already has is kept: a hold is renewed, an offer claimed, a
-- queue entry kept and taken over by this call. An acquire without a grant is not remembered.
-- Returns one of
--   {'GRANTED', id, seq, ms of the lease, 1 if an earlier call was granted it}
--   {'WAITING', id}                           the call is queued
--   {'HELD', waiters, holder (`holder_view`)} the lock is held, and the call does not wait
--   {'QUARANTINE', ms left}                   nothing is granted
--   {'LEASE_OVER', seq}                       the hold of this request is over
--   {'TAKEN_OVER'}                            a retry owns the entry of the requeued call
--   {'REUSED'}                                the request id belongs to a different request
--   {'QUEUE_FULL'}                            the lock has the most waiters it may have

local name        = ARGV[4]
local id          = ARGV[5]            -- of the lease or the queue entry
local call        = ARGV[6]            -- id of the calling AcquireLock
local instance    = ARGV[7]            -- instance that serves the call
local owner       = ARGV[8]
local ttl         = tonumber(ARGV[9])  -- ms
local wait        = tonumber(ARGV[10]) -- ms left to wait, 0: not at all
local waited      = tonumber(ARGV[11]) -- ms since the call's arrival
local request     = ARGV[12]           -- request id, empty without one
local fingerprint = ARGV[13]           -- of the request
local queue_max   = tonumber(ARGV[14]) -- most waiters of one lock
local requeued    = ARGV[15] == '1'    -- for a call whose entry was lost: no retry, may be late

local refused = pass_gate()
if refused then
  return refused
end
local known = request_of(request)
if known and known.fingerprint ~= fingerprint then
  return {'REUSED'}
end
id = known and known.id or id
local hold = hold_of(name)
if hold and hold.ends <= clock then
  end_hold(name, hold)
  hold = offer_next(name)
end

local function granted(deduplicated)
  start_lease(name, hold)
  return {'GRANTED', id, hold.seq, ttl, deduplicated and 1 or 0}
end

local waiter = waiter_of(id)
local owned_by_other = hold and hold.lease == id and hold.call ~= call or waiter and waiter.call ~= call
if requeued and owned_by_other then
  return {'TAKEN_OVER'}
end
if hold and hold.lease == id and not hold.offered then
  if owned_by_other then
    hold.call = '' -- granted to two calls: the cancel of one must not end the hold of the other
  end
  return granted(owned_by_other)
end
if waiter then
  if waiter.call ~= call then
    notify('taken', id, waiter)
  end
  waiter.call, waiter.instance, waiter.missed, waiter.absent = call, instance, nil, nil
  waiter.ends = clock + wait + grace(wait)
  put_waiter(id, waiter)
  redis.call('HSET', INSTANCES, instance, clock)
elseif known and known.seq then
  return {'LEASE_OVER', known.seq}
elseif quarantine > clock then
  return {'QUARANTINE', quarantine - clock}
end

hold = hold or offer_next(name)
if hold and hold.lease == id then
  hold.call, hold.instance = call, instance
  return granted(false)
end
if not hold then
  seq = redis.call('HINCRBY', META, 'seq', 1)
  hold = {
    lease = id, call = call, instance = instance, owner = owner, seq = seq, ttl = ttl, since = clock, offered = false,
    request = request,
  }
  remember_request(request, fingerprint, id, seq)
  return granted(false)
end
if wait == 0 then
  if waiter then
    drop_waiter(id, waiter)
    forget_request(request)
  end
  return {'HELD', waiter_count(name), holder_view(hold)}
end
if waiter then
  return {'WAITING', id}
end
if waiter_count(name) >= queue_max then
  return {'QUEUE_FULL'}
end
waiter = {
  name = name, arrival = redis.call('HINCRBY', META, 'arrivals', 1), call = call, instance = instance, owner = owner,
  ttl = ttl, since = clock - waited, ends = clock + wait + grace(wait), request = request,
}
redis.call('ZADD', QUEUE, 0, queue_member(id, waiter))
put_waiter(id, waiter)
remember_request(request, fingerprint, id)
redis.call('HSET', INSTANCES, instance, clock)
return {'WAITING', id}
