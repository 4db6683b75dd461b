-- What the service keeps beside the books, as its migrations make it: the whole schema in one file, to be read.
--
-- Nothing runs this file: databases are made and brought up to date by `migrations/`, whose files never change. Whoever
-- adds a migration makes the same change here; `make schema` proves that both make the same database, and names every
-- object that differs. It stands in the ledger's database and uses its roles (`ledger/schema.sql`).
--
-- Tables of members start their primary key with `book`; the tables that lead to a book are keyed by their own
-- hash or message id. The rest is small and the same everywhere.

CREATE SCHEMA server;

-- --- Members: who they are and by what they are recognised ---

-- A member. All personal data of a member stands in this one row, so that one UPDATE erases it.
-- `status` and `card_statuses` count as the API's MemberStatus and CardStatus do.
--
-- A merged member's row stays, without personal data: that moves to the survivor's row, so that one UPDATE still
-- erases a person. `further_phones` and `further_tokens` came with merged members and recognise the survivor too.
-- `merged_from` has all who were merged into a member, directly or by way of others.
CREATE TABLE server.member (
    book           integer NOT NULL CHECK (book >= 0),
    member_id      uuid NOT NULL,
    status         smallint NOT NULL CHECK (status BETWEEN 1 AND 4),
    status_reason  text NOT NULL DEFAULT '',
    name           text NOT NULL DEFAULT '',
    birthday       date,
    language       text NOT NULL DEFAULT '',
    phone          text,
    digital_token  text,
    card_numbers   text[] NOT NULL DEFAULT '{}',
    card_statuses  smallint[] NOT NULL DEFAULT '{}',
    registered_at  timestamptz NOT NULL,
    version        integer NOT NULL CHECK (version > 0),
    further_phones text[] NOT NULL DEFAULT '{}',
    further_tokens text[] NOT NULL DEFAULT '{}',
    merged_into    uuid,
    merged_from    uuid[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (book, member_id),
    CHECK (cardinality(card_numbers) = cardinality(card_statuses)),
    CONSTRAINT member_merged_check CHECK ((status = 4) = (merged_into IS NOT NULL))
) WITH (fillfactor = 80);

-- Merged members, whose points are moved on whenever some come back.
CREATE INDEX member_merged ON server.member (book, member_id) WHERE status = 4;

-- What a register reads, led to its member: an index by keyed hash that holds no personal data. `kind` counts as
-- the API's IdentifierKind and `status` as its CardStatus do.
CREATE TABLE server.member_identifier (
    identifier_hash bytea PRIMARY KEY CHECK (length(identifier_hash) = 32),
    kind            smallint NOT NULL CHECK (kind IN (1, 2, 4)),
    status          smallint NOT NULL CHECK (status BETWEEN 1 AND 3),
    book            integer NOT NULL,
    member_id       uuid NOT NULL
);

-- Messages of administrators that changed a member: the same message changes nothing again.
CREATE TABLE server.admin_message (
    message_id   uuid PRIMARY KEY,
    content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
    book         integer NOT NULL,
    member_id    uuid NOT NULL,
    received_at  timestamptz NOT NULL
);

-- Which segments a member is in and which offers were made, one row a member. `segments` leads from a segment to the
-- load that last put the member there (empty: nobody's), `offers` from a promotion to [first day, last day], null for
-- none.
CREATE TABLE server.member_audience (
    book      integer NOT NULL CHECK (book >= 0),
    member_id uuid NOT NULL,
    segments  jsonb NOT NULL DEFAULT '{}',
    offers    jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (book, member_id)
) WITH (fillfactor = 80);

-- --- Stores, terminals, keys, the catalogue ---

-- Stores and the time zones in which their dates are judged.
CREATE TABLE server.store (
    store_id  text PRIMARY KEY,
    name      text NOT NULL,
    time_zone text NOT NULL,
    groups    text[] NOT NULL DEFAULT '{}',
    partner   text NOT NULL DEFAULT ''
);

CREATE TABLE server.terminal (
    store_id    text NOT NULL REFERENCES server.store,
    terminal_id text NOT NULL,
    PRIMARY KEY (store_id, terminal_id)
);

-- Keys of terminals and of back-office callers, as keyed hashes. `role` is the name of a role.
CREATE TABLE server.api_key (
    key_hash    bytea PRIMARY KEY CHECK (length(key_hash) = 32),
    role        text NOT NULL,
    name        text NOT NULL,
    store_id    text,
    terminal_id text,
    issued_at   timestamptz NOT NULL,
    revoked_at  timestamptz,
    FOREIGN KEY (store_id, terminal_id) REFERENCES server.terminal,
    CHECK ((role = 'TERMINAL') = (terminal_id IS NOT NULL)),
    CHECK ((store_id IS NULL) = (terminal_id IS NULL))
);

-- A terminal has at most one key that works.
CREATE UNIQUE INDEX api_key_of_terminal ON server.api_key (store_id, terminal_id) WHERE revoked_at IS NULL;

-- The catalogue. `version` is the version of the topic `products` that last changed the row.
CREATE TABLE server.product (
    sku      text PRIMARY KEY,
    category text NOT NULL,
    brand    text NOT NULL,
    tags     text[] NOT NULL,
    name     text NOT NULL,
    version  bigint NOT NULL,
    supplier text NOT NULL DEFAULT ''
);

CREATE INDEX product_version ON server.product (version);

-- What shows that a service has the secret of this database: a keyed hash of a fixed text. With another secret no card,
-- no phone and no access key would be found, and new members would get hashes that fit nothing.
CREATE TABLE server.secret_fingerprint (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
    kept_at     timestamptz NOT NULL DEFAULT now()
);

-- --- The programme, and for whom its versions count ---

-- Programme files as they were published; never changed. What the defaults of a version are: `semantics` is the number
-- of the semantics (ledger/entry/semantics.py) with which it was published, so that what its file leaves out goes on to
-- mean what it meant then. Versions from before the numbering have 0.
CREATE TABLE server.programme_version (
    version      integer PRIMARY KEY CHECK (version > 0),
    code         text NOT NULL,
    effective_at timestamptz NOT NULL,
    published_at timestamptz NOT NULL,
    text_sha256  bytea NOT NULL CHECK (length(text_sha256) = 32),
    text         text NOT NULL,
    semantics    integer NOT NULL CHECK (semantics >= 0)
);

-- What was said about for whom a version counts; never changed, only added to. For a receipt the newest row holds whose
-- `from_at` has come by the receipt's own time; null stands for what a version begins with. A version without any row
-- counts for everybody. `mode` is 1 for live and 2 for a shadow, `share_by` 1 for stores and 2 for receipts, as the
-- API's RolloutMode and RolloutBy.
CREATE TABLE server.rules_rollout (
    rollout          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version          integer NOT NULL REFERENCES server.programme_version,
    mode             smallint NOT NULL CHECK (mode IN (1, 2)),
    share_millionths integer NOT NULL CHECK (share_millionths BETWEEN 0 AND 1000000),
    share_by         smallint NOT NULL CHECK (share_by IN (1, 2)),
    from_at          timestamptz,
    set_by           text NOT NULL
);

-- A version begins once.
CREATE UNIQUE INDEX rules_rollout_beginning ON server.rules_rollout (version) WHERE from_at IS NULL;

-- What a shadow would have changed, by the store's calendar day: sums that workers add to once a second.
CREATE TABLE server.rules_shadow (
    version             integer NOT NULL REFERENCES server.programme_version,
    day                 date NOT NULL,
    store_id            text NOT NULL,
    receipts            bigint NOT NULL,
    differing           bigint NOT NULL,
    live_discount_minor bigint NOT NULL,
    discount_minor      bigint NOT NULL,
    live_points_minor   bigint NOT NULL,
    points_minor        bigint NOT NULL,
    failed              bigint NOT NULL,
    PRIMARY KEY (version, day, store_id)
);

-- --- What tells workers to load something again ---

-- One version number a topic. A write of a topic raises it first, which puts the topic's writers in a queue, so
-- that versions become visible in their order. Workers keep members' records in memory: a change of segments or
-- offers, which no entry tells of, raises `audience`.
CREATE TABLE server.config_version (
    topic   text PRIMARY KEY,
    version bigint NOT NULL
);

INSERT INTO server.config_version (topic, version)
VALUES ('stores', 0), ('products', 0), ('programme', 0), ('audience', 0);

-- --- Coupons ---

-- Coupons that were loaded or generated, in their normal form; rows are added and never changed. Coupons that receipts
-- gave stand in ledger.coupon_issued. `member_id` is whose it is, null for a bearer's. A coupon stays with the id that
-- it was given to: after a merge that is one of the survivor's ids.
CREATE TABLE server.coupon (
    code        text COLLATE "C" PRIMARY KEY,
    series      text NOT NULL,
    member_id   uuid,
    uses        smallint NOT NULL CHECK (uses > 0),
    valid_from  date,
    valid_until date
);

CREATE INDEX coupon_of_member ON server.coupon (member_id) WHERE member_id IS NOT NULL;

-- Codes and whole series that are blocked, whoever gave them. Series are few, and the same everywhere.
CREATE TABLE server.coupon_block (
    code       text COLLATE "C" PRIMARY KEY,
    blocked_by text NOT NULL,
    blocked_at timestamptz NOT NULL
);

CREATE TABLE server.coupon_series_block (
    series     text PRIMARY KEY,
    blocked_by text NOT NULL,
    blocked_at timestamptz NOT NULL
);

-- Requests that generated coupons, so that one sent again answers with the same codes. The codes are made of
-- `request_id`, `attempt` and the service's secret.
CREATE TABLE server.coupon_generation (
    request_id   uuid PRIMARY KEY,
    content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
    attempt      integer NOT NULL,
    generated_by text NOT NULL,
    generated_at timestamptz NOT NULL
);

-- --- Corrections: adjustments by hand with who asked and who approved ---

-- An adjustment of points by hand. Its request id is also the id of the message that books it, and the row and the
-- ledger's entry are written in one transaction. `state` counts as the API's AdjustmentState does.
CREATE TABLE server.adjustment_request (
    request_id         uuid PRIMARY KEY,
    content_hash       bytea NOT NULL CHECK (length(content_hash) = 32),
    book               integer NOT NULL,
    member_id          uuid NOT NULL,
    unit               text NOT NULL,
    points_minor       bigint NOT NULL CHECK (points_minor <> 0),
    reason_code        text NOT NULL,
    note               text NOT NULL,
    expires_on         date,
    state              smallint NOT NULL CHECK (state BETWEEN 1 AND 3),
    requested_by       text NOT NULL,
    requested_at       timestamptz NOT NULL,
    limit_points_minor bigint NOT NULL,
    used_points_minor  bigint NOT NULL,
    decided_by         text NOT NULL DEFAULT '',
    decided_at         timestamptz,
    decision_note      text NOT NULL DEFAULT '',
    entry_number       bigint,
    booked_at          timestamptz,
    CHECK ((state = 2) = (entry_number IS NOT NULL)),
    CHECK ((entry_number IS NULL) = (booked_at IS NULL)),
    CHECK ((decided_by = '') = (decided_at IS NULL)),
    CHECK (state <> 2 OR decided_by <> requested_by)
);

COMMENT ON COLUMN server.adjustment_request.limit_points_minor IS
    'What one person might book alone in a day when it was requested.';
COMMENT ON COLUMN server.adjustment_request.used_points_minor IS
    'What the person had booked alone on that day (UTC) before it.';
COMMENT ON COLUMN server.adjustment_request.decided_by IS
    'Who approved or rejected it; empty if it needed nobody or waits.';

-- Pages of the list, and the work that waits.
CREATE INDEX adjustment_request_age ON server.adjustment_request (requested_at, request_id);
CREATE INDEX adjustment_request_waiting ON server.adjustment_request (requested_at, request_id) WHERE state = 1;
CREATE INDEX adjustment_request_member ON server.adjustment_request (member_id, requested_at, request_id);

-- What a person booked alone on a day.
CREATE INDEX adjustment_request_alone ON server.adjustment_request (requested_by, requested_at)
    WHERE state = 2 AND decided_by = '';

-- --- Reconciliation: what the registers reported, as it came, and the breaks between that and the ledger ---

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

-- --- Rights ---

GRANT USAGE ON SCHEMA server TO tallypoint_owner, tallypoint_writer, tallypoint_reader;
GRANT ALL ON ALL TABLES IN SCHEMA server TO tallypoint_owner;
GRANT SELECT ON ALL TABLES IN SCHEMA server TO tallypoint_writer;
-- What registers reported, runs, histories, published versions and coupons are only ever added to. The fingerprint is
-- kept once: whoever wants another secret needs the owner's rights.
GRANT INSERT ON server.terminal, server.programme_version, server.rules_rollout, server.coupon,
    server.coupon_generation, server.register_file, server.register_file_part, server.z_report,
    server.register_receipt, server.reconciliation_run, server.reconciliation_event, server.secret_fingerprint
    TO tallypoint_writer;
GRANT UPDATE (number, loaded_at) ON server.register_file TO tallypoint_writer;
GRANT UPDATE ON server.config_version TO tallypoint_writer;
GRANT INSERT, UPDATE ON server.member, server.store, server.api_key, server.product, server.rules_shadow,
    server.adjustment_request, server.reconciliation_rules, server.reconciliation_break TO tallypoint_writer;
GRANT INSERT, DELETE ON server.admin_message, server.coupon_block, server.coupon_series_block TO tallypoint_writer;
-- A member who gets another phone number lets go of the old one, which its next owner may register.
GRANT INSERT, UPDATE, DELETE ON server.member_identifier, server.member_audience TO tallypoint_writer;
-- Readers see no keys, no hashes of what a register reads, and no messages of administrators.
GRANT SELECT ON server.member, server.member_audience, server.store, server.terminal, server.product,
    server.programme_version, server.rules_rollout, server.rules_shadow, server.config_version, server.coupon,
    server.coupon_block, server.coupon_series_block, server.coupon_generation, server.adjustment_request,
    server.register_file, server.register_file_part, server.z_report, server.register_receipt,
    server.reconciliation_rules, server.reconciliation_run, server.reconciliation_break, server.reconciliation_event
    TO tallypoint_reader;
