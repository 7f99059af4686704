-- Unlinks values that newer commits made outdated, and the leases of readers that may have read
-- Postgres before these commits. Each unlinked value costs a later read of Postgres. In bulk that
-- is cheaper than to apply every write.
-- Returns 1 if done, 3 if the server's incarnation is not that of the keys: then nothing is done.

-- KEYS: values and leases, in any order
local incarnation = ARGV[1] -- [hex] first 10 digits of the incarnation in the keys

if not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. incarnation, 1, true) then
  return 3
end
for _, key in ipairs(KEYS) do
  redis.call('UNLINK', key)
end
return 1
