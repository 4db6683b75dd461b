-- Reconciliation: what the registers reported, as it came, and the breaks between that and the ledger.

-- Files of registers. A file counts when all its parts are there: then it gets the next `number` and `loaded_at`, once.
-- Of several reports for a terminal's day, the one of the file with the highest number counts; all are kept.
-- `content` is 1 for Z reports and 2 for single receipts.
CREATE TABLE server.register_file (
    file_id    uuid PRIMARY KEY,
    sha256     bytea NOT NULL UNIQUE CHECK (length(sha256) = 32),
    content    smallint NOT NULL CHECK (content IN (1, 2)),
    file_name  text NOT NULL,
    parts      integer NOT NULL CHECK (parts > 0),
    loaded_by  text NOT NULL,
    begun_at   timestamptz NOT NULL,
    number     bigint UNIQUE,
    loaded_at  timestamptz,
    CHECK ((number IS NULL) = (loaded_at IS NULL))
);
COMMENT ON COLUMN server.register_file.file_id IS 'The first 16 bytes of the SHA-256 of the file.';

CREATE TABLE server.register_file_part (
    file_id uuid NOT NULL REFERENCES server.register_file,
    part    integer NOT NULL CHECK (part > 0),
    rows    integer NOT NULL,
    PRIMARY KEY (file_id, part)
);

-- Z reports as loaded. Null stands for what the register does not say. `void_numbers` reads `17 25-27`.
CREATE TABLE server.z_report (
    file_id                uuid NOT NULL REFERENCES server.register_file,
    line                   integer NOT NULL,
    store_id               text NOT NULL,
    terminal_id            text NOT NULL,
    business_date          date NOT NULL,
    receipts               bigint NOT NULL,
    first_number           bigint,
    last_number            bigint,
    gross_minor            bigint,
    discounts_minor        bigint,
    turnover_minor         bigint,
    money_minor            bigint,
    points_money_minor     bigint,
    points_earned_minor    bigint,
    points_spent_minor     bigint,
    returns                bigint,
    returns_turnover_minor bigint,
    returns_money_minor    bigint,
    voids                  bigint,
    void_numbers           text NOT NULL,
    PRIMARY KEY (file_id, store_id, terminal_id, business_date),
    CHECK ((first_number IS NULL) = (last_number IS NULL) AND first_number <= last_number)
);

CREATE INDEX z_report_day ON server.z_report (business_date, store_id);

-- Single receipts as loaded; a number may stand twice, which is a break of its own. `kind` counts as the API's
-- RegisterReceiptKind does.
CREATE TABLE server.register_receipt (
    file_id             uuid NOT NULL REFERENCES server.register_file,
    part                integer NOT NULL,
    ordinal             integer NOT NULL,
    line                integer NOT NULL,
    store_id            text NOT NULL,
    terminal_id         text NOT NULL,
    business_date       date NOT NULL,
    receipt_number      bigint NOT NULL,
    kind                smallint NOT NULL CHECK (kind BETWEEN 1 AND 3),
    gross_minor         bigint,
    discounts_minor     bigint,
    turnover_minor      bigint,
    money_minor         bigint,
    points_money_minor  bigint,
    points_earned_minor bigint,
    points_spent_minor  bigint,
    PRIMARY KEY (file_id, part, ordinal)
);

CREATE INDEX register_receipt_day ON server.register_receipt (business_date, store_id);

-- How days are compared; the empty store stands for all that have no rules of their own. Zero switches off.
CREATE TABLE server.reconciliation_rules (
    store_id               text PRIMARY KEY,
    numbers_consecutive    boolean NOT NULL,
    late_after_hours       integer NOT NULL CHECK (late_after_hours >= 0),
    doubled_within_minutes integer NOT NULL CHECK (doubled_within_minutes >= 0)
);

INSERT INTO server.reconciliation_rules VALUES ('', true, 24, 10);

