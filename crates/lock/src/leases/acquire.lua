-- Grants a lock, or queues for it, or says who holds it.
--
-- What is ours already under this id, or under this request, is not asked for anew: a hold is renewed, an offer claimed, a
-- place in the queue kept and taken over by this call. A try that was in vain is not remembered.
-- Returns one of
--   {'GRANTED', id, seq, ms of the lease, 1 if an earlier call had been granted it}
--   {'WAITING', id}                     this call has a place in the queue
--   {'HELD', waiting, who (see `seen`)} it did not want to wait
--   {'QUARANTINE', ms left}             nobody is granted anything
--   {'LEASE_OVER', seq}                 the hold of this request is over
--   {'TAKEN'}                           a repeat of the request has what this call asks for again
--   {'REUSED'}                          the request was another one
--   {'QUEUE_FULL'}

local name        = ARGV[4]
local id          = ARGV[5]            -- of the lease, or of the place in the queue
local call        = ARGV[6]            -- who asks, and hears of it
local instance    = ARGV[7]            -- where that runs
local owner       = ARGV[8]
local ttl         = tonumber(ARGV[9])  -- ms
local wait        = tonumber(ARGV[10]) -- ms still to wait, 0: not at all
local waited      = tonumber(ARGV[11]) -- ms the call has waited already
local request     = ARGV[12]           -- its name, empty: it has none
local fingerprint = ARGV[13]           -- of what was asked for
local queue_max   = tonumber(ARGV[14]) -- most waiters of one lock
local again       = ARGV[15] == '1'    -- on behalf of a call that lost its place with Redis: no repeat, but perhaps late

local shut = open()
if shut then
  return shut
end
local record = record_of(request)
if record and record.fingerprint ~= fingerprint then
  return {'REUSED'}
end
id = record and record.id or id
local hold = hold_of(name)
if hold and hold.ends <= clock then
  run_out(name, hold)
  hold = offer_next(name)
end

local function granted(deduplicated)
  start(name, hold)
  return {'GRANTED', id, hold.seq, ttl, deduplicated and 1 or 0}
end

local waiter = waiter_of(id)
local other = hold and hold.lease == id and hold.call ~= call or waiter and waiter.call ~= call
if again and other then
  return {'TAKEN'}
end
if hold and hold.lease == id and not hold.offered then
  if other then
    hold.call = '' -- two calls were told of it: neither's cancel may end what the other's caller believes in
  end
  return granted(other)
end
if waiter then
  if waiter.call ~= call then
    tell('taken', id, waiter)
  end
  waiter.call, waiter.instance, waiter.missed = call, instance, nil
  waiter.ends = clock + wait + grace(wait)
  put_waiter(id, waiter)
  redis.call('HSET', INSTANCES, instance, clock)
elseif record and record.seq then
  return {'LEASE_OVER', record.seq}
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
  remember(request, fingerprint, id, seq)
  return granted(false)
end
if wait == 0 then
  if waiter then
    drop_waiter(id, waiter)
    forget(request)
  end
  return {'HELD', waiting(name), seen(hold)}
end
if waiter then
  return {'WAITING', id}
end
if waiting(name) >= queue_max then
  return {'QUEUE_FULL'}
end
waiter = {
  name = name, arrival = redis.call('HINCRBY', META, 'arrivals', 1), call = call, instance = instance, owner = owner,
  ttl = ttl, since = clock - waited, ends = clock + wait + grace(wait), request = request,
}
redis.call('ZADD', QUEUE, 0, member(id, waiter))
put_waiter(id, waiter)
remember(request, fingerprint, id)
redis.call('HSET', INSTANCES, instance, clock)
return {'WAITING', id}
