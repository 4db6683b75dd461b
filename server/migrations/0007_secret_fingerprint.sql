-- What shows that a service has the secret of this database: a keyed hash of a fixed text. With another secret no card,
-- no phone and no access key would be found, and new members would get hashes that fit nothing.
CREATE TABLE server.secret_fingerprint (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
    kept_at     timestamptz NOT NULL DEFAULT now()
);

GRANT ALL ON server.secret_fingerprint TO tallypoint_owner;
-- Kept once: whoever wants another secret needs the owner's rights.
GRANT SELECT, INSERT ON server.secret_fingerprint TO tallypoint_writer;
