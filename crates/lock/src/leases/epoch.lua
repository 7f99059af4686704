-- Returns the stored epoch and the incarnation of this server, without the gate: the stored state
-- may be of an earlier incarnation.
-- Returns {incarnation of this server, epoch or '', its incarnation or '', last seq or ''}.

local meta = redis.call('HMGET', META, 'epoch', 'incarnation', 'seq')
return {incarnation(), meta[1] or '', meta[2] or '', meta[3] or ''}
