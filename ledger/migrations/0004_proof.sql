-- Proof: the journal refuses changes even by its owner, and verification remembers how far it has come.

-- Entries and postings are added and never changed. The writer has no right to; this stops everybody else who means
-- well. Superusers get past it by `ALTER TABLE ... DISABLE TRIGGER` or `session_replication_role`, which nobody types
-- by mistake; what they change then, `tallypoint ledger verify` finds. Statement triggers on UPDATE, DELETE and
-- TRUNCATE cost inserts nothing.
CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of ledger.% are added and never changed', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', HINT = 'Book a correction instead.';
END $$;

CREATE TRIGGER entry_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.entry
FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

CREATE TRIGGER posting_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.posting
FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- The same for what finance has decided.
CREATE TRIGGER point_value_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.point_value
FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER close_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.close
FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER close_mark_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.close_mark
FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER close_total_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.close_total
FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- How far each book has been verified: up to entry `number`, which had this hash; up to `full_number` from the first
-- entry on. Written by the owner for all books at once, and only if all were sound.
CREATE TABLE ledger.verified (
    book        integer PRIMARY KEY,
    number      bigint NOT NULL CHECK (number >= 0),
    hash        bytea NOT NULL CHECK (length(hash) = 32),
    verified_at timestamptz NOT NULL,
    full_number bigint NOT NULL CHECK (full_number >= 0 AND full_number <= number),
    full_at     timestamptz NOT NULL
);

GRANT SELECT ON ledger.verified TO tallypoint_reader, tallypoint_writer;
GRANT ALL ON ledger.verified TO tallypoint_owner;
