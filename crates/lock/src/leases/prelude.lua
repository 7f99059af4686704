-- What all scripts share: the keys, the gate, the clock, and how a lock passes from one holder to the next.
--
-- The keys are fixed, none is made per lock, so that each script declares all that it may touch. None has an expiry: Redis
-- takes that by the wall clock of its host, which may jump. What ends by itself stands in `due`, by the logical clock.
--
-- A script begins with `open`. It changes nothing before all is checked, but for the clock, and for the end of what is over
-- anyway: each of these is whole in itself. Every script is safe to run twice, and late.

local META      = KEYS[1] -- hash: epoch, reign, seq, arrivals, clock, last, quarantine
local HOLDS     = KEYS[2] -- hash: name -> {lease, call, instance, owner, seq, ttl, since, ends, offered, request}
local QUEUE     = KEYS[3] -- sorted set, all scores 0: name, NUL, arrival as 14 hex digits, id
local WAITERS   = KEYS[4] -- hash: id -> {name, arrival, call, instance, owner, ttl, since, ends, missed, request}
local DUE       = KEYS[5] -- sorted set by logical ms: 'h' and the name of a hold, 'w' and the id of a waiter
local REQUESTS  = KEYS[6] -- hash: request id -> {fingerprint, id, seq once claimed}
local ENDED     = KEYS[7] -- sorted set by logical ms: request ids whose hold is over
local INSTANCES = KEYS[8] -- hash: instance -> logical ms when it was heard last
local EPOCH     = ARGV[1] -- [int]  the caller's epoch
local NEWS      = ARGV[2] -- [text] what the channel of an instance begins with
local ENDED_MAX = tonumber(ARGV[3]) -- most ended requests that are remembered

local CLAIM_TIME = 1500          -- ms an offer stands: a claim takes one round trip, and may be tried again after a re-read
local SILENCE    = 1500          -- ms without a sign of life after which an instance is passed over: it gives four a second
local STEP_MAX   = 1000          -- ms the clock goes on at most between two scripts: what the grace is for
local REMEMBERED = 600000        -- ms a request is remembered after the end of its hold
local SEQ_END    = 2^40 - 2^20   -- no script begins at or above it and none gives a million: each seq has its 40 bits
local BATCH      = 50            -- waiters looked at together

local clock, quarantine, seq -- logical ms; until when nobody is granted anything; the last one given

local function reign()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end

-- The gate: lets a script pass if what is here was made in the present reign of this server, and in the caller's epoch.
-- Returns what to answer if not. Then the clock goes on, unless time jumped: by as much as it did, and at most STEP_MAX.
local function open(read_only)
  local meta = redis.call('HMGET', META, 'epoch', 'reign', 'seq', 'clock', 'last', 'quarantine')
  if not meta[1] or meta[2] ~= reign() or tonumber(meta[3]) >= SEQ_END then
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
  if step ~= 0 and not read_only then -- a busy server runs twenty scripts in a millisecond: one of them has to
    redis.call('HSET', META, 'clock', clock, 'last', now)
  end
end

-- How much longer than its caller believes a lease stands: clocks that run 1 % apart, and one jump below STEP_MAX.
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

local function record_of(request)
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

-- Names have no NUL, so the waiters of one stand together, in order of arrival.
local function member(id, waiter)
  return waiter.name .. '\0' .. string.format('%014x', waiter.arrival) .. id
end

local function drop_waiter(id, waiter)
  redis.call('ZREM', QUEUE, member(id, waiter))
  redis.call('HDEL', WAITERS, id)
  redis.call('ZREM', DUE, 'w' .. id)
end

local function waiting(name)
  return redis.call('ZLEXCOUNT', QUEUE, '[' .. name .. '\0', '(' .. name .. '\1')
end

local function remember(request, fingerprint, id, given)
  if request ~= '' then
    redis.call('HSET', REQUESTS, request, cmsgpack.pack({fingerprint = fingerprint, id = id, seq = given}))
  end
