-- Forgets values of which newer versions were committed, and kills the leases of readers that may have read before. Costs a
-- read of Postgres for each, and less than bringing them up to date where there are very many.
-- Returns 1 if done, 3 if this is another reign than that of the keys: then nothing is done.

-- KEYS: values and leases, in any order
local reign = ARGV[1] -- first 10 hex digits of the reign that the keys are of

if not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. reign, 1, true) then
  return 3
end
for _, key in ipairs(KEYS) do
  redis.call('UNLINK', key)
end
return 1
