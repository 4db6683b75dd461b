-- What the defaults of a version are: the number of the semantics (ledger/semantics.py) with which it was published, so
-- that what its file leaves out goes on to mean what it meant then. Versions from before the numbering have 0.
ALTER TABLE server.programme_version ADD COLUMN semantics integer NOT NULL DEFAULT 0 CHECK (semantics >= 0);
ALTER TABLE server.programme_version ALTER COLUMN semantics DROP DEFAULT;
