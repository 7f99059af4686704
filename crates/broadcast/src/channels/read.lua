#!lua flags=no-writes
-- Reads a page of a channel together with the state of the channel. The page holds the messages
-- behind `after` in the reader's epoch. If the reader is in another epoch, or ahead of the head,
-- the page starts at the oldest message kept. Expired messages are left out.
-- Returns {epoch, head, oldest, time, t, b, t, b, ...}. `oldest` is the first offset that is kept,
-- head + 1 if none is; the page begins at the larger of after + 1 and oldest. The epoch is empty if
-- the channel is absent, or of another incarnation of Redis.

local meta      = KEYS[1] -- hash: epoch, incarnation, head, time (us, of the newest)
local stream    = KEYS[2] -- stream: ids <offset>-0, fields t (us, publish time) and b (body)
local expected  = ARGV[1] -- the reader's epoch; empty: none
local after     = tonumber(ARGV[2]) -- offset of the last message that the reader has
local max_count = tonumber(ARGV[3]) -- most messages; 0 reads only the state
local max_bytes = tonumber(ARGV[4]) -- most bytes of messages; a first message may be larger
local max_age   = tonumber(ARGV[5]) -- ms to keep a message

-- Messages per XRANGE: few, so that few large ones are fetched beyond max_bytes.
local CHUNK = 16
-- Upper bound of the bytes that epoch, offset and time add to a body.
local POSITION_BYTES = 64

local function id(offset)
  return string.format('%.0f-0', offset)
end

local function number(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

local function is_kept(entry, since)
  return tonumber(entry[2][2]) >= since
end

local incarnation = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local epoch, written_in, head, time = unpack(redis.call('HMGET', meta, 'epoch', 'incarnation', 'head', 'time'))
if written_in ~= incarnation then
  return {'', 0, 1, 0}
end
head = tonumber(head)

-- Times never decrease within an epoch, so a binary search finds the first message that is kept.
local now = redis.call('TIME')
local since = tonumber(now[1]) * 1000000 + tonumber(now[2]) - max_age * 1000
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local oldest = head + 1
if first and is_kept(first, since) then
  oldest = number(first)
elseif first then
  local expired = number(first)
  while oldest - expired > 1 do
    local middle = math.floor((expired + oldest) / 2)
    local entry = redis.call('XRANGE', stream, id(middle), '+', 'COUNT', 1)[1]
    if entry and is_kept(entry, since) then
      oldest = middle
    else
      expired = middle
    end
  end
end

if expected ~= epoch or after > head then
  after = 0
end
local page = {epoch, head, oldest, tonumber(time)}
local offset, bytes = math.max(after + 1, oldest), 0
while offset <= head and (#page - 4) / 2 < max_count do
  local count = math.min(CHUNK, max_count - (#page - 4) / 2)
  local entries = redis.call('XRANGE', stream, id(offset), '+', 'COUNT', count)
  for _, entry in ipairs(entries) do
    bytes = bytes + #entry[2][4] + POSITION_BYTES
    if number(entry) ~= offset or (bytes > max_bytes and #page > 4) then
      return page
    end
    page[#page + 1] = tonumber(entry[2][2])
    page[#page + 1] = entry[2][4]
    offset = offset + 1
  end
  if #entries == 0 then
    return page
  end
end
return page
