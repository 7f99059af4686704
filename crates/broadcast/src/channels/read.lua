#!lua flags=no-writes
-- Reads a page of a channel together with where the channel stands.
-- It is what follows `after` in the epoch the reader is in; from the oldest kept on, if the reader is in another epoch
-- or ahead of the head: it has to begin anew then. What is too old is not there.
-- Returns {epoch, head, oldest, time, t, b, t, b, ...}: `oldest` is the first offset that is kept, head + 1 if none is;
-- the page begins with the later of after + 1 and oldest. A channel that is not there, or was written in another reign
-- of the server, has an empty epoch.

local meta      = KEYS[1] -- hash: epoch, reign, head, time (us, of the newest)
local stream    = KEYS[2] -- stream: ids <offset>-0, fields t (us, when published) and b (the body)
local expected  = ARGV[1] -- epoch the reader is in; empty: none
local after     = tonumber(ARGV[2]) -- offset the reader has read up to
local max_count = tonumber(ARGV[3]) -- most messages; 0 asks only where the channel stands
local max_bytes = tonumber(ARGV[4]) -- most bytes of messages, but at least one message
local max_age   = tonumber(ARGV[5]) -- ms a message is kept

-- Messages are fetched a few at a time, so that large ones are not fetched in vain.
local CHUNK = 16
-- More than epoch, offset and time will add to a body.
local PLACE_BYTES = 64

local function id(offset)
  return string.format('%.0f-0', offset)
end

local function number(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

local function is_kept(entry, since)
  return tonumber(entry[2][2]) >= since
end

local reign = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local epoch, written, head, time = unpack(redis.call('HMGET', meta, 'epoch', 'reign', 'head', 'time'))
if written ~= reign then
  return {'', 0, 1, 0}
end
head = tonumber(head)

-- Times do not go back within an epoch: the first that is kept is found by halving.
local now = redis.call('TIME')
local since = tonumber(now[1]) * 1000000 + tonumber(now[2]) - max_age * 1000
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local oldest = head + 1
if first and is_kept(first, since) then
  oldest = number(first)
elseif first then
  local gone = number(first)
  while oldest - gone > 1 do
    local middle = math.floor((gone + oldest) / 2)
    local entry = redis.call('XRANGE', stream, id(middle), '+', 'COUNT', 1)[1]
    if entry and is_kept(entry, since) then
      oldest = middle
    else
      gone = middle
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
    bytes = bytes + #entry[2][4] + PLACE_BYTES
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
