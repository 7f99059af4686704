-- Shared by all scripts: the keys, the epoch gate, the logical clock, and the hand-over of a lock.
--
-- The keys are fixed, not one per lock, so that each script declares every key it may touch. No key
-- has an expiry: Redis expires by the wall clock of its host, which may jump. Entries expire
-- through `due`, by the logical clock.
--
-- A script begins with `pass_gate`. Before all checks have passed it changes only the clock and
-- expired entries, each of them a complete step. Every script is safe to run twice, and late.

local META      = KEYS[1] -- hash: epoch, incarnation, seq, arrivals, clock, last, quarantine
local HOLDS     = KEYS[2] -- hash: name -> hold, packed:
                    -- {lease, call, instance, owner, seq, ttl, since, ends, offered, request}
local QUEUE     = KEYS[3] -- sorted set, all scores 0: name, NUL, arrival as 14 hex digits, id
local WAITERS   = KEYS[4] -- hash: id -> waiter, packed:
                    -- {name, arrival, call, instance, owner, ttl, since, ends, missed, absent,
                    -- request}
local DUE       = KEYS[5] -- sorted set by logical ms: 'h' and name of a hold, or 'w' and waiter id
local REQUESTS  = KEYS[6] -- hash: request id -> {fingerprint, id, seq once claimed}
local ENDED     = KEYS[7] -- sorted set by logical ms: request ids whose hold is over
local INSTANCES = KEYS[8] -- hash: instance -> logical ms of its last heartbeat
local EPOCH     = ARGV[1] -- [int]  the caller's epoch
local CHANNELS  = ARGV[2] -- [text] prefix of the instances' channels
local ENDED_MAX = tonumber(ARGV[3]) -- most ended requests that are remembered

local OFFER_TTL        = 1500   -- ms an offer lasts: a claim takes one round trip, plus a retry
local POSITION_TTL     = 2000   -- ms a queue entry whose call has ended waits for a retry
local INSTANCE_TIMEOUT = 1500   -- ms without a heartbeat (4 a second) until an instance is dead
local STEP_MAX         = 1000   -- most ms the clock advances between two scripts; see grace
local REQUEST_TTL      = 600000 -- ms a request is remembered after the end of its hold
-- Scripts refuse from this seq on. One script grants fewer than 2^20, so each seq fits 40 bits.
local SEQ_END          = 2^40 - 2^20
local SCAN_BATCH       = 50     -- waiters read at once

local clock, quarantine, seq -- logical ms; end of the quarantine in logical ms; last seq granted

local function incarnation()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end

-- The gate: lets a script pass if the stored state is of the present incarnation of this server and
-- of the caller's epoch; otherwise returns the refusal. Then the clock advances with the server's
-- time, unless that went back or jumped by more than STEP_MAX. So a large jump, or a server that
-- hangs, makes leases longer; one smaller jump shortens them by no more than the grace.
local function pass_gate(read_only)
  local meta = redis.call('HMGET', META, 'epoch', 'incarnation', 'seq', 'clock', 'last', 'quarantine')
  if not meta[1] or meta[2] ~= incarnation() or tonumber(meta[3]) >= SEQ_END then
    return {'NO_EPOCH'}
  end
  if meta[1] ~= EPOCH then
    return {'OTHER_EPOCH'}
  end
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local step = now - meta[5]
  seq, clock, quarantine = tonumber(meta[3]), tonumber(meta[4]), tonumber(meta[6])
  if step >= 0 and step <= STEP_MAX then
    clock = clock + step
  end
  if step ~= 0 and not read_only then -- of twenty scripts in one millisecond, one writes the clock
    redis.call('HSET', META, 'clock', clock, 'last', now)
  end
end

-- Time by which a hold outlasts its holder's deadline: clocks that run 1 % apart, and one jump
-- below STEP_MAX.
local function grace(ttl)
  return 1000 + math.floor(ttl / 100)
end

local function unpacked(packed)
  return packed and cmsgpack.unpack(packed) or nil
end

local function hold_of(name)
  return unpacked(redis.call('HGET', HOLDS, name))
end

local function waiter_of(id)
  return unpacked(redis.call('HGET', WAITERS, id))
end

local function request_of(request)
  return request ~= '' and unpacked(redis.call('HGET', REQUESTS, request)) or nil
end

local function put_hold(name, hold)
  redis.call('HSET', HOLDS, name, cmsgpack.pack(hold))
  redis.call('ZADD', DUE, hold.ends, 'h' .. name)
end

local function drop_hold(name)
  redis.call('HDEL', HOLDS, name)
  redis.call('ZREM', DUE, 'h' .. name)
end

local function put_waiter(id, waiter)
  redis.call('HSET', WAITERS, id, cmsgpack.pack(waiter))
  redis.call('ZADD', DUE, waiter.ends, 'w' .. id)
end

