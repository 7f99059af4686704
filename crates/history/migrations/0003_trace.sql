-- W3C `traceparent` of the append; the messages are published within that trace.
ALTER TABLE outbox
    ADD COLUMN trace_parent text; -- NULL: no trace
