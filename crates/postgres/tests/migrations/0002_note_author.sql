-- Who wrote a note.
ALTER TABLE note ADD COLUMN author text NOT NULL DEFAULT '';