end

-- Forgets a request that came to nothing: a repeat of it is a new one.
local function forget(request)
  if request ~= '' then
    redis.call('HDEL', REQUESTS, request)
  end
end

-- Begins to forget a request whose hold is over, and forgets the oldest at once if there are too many.
local function retire(request)
  if request == '' then
    return
  end
  redis.call('ZADD', ENDED, clock + REMEMBERED, request)
  while redis.call('ZCARD', ENDED) > ENDED_MAX do
    redis.call('HDEL', REQUESTS, redis.call('ZPOPMIN', ENDED)[1])
  end
end

-- Tells an instance that one of its calls was made an offer, or lost its place to a repeat. May be lost.
local function tell(what, id, entry)
  redis.call('PUBLISH', NEWS .. entry.instance, what .. ' ' .. entry.call .. ' ' .. id .. ' ' .. entry.name)
end

-- Makes a waiter an offer: a hold in which nobody believes, until its call claims it. The waiter keeps its place.
local function offer(id, waiter)
  seq = redis.call('HINCRBY', META, 'seq', 1)
  local hold = {
    lease = id, call = waiter.call, instance = waiter.instance, owner = waiter.owner, seq = seq, ttl = waiter.ttl,
    since = clock, ends = clock + CLAIM_TIME, offered = true, request = waiter.request,
  }
  put_hold(waiter.name, hold)
  tell('offer', id, waiter)
  return hold
end

-- Offers a lock that nobody holds to the first waiter whose instance lives; returns the offer, nil if there is nobody.
-- Who let an offer pass comes after all others, until its call is heard of again. Nobody loses his place.
local function offer_next(name)
  local live, second, from = {}, nil, '[' .. name .. '\0'
  repeat
    local members = redis.call('ZRANGEBYLEX', QUEUE, from, '(' .. name .. '\1', 'LIMIT', 0, BATCH)
    for _, place in ipairs(members) do
      local id = string.sub(place, #name + 16) -- behind the name, NUL and 14 digits
      local waiter = waiter_of(id)
      local instance = waiter.instance
      if live[instance] == nil then
        local heard = redis.call('HGET', INSTANCES, instance)
        live[instance] = heard and clock - heard <= SILENCE or false
      end
      if live[instance] and not waiter.missed then
        return offer(id, waiter)
      elseif live[instance] and not second then
        second = {id, waiter}
      end
    end
    from = '(' .. (members[#members] or '')
  until #members < BATCH
  return second and offer(second[1], second[2]) or nil
end

-- Starts the lease of a hold: from now on its caller believes in it. One that was offered leaves the queue.
local function start(name, hold)
  if hold.offered then
    hold.offered, hold.since = false, clock
    local waiter = waiter_of(hold.lease)
    if waiter then
      drop_waiter(hold.lease, waiter)
    end
    local record = record_of(hold.request)
    if record then
      remember(hold.request, record.fingerprint, hold.lease, hold.seq)
    end
  end
  hold.ends = clock + hold.ttl + grace(hold.ttl)
  put_hold(name, hold)
end

-- Ends a hold whose time is over. An offer that was let pass leaves its waiter in the queue.
local function run_out(name, hold)
  drop_hold(name)
  if not hold.offered then
    retire(hold.request)
    return
  end
  local waiter = waiter_of(hold.lease)
  if waiter then
    waiter.missed = true
    put_waiter(hold.lease, waiter)
  end
end

-- What is left of what the holder was told.
local function remaining(hold)
  return math.max(0, hold.ends - grace(hold.ttl) - clock)
end

-- A hold as others see it: {owner, seq, ms held, ms remaining}; {} if there is none, or one that is only offered.
local function seen(hold)
  if not hold or hold.offered then
    return {}
  end
  return {hold.owner, hold.seq, clock - hold.since, remaining(hold)}
end