-- Names contain no NUL, so the waiters of a lock are adjacent, in order of arrival.
local function queue_member(id, waiter)
  return waiter.name .. '\0' .. string.format('%014x', waiter.arrival) .. id
end

local function drop_waiter(id, waiter)
  redis.call('ZREM', QUEUE, queue_member(id, waiter))
  redis.call('HDEL', WAITERS, id)
  redis.call('ZREM', DUE, 'w' .. id)
end

local function waiter_count(name)
  return redis.call('ZLEXCOUNT', QUEUE, '[' .. name .. '\0', '(' .. name .. '\1')
end

local function remember_request(request, fingerprint, id, claimed_seq)
  if request ~= '' then
    redis.call('HSET', REQUESTS, request, cmsgpack.pack({fingerprint = fingerprint, id = id, seq = claimed_seq}))
  end
end

-- Forgets a request without a grant: a retry of it is a new request.
local function forget_request(request)
  if request ~= '' then
    redis.call('HDEL', REQUESTS, request)
  end
end

-- Schedules the removal of a request whose hold is over, and removes the oldest above the limit.
local function retire_request(request)
  if request == '' then
    return
  end
  redis.call('ZADD', ENDED, clock + REQUEST_TTL, request)
  while redis.call('ZCARD', ENDED) > ENDED_MAX do
    redis.call('HDEL', REQUESTS, redis.call('ZPOPMIN', ENDED)[1])
  end
end

-- Notifies an instance that one of its calls has an offer, or was taken over by a retry. A
-- notification may be lost.
local function notify(what, id, entry)
  redis.call('PUBLISH', CHANNELS .. entry.instance, what .. ' ' .. entry.call .. ' ' .. id .. ' ' .. entry.name)
end

-- Offers the lock to a waiter: a hold that is not valid until its call claims it. The waiter stays
-- queued.
local function offer(id, waiter)
  seq = redis.call('HINCRBY', META, 'seq', 1)
  local hold = {
    lease = id, call = waiter.call, instance = waiter.instance, owner = waiter.owner, seq = seq, ttl = waiter.ttl,
    since = clock, ends = clock + OFFER_TTL, offered = true, request = waiter.request,
  }
  put_hold(waiter.name, hold)
  notify('offer', id, waiter)
  return hold
end

-- Offers a free lock to the first waiter whose instance is live. Returns the offer, or nil without
-- a live waiter. A waiter that missed an offer comes after all others, until its instance rechecks
-- it; it keeps its position. A waiter whose call has ended is skipped until a retry takes it over.
local function offer_next(name)
  local live, fallback, from = {}, nil, '[' .. name .. '\0'
  repeat
    local members = redis.call('ZRANGEBYLEX', QUEUE, from, '(' .. name .. '\1', 'LIMIT', 0, SCAN_BATCH)
    for _, member in ipairs(members) do
      local id = string.sub(member, #name + 16) -- after the name, NUL and 14 digits
      local waiter = waiter_of(id)
      local instance = waiter.instance
      if live[instance] == nil then
        local last_seen = redis.call('HGET', INSTANCES, instance)
        live[instance] = last_seen and clock - last_seen <= INSTANCE_TIMEOUT or false
      end
      local present = live[instance] and not waiter.absent
      if present and not waiter.missed then
        return offer(id, waiter)
      elseif present and not fallback then
        fallback = {id, waiter}
      end
    end
    from = '(' .. (members[#members] or '')
  until #members < SCAN_BATCH
  return fallback and offer(fallback[1], fallback[2]) or nil
end

-- Starts the lease of a hold: from now on its caller is the holder. An offered hold leaves the
-- queue.
local function start_lease(name, hold)
  if hold.offered then
    hold.offered, hold.since = false, clock
    local waiter = waiter_of(hold.lease)
    if waiter then
      drop_waiter(hold.lease, waiter)
    end
    local known = request_of(hold.request)
    if known then
      remember_request(hold.request, known.fingerprint, hold.lease, hold.seq)
    end
  end
  hold.ends = clock + hold.ttl + grace(hold.ttl)
  put_hold(name, hold)
end

-- Ends a hold that expired or was released. An expired offer leaves its waiter in the queue.
local function end_hold(name, hold)
  drop_hold(name)
  if not hold.offered then
    retire_request(hold.request)
    return
  end
  local waiter = waiter_of(hold.lease)
  if waiter then
    waiter.missed = true
    put_waiter(hold.lease, waiter)
  end
end

-- Time until the holder's deadline.
local function time_left(hold)
  return math.max(0, hold.ends - grace(hold.ttl) - clock)
end

-- A hold as other clients see it: {owner, seq, ms held, ms remaining}; {} without a claimed hold.
local function holder_view(hold)
  if not hold or hold.offered then
    return {}
  end
  return {hold.owner, hold.seq, clock - hold.since, time_left(hold)}
end
