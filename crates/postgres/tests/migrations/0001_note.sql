-- Notes, for the tests of this crate.
CREATE TABLE note (
    id   bigint PRIMARY KEY,
    body text NOT NULL CONSTRAINT note_body_once UNIQUE
);
