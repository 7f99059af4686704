-- The trace in which the messages were appended, as W3C trace context writes it: they are published in it.
ALTER TABLE outbox
    ADD COLUMN trace_parent text; -- NULL: in none