-- Runs, as they ended. `store_ids` is empty for all stores.
CREATE TABLE server.reconciliation_run (
    run_id        uuid PRIMARY KEY,
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz NOT NULL,
    run_by        text NOT NULL,
    from_day      date NOT NULL,
    to_day        date NOT NULL,
    store_ids     text[] NOT NULL,
    terminal_days integer NOT NULL,
    found         integer NOT NULL,
    opened        integer NOT NULL,
    resolved      integer NOT NULL
);

-- Breaks as they are now. The id is made of place, kind and subject, so every run finds it again. `kind` and `state`
-- count as the API's do; `figures` is a list of [measure, expected, found].
CREATE TABLE server.reconciliation_break (
    break_id      text COLLATE "C" PRIMARY KEY CHECK (break_id ~ '^[0-9a-f]{16}$'),
    store_id      text NOT NULL,
    terminal_id   text NOT NULL,
    business_date date NOT NULL,
    kind          smallint NOT NULL CHECK (kind BETWEEN 1 AND 7),
    subject       text NOT NULL,
    receipt_count bigint NOT NULL,
    numbers       text NOT NULL,
    figures       jsonb NOT NULL,
    detail        text NOT NULL,
    state         smallint NOT NULL CHECK (state BETWEEN 1 AND 4),
    opened_at     timestamptz NOT NULL,
    changed_at    timestamptz NOT NULL,
    worked_by     text NOT NULL,
    note          text NOT NULL,
    events        integer NOT NULL CHECK (events > 0),
    UNIQUE (store_id, terminal_id, business_date, kind, subject)
);

CREATE INDEX reconciliation_break_page ON server.reconciliation_break (business_date, break_id);
CREATE INDEX reconciliation_break_unresolved
    ON server.reconciliation_break (business_date, break_id) WHERE state <> 4;

-- The history of breaks, never changed. `run_id` is null for what a person did; `change` counts as the API's
-- BreakChange does.
CREATE TABLE server.reconciliation_event (
    break_id      text COLLATE "C" NOT NULL REFERENCES server.reconciliation_break,
    number        integer NOT NULL CHECK (number > 0),
    at            timestamptz NOT NULL,
    by            text NOT NULL,
    run_id        uuid,
    change        smallint NOT NULL CHECK (change BETWEEN 1 AND 7),
    state         smallint NOT NULL CHECK (state BETWEEN 1 AND 4),
    note          text NOT NULL,
    receipt_count bigint NOT NULL,
    figures       jsonb NOT NULL,
    PRIMARY KEY (break_id, number)
);

-- What came from registers and what was done stays as it was, whoever asks.
CREATE FUNCTION server.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of server.% are added and never changed', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', HINT = 'Load a corrected file instead.';
END $$;

CREATE TRIGGER z_report_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON server.z_report
FOR EACH STATEMENT EXECUTE FUNCTION server.refuse_change();
CREATE TRIGGER register_receipt_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON server.register_receipt
FOR EACH STATEMENT EXECUTE FUNCTION server.refuse_change();
CREATE TRIGGER reconciliation_event_is_append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON server.reconciliation_event
FOR EACH STATEMENT EXECUTE FUNCTION server.refuse_change();
CREATE TRIGGER reconciliation_run_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON server.reconciliation_run
FOR EACH STATEMENT EXECUTE FUNCTION server.refuse_change();

GRANT ALL ON server.register_file, server.register_file_part, server.z_report, server.register_receipt,
    server.reconciliation_rules, server.reconciliation_run, server.reconciliation_break, server.reconciliation_event
    TO tallypoint_owner;
GRANT SELECT ON server.register_file, server.register_file_part, server.z_report, server.register_receipt,
    server.reconciliation_rules, server.reconciliation_run, server.reconciliation_break, server.reconciliation_event
    TO tallypoint_writer, tallypoint_reader;
-- What registers reported, runs and history are only ever added to.
GRANT INSERT ON server.register_file, server.register_file_part, server.z_report, server.register_receipt,
    server.reconciliation_run, server.reconciliation_event TO tallypoint_writer;
GRANT UPDATE (number, loaded_at) ON server.register_file TO tallypoint_writer;
GRANT INSERT, UPDATE ON server.reconciliation_rules, server.reconciliation_break TO tallypoint_writer;
