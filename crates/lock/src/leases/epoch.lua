-- Says in which epoch this Redis is, and in which reign. Passes no gate: what is here may be of an earlier reign.
-- Returns {reign of this server, epoch or '', reign in which it began or '', the last seq given or ''}.

local meta = redis.call('HMGET', META, 'epoch', 'reign', 'seq')
return {reign(), meta[1] or '', meta[2] or '', meta[3] or ''}
