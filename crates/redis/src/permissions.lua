#!lua flags=no-writes
-- Compares the permissions of the calling user with those that a service needs.
-- Returns the missing ones: commands as in ARGV; 'K' for the pattern of keys, 'C' for that of
-- channels.

local example = {K = ARGV[1], C = ARGV[2]} -- a key and a channel of the service
-- ARGV[3], ARGV[4], ...: whole commands, with K for the key and C for the channel. Redis 7.0
-- crashes if it has to check a command with too few arguments.

local denied, usable, others = {K = {}, C = {}}, {}, {}
for i = 3, #ARGV do
  local words, kind = {}, nil
  for word in string.gmatch(ARGV[i], '%S+') do
    kind = example[word] and word or kind
    words[#words + 1] = example[word] or word
  end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if known and allowed then
    usable[kind or ''] = true
  else
    table.insert(kind and denied[kind] or others, ARGV[i])
  end
end

local missing = others
local function add(commands)
  for _, command in ipairs(commands) do
    missing[#missing + 1] = command
  end
end

-- A pattern is granted if one command may use it. Otherwise an error of Redis names what is missing
-- for keys: the pattern or the commands. There is no such error for channels.
local reply = #denied.K > 0 and not usable.K and redis.pcall('GET', example.K)
if type(reply) == 'table' and reply.err and string.find(reply.err, ' key') then
  missing[#missing + 1] = 'K'
else
  add(denied.K)
end
add(denied.C)
if #denied.C > 0 and not usable.C then
  missing[#missing + 1] = 'C'
end
return missing
