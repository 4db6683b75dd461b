-- The ledger as its migrations make it: the whole schema in one file, to be read.
--
-- Nothing runs this file: databases are made and brought up to date by `migrations/`, whose files never change. Whoever
-- adds a migration makes the same change here; `make schema` proves that both make the same database, and names every
-- object that differs.
--
-- Every table of a book starts its primary key with `book`, so that one PostgreSQL runs this schema as it is and Citus
-- runs it distributed by `book`. What is keyed by a receipt, a message or a coupon is distributed by that key. A table
-- called a cache is rebuilt from the journal by `tallypoint ledger rebuild`.

-- Roles. They cannot log in; the service's own user takes one on when it connects.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['tallypoint_owner', 'tallypoint_writer', 'tallypoint_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database of the same server was migrated at this moment
            END;
        END IF;
        EXECUTE format('GRANT %I TO CURRENT_USER', wanted);
    END LOOP;
END $$;

CREATE SCHEMA ledger;

-- --- What the ledger is ---

-- This ledger's identity: a chain made elsewhere never fits it.
CREATE TABLE ledger.identity (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ledger_id  uuid NOT NULL,
    books      integer NOT NULL CHECK (books BETWEEN 1 AND 4096),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Point units. The number is what postings carry.
CREATE TABLE ledger.unit (
    unit      smallint PRIMARY KEY CHECK (unit > 0),
    code      text NOT NULL UNIQUE,
    precision smallint NOT NULL CHECK (precision BETWEEN 0 AND 6)
);

-- Coalition partners. Partner n settles through account 1000 + n.
CREATE TABLE ledger.partner (
    partner smallint PRIMARY KEY CHECK (partner BETWEEN 1 AND 30000),
    code    text NOT NULL UNIQUE CHECK (code <> '')
);

-- --- The journal: heads, entries, postings ---

-- The newest entry of each book. Whoever updates a row has the right to append to its book: the fence.
CREATE TABLE ledger.book_head (
    book      integer PRIMARY KEY,
    number    bigint NOT NULL,
    hash      bytea NOT NULL,
    booked_at timestamptz NOT NULL
) WITH (fillfactor = 10);

-- One business event each, gap-free in its book, chained by hash, never changed.
--
-- Receipts of up to 8 kB lie in their row as they are. To compress one of 30 lines took 60 µs, of 60 lines 180 µs, more
-- than to book it; in return they take up to twice the space.
CREATE TABLE ledger.entry (
    book         integer NOT NULL,
    number       bigint NOT NULL,
    booked_at    timestamptz NOT NULL,
    event_at     timestamptz NOT NULL,
    kind         smallint NOT NULL,
    member_id    uuid,
    message_id   bytea,
    business_key bytea,
    content_hash bytea NOT NULL,
    payload      bytea NOT NULL,
    hash         bytea NOT NULL,
    PRIMARY KEY (book, number)
) WITH (toast_tuple_target = 8160);

-- A member's entries, for statements.
CREATE INDEX entry_member ON ledger.entry (book, member_id, number) WHERE member_id IS NOT NULL;

-- Double entry: points move from the debit to the credit account, so an entry always sums to zero. `issued_at` is when
-- points were first granted, for those that open a lot a second time (transfers, points given back after they had
-- lapsed).
CREATE TABLE ledger.posting (
    book         integer NOT NULL,
    number       bigint NOT NULL,
    ordinal      smallint NOT NULL,
    unit         smallint NOT NULL,
    debit        smallint NOT NULL,
    credit       smallint NOT NULL,
    lot_ordinal  smallint NOT NULL,
    points_minor bigint NOT NULL CHECK (points_minor > 0),
    lot_number   bigint NOT NULL,
    member_id    uuid,
    active_at    timestamptz,
    expires_at   timestamptz,
    issued_at    timestamptz,
    PRIMARY KEY (book, number, ordinal),
    CHECK (debit <> credit)
);

-- Both sides of every posting, for people who add up columns: they sum to zero.
CREATE VIEW ledger.posting_side AS
SELECT book, number, ordinal, unit, debit AS account, member_id, -points_minor AS points_minor, lot_number, lot_ordinal
FROM ledger.posting
UNION ALL
SELECT book, number, ordinal, unit, credit, member_id, points_minor, lot_number, lot_ordinal
FROM ledger.posting;

-- --- Keys: each counts once, whatever the book ---

-- A receipt's business key counts once in the whole system.
CREATE TABLE ledger.receipt_key (
    business_key bytea PRIMARY KEY,
    content_hash bytea NOT NULL,
    book         integer NOT NULL,
    number       bigint NOT NULL
);

-- A message's id, kept as long as a caller may send it again.
CREATE TABLE ledger.message_key (
    message_id   bytea PRIMARY KEY,
    content_hash bytea NOT NULL,
    book         integer NOT NULL,
    number       bigint NOT NULL,
    booked_on    date NOT NULL
);

-- --- Caches of members' points ---

-- Cache: what members have. `next_change_at` is the earliest moment at which one of the lots becomes active or
-- lapses; before it, the figures stand as they are.
CREATE TABLE ledger.balance (
    book           integer NOT NULL,
    member_id      uuid NOT NULL,
    unit           smallint NOT NULL,
    available_minor bigint NOT NULL,
    pending_minor  bigint NOT NULL,
    held_minor     bigint NOT NULL,
    debt_minor     bigint NOT NULL,
    next_change_at timestamptz,
    PRIMARY KEY (book, member_id, unit)
) WITH (fillfactor = 70);

-- Whose points change with time next, for the sweeper.
CREATE INDEX balance_next_change ON ledger.balance (book, next_change_at) WHERE next_change_at IS NOT NULL;

-- Cache: grants of which points are left, or held by checkouts: a row stays while there are any.
CREATE TABLE ledger.lot (
    book            integer NOT NULL,
    member_id       uuid NOT NULL,
    unit            smallint NOT NULL,
    number          bigint NOT NULL,
    ordinal         smallint NOT NULL,
    pending         boolean NOT NULL,
    granted_minor   bigint NOT NULL,
    remaining_minor bigint NOT NULL,
    active_at       timestamptz,
    expires_at      timestamptz,
    held_minor      bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (book, member_id, unit, number, ordinal)
) WITH (fillfactor = 80);

-- Cache: what moved through each account of a book on each day (UTC day of `booked_at`).
CREATE TABLE ledger.account_total (
    book         integer NOT NULL,
    booked_on    date NOT NULL,
    unit         smallint NOT NULL,
    account      smallint NOT NULL,
    debit_minor  bigint NOT NULL,
    credit_minor bigint NOT NULL,
    PRIMARY KEY (book, booked_on, unit, account)
) WITH (fillfactor = 10);

-- Cache: points kept for checkouts. `number` is the entry of the hold; `how` is NULL while it is open, then counts as
-- the journal's HoldEndKind does. Rows of ended holds are kept as long as a register may ask for them.
CREATE TABLE ledger.hold (
    book         integer NOT NULL,
    number       bigint NOT NULL,
    member_id    uuid NOT NULL,
    unit         smallint NOT NULL,
    checkout_key bytea NOT NULL CHECK (length(checkout_key) = 16),
    store_id     text NOT NULL,
    terminal_id  text NOT NULL,
    points_minor bigint NOT NULL CHECK (points_minor >= 0),
    held_at      timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    how          smallint,
    ended_number bigint,
    PRIMARY KEY (book, number),
    CHECK ((how IS NULL) = (ended_number IS NULL))
);
CREATE INDEX hold_open ON ledger.hold (book, member_id) WHERE how IS NULL;
CREATE INDEX hold_checkout ON ledger.hold (checkout_key, book, number);

-- Cache: what open holds keep of which lot.
CREATE TABLE ledger.hold_part (
    book         integer NOT NULL,
    hold_number  bigint NOT NULL,
    lot_number   bigint NOT NULL,
    lot_ordinal  smallint NOT NULL,
    points_minor bigint NOT NULL CHECK (points_minor > 0),
    ordinal      smallint NOT NULL,
    PRIMARY KEY (book, hold_number, lot_number, lot_ordinal)
);

-- Cache: the newest return of each purchase of which something came back.
CREATE TABLE ledger.purchase_return (
    book            integer NOT NULL,
    purchase_number bigint NOT NULL,
    last_number     bigint NOT NULL,
    PRIMARY KEY (book, purchase_number)
);

-- --- Caches of what promotions count and use up ---

-- Cache: what is counted for a member, a serialised Counters message of the journal.
CREATE TABLE ledger.member_counters (
    book      integer NOT NULL,
    member_id uuid NOT NULL,
    counters  bytea NOT NULL,
    PRIMARY KEY (book, member_id)
) WITH (fillfactor = 70);

-- Cache: uses of coupons that are taken, by a hold that keeps one or by an entry that used it up. Distributed by the
-- code: two lanes that race for one use meet here, whatever their books, and the second is decided again.
CREATE TABLE ledger.coupon_use (
    code   text COLLATE "C" NOT NULL,
    slot   smallint NOT NULL CHECK (slot >= 0),
    book   integer NOT NULL,
    number bigint NOT NULL,
    held   boolean NOT NULL,
    PRIMARY KEY (code, slot)
);

-- Cache: the uses of coupons that open holds keep.
CREATE TABLE ledger.hold_coupon (
    book        integer NOT NULL,
    hold_number bigint NOT NULL,
    code        text COLLATE "C" NOT NULL,
    slot        smallint NOT NULL,
    PRIMARY KEY (book, hold_number, code, slot)
);

-- Cache: coupons that receipts gave for later ones. Distributed by the code, under which tills look them up.
CREATE TABLE ledger.coupon_issued (
    code        text COLLATE "C" PRIMARY KEY,
    book        integer NOT NULL,
    number      bigint NOT NULL,
    member_id   uuid NOT NULL,
    series      text NOT NULL,
    valid_from  date NOT NULL,
    valid_until date
);
CREATE INDEX coupon_issued_member ON ledger.coupon_issued (book, member_id);

-- Cache: what books were given of each budget that they share. The row is locked only while a book is given a part.
CREATE TABLE ledger.budget (
    key    text COLLATE "C" PRIMARY KEY,
    leased bigint NOT NULL CHECK (leased >= 0)
);

-- Cache: what each book was given of a budget, and how much of that it used.
CREATE TABLE ledger.budget_slice (
    book    integer NOT NULL,
    key     text COLLATE "C" NOT NULL,
    granted bigint NOT NULL,
    used    bigint NOT NULL CHECK (used >= 0),
    PRIMARY KEY (book, key),
    CHECK (used <= granted)
) WITH (fillfactor = 70);

-- --- Finance: closes and point values, which are written once, and summaries of the journal, which are caches ---

-- What finance says a point is worth, from an issue month on: the newest version whose month is not later than the
-- month in which points were issued. Append only; a correction is a further version.
CREATE TABLE ledger.point_value (
    unit               smallint NOT NULL,
    version            integer NOT NULL CHECK (version > 0),
    from_month         date NOT NULL CHECK (extract(day FROM from_month) = 1),
    value_money_minor  bigint NOT NULL CHECK (value_money_minor >= 0),
    value_points_minor bigint NOT NULL CHECK (value_points_minor > 0),
    breakage_ppm       integer NOT NULL CHECK (breakage_ppm BETWEEN 0 AND 1000000),
    recorded_at        timestamptz NOT NULL,
    recorded_by        text NOT NULL,
    PRIMARY KEY (unit, version)
);

-- Closed days and months of a programme, which has one point unit for good. A row is written in one transaction with the
-- marks in all books.
-- `from_day` is null for the first close, which takes everything up to `last_day`. `point_value_version` and the
-- default value are what reports as of this close are valued with, for ever.
CREATE TABLE ledger.close (
    unit                 smallint NOT NULL,
    close_number         integer NOT NULL CHECK (close_number > 0),
    programme_code       text NOT NULL,
    period               smallint NOT NULL,
    from_day             date,
    last_day             date NOT NULL,
    closed_at            timestamptz NOT NULL,
    closed_by            text NOT NULL,
    currency             text NOT NULL,
    currency_digits      smallint NOT NULL,
    point_value_version  integer NOT NULL,
    default_money_minor  bigint NOT NULL,
    default_points_minor bigint NOT NULL CHECK (default_points_minor > 0),
    PRIMARY KEY (unit, close_number),
    UNIQUE (programme_code, close_number)
);

-- Where each close ends in each book: the number and hash of its mark.
CREATE TABLE ledger.close_mark (
    book         integer NOT NULL,
    number       bigint NOT NULL,
    unit         smallint NOT NULL,
    close_number integer NOT NULL,
    hash         bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (book, number),
    UNIQUE (book, unit, close_number)
);

-- The frozen totals of a close as canonical JSON; its digest stands in the journal, at the entry named here.
CREATE TABLE ledger.close_total (
    unit         smallint NOT NULL,
    close_number integer NOT NULL,
    totals       text NOT NULL,
    digest       bytea NOT NULL CHECK (length(digest) = 32),
    book         integer NOT NULL,
    number       bigint NOT NULL,
    PRIMARY KEY (unit, close_number)
);

-- Cache: how far the summaries of a book have come.
CREATE TABLE ledger.finance_cursor (
    book   integer PRIMARY KEY,
    number bigint NOT NULL CHECK (number >= 0),
    hash   bytea NOT NULL CHECK (length(hash) = 32)
);

-- Cache: what postings moved. `period` counts the unit's closes before the entry in its book. `business_day` is the
-- receipt's business date, or for entries without a receipt the UTC day of `booked_at`. `store_id` is the receipt's,
-- empty without one and for points that lapsed. `partner` is kept for coalition partners and empty until then.
-- `issue_month` is the month (UTC) in which the lot's points were first granted; `kind` is the entry's.
CREATE TABLE ledger.finance_total (
    book         integer NOT NULL,
    period       integer NOT NULL,
    business_day date NOT NULL,
    unit         smallint NOT NULL,
    store_id     text NOT NULL,
    partner      text NOT NULL,
    issue_month  date NOT NULL,
    kind         smallint NOT NULL,
    debit        smallint NOT NULL,
    credit       smallint NOT NULL,
    points_minor bigint NOT NULL CHECK (points_minor > 0),
    postings     bigint NOT NULL CHECK (postings > 0),
    PRIMARY KEY (book, period, business_day, unit, store_id, partner, issue_month, kind, debit, credit)
) WITH (fillfactor = 80);

-- Cache: receipts, of purchases and of returns. `period` counts the closes of the receipt's programme before it in
-- its book. Of a return, the amounts are what was given back or taken back, as positive figures.
CREATE TABLE ledger.receipt_register (
    book                integer NOT NULL,
    number              bigint NOT NULL,
    kind                smallint NOT NULL,
    store_id            text NOT NULL,
    terminal_id         text NOT NULL,
    business_date       date NOT NULL,
    receipt_number      bigint NOT NULL,
    event_at            timestamptz NOT NULL,
    booked_at           timestamptz NOT NULL,
    member_id           uuid,
    period              integer NOT NULL,
    purchase_number     bigint,
    lines               integer NOT NULL,
    list_amount_minor   bigint NOT NULL,
    discount_minor      bigint NOT NULL,
    points_money_minor  bigint NOT NULL,
    net_amount_minor    bigint NOT NULL,
    points_earned_minor bigint NOT NULL,
    points_spent_minor  bigint NOT NULL,
    programme_code      text NOT NULL,
    PRIMARY KEY (book, number)
);

-- A day's receipts of a store and terminal, for reconciliation.
CREATE INDEX receipt_register_day
    ON ledger.receipt_register (business_date, store_id, terminal_id, receipt_number);

-- --- Proof: the journal refuses changes even by its owner, and verification remembers how far it has come ---

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

-- --- Batches: reading what one needs, and writing one ---

-- Points are checked when a batch's rows arrive, and not by constraints of the caches. PostgreSQL reads the text of a
-- table's CHECK constraints anew for every statement, which took a tenth of the time of a small batch. (The lengths of
-- keys and hashes the chain proves; postings, which can never be mended, keep their constraints.)
CREATE DOMAIN ledger.points AS bigint CHECK (VALUE >= 0);
CREATE DOMAIN ledger.some_points AS bigint CHECK (VALUE > 0);

-- The rows of a batch, without their book.
CREATE TYPE ledger.entry_row AS (
    number bigint, booked_at timestamptz, event_at timestamptz, kind smallint, member_id uuid, message_id bytea,
    business_key bytea, content_hash bytea, payload bytea, hash bytea);
CREATE TYPE ledger.posting_row AS (
    number bigint, ordinal smallint, unit smallint, debit smallint, credit smallint, points_minor ledger.some_points,
    lot_number bigint, lot_ordinal smallint, member_id uuid, active_at timestamptz, expires_at timestamptz,
    issued_at timestamptz);
CREATE TYPE ledger.balance_row AS (
    member_id uuid, unit smallint, available_minor ledger.points, pending_minor ledger.points,
    held_minor ledger.points, debt_minor ledger.points, next_change_at timestamptz);
CREATE TYPE ledger.lot_row AS (
    member_id uuid, unit smallint, number bigint, ordinal smallint, pending boolean, granted_minor bigint,
    remaining_minor ledger.points, held_minor ledger.points, active_at timestamptz, expires_at timestamptz);
CREATE TYPE ledger.total_row AS (
    booked_on date, unit smallint, account smallint, debit_minor bigint, credit_minor bigint);
CREATE TYPE ledger.counters_row AS (member_id uuid, counters bytea);

-- What workers call has a version in its name. A function that a released worker calls, what it calls itself, and the
-- types of its rows never change and stay for as long as that release may run; a change is a new one with the next
-- number.

-- Read what a batch needs. The head comes first: whatever is read after it is at least as new, so a batch that
-- still finds this head when it writes has decided on the truth.
CREATE FUNCTION ledger.read_batch_v1(
    p_book integer, p_now timestamptz, p_message_ids bytea[], p_business_keys bytea[], p_members uuid[],
    p_spenders uuid[], p_checkouts bytea[], p_purchases bigint[], p_counted uuid[], p_codes text[], p_budgets text[],
    OUT head_number bigint, OUT head_hash bytea, OUT head_booked_at timestamptz,
    OUT message_ids bytea[], OUT message_hashes bytea[], OUT message_books integer[], OUT message_numbers bigint[],
    OUT receipt_keys bytea[], OUT receipt_hashes bytea[], OUT receipt_books integer[], OUT receipt_numbers bigint[],
    OUT balance_members uuid[], OUT balance_units smallint[], OUT available bigint[], OUT pending bigint[],
    OUT held bigint[], OUT debt bigint[], OUT next_changes timestamptz[],
    OUT lot_members uuid[], OUT lot_units smallint[], OUT lot_numbers bigint[], OUT lot_ordinals smallint[],
    OUT lot_pending boolean[], OUT lot_granted bigint[], OUT lot_remaining bigint[], OUT lot_held bigint[],
    OUT lot_active timestamptz[], OUT lot_expires timestamptz[],
    OUT hold_numbers bigint[], OUT hold_members uuid[], OUT hold_units smallint[], OUT hold_checkouts bytea[],
    OUT hold_stores text[], OUT hold_terminals text[], OUT hold_points bigint[], OUT hold_at timestamptz[],
    OUT hold_expires timestamptz[],
    OUT part_holds bigint[], OUT part_lots bigint[], OUT part_ordinals smallint[], OUT part_points bigint[],
    OUT ended_checkouts bytea[], OUT ended_numbers bigint[], OUT ended_held_at timestamptz[], OUT ended_how smallint[],
    OUT ended_by bigint[],
    OUT returned_purchases bigint[], OUT returned_payloads bytea[],
    OUT counted_members uuid[], OUT counted_rows bytea[],
    OUT kept_holds bigint[], OUT kept_codes text[], OUT kept_slots smallint[],
    OUT use_codes text[], OUT use_slots smallint[], OUT use_books integer[], OUT use_numbers bigint[],
    OUT use_held boolean[],
    OUT slice_keys text[], OUT slice_granted bigint[], OUT slice_used bigint[]
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT h.number, h.hash, h.booked_at INTO head_number, head_hash, head_booked_at
    FROM ledger.book_head h WHERE h.book = p_book;

    SELECT array_agg(k.message_id), array_agg(k.content_hash), array_agg(k.book), array_agg(k.number)
    INTO message_ids, message_hashes, message_books, message_numbers
    FROM ledger.message_key k WHERE k.message_id = ANY (p_message_ids);

    SELECT array_agg(k.business_key), array_agg(k.content_hash), array_agg(k.book), array_agg(k.number)
    INTO receipt_keys, receipt_hashes, receipt_books, receipt_numbers
    FROM ledger.receipt_key k WHERE k.business_key = ANY (p_business_keys);

    SELECT array_agg(b.member_id), array_agg(b.unit), array_agg(b.available_minor), array_agg(b.pending_minor),
           array_agg(b.held_minor), array_agg(b.debt_minor), array_agg(b.next_change_at)
    INTO balance_members, balance_units, available, pending, held, debt, next_changes
    FROM ledger.balance b WHERE b.book = p_book AND b.member_id = ANY (p_members);

    -- Lots and holds are needed to spend, and where time may have changed a balance (a second of margin: the batch
    -- is booked a little later than it is read).
    SELECT p_spenders || array_agg(due.member_id) INTO p_spenders
    FROM unnest(balance_members, next_changes) AS due (member_id, next_change_at)
    WHERE due.next_change_at <= greatest(p_now, head_booked_at) + interval '1 second';

    IF cardinality(p_spenders) > 0 THEN
        SELECT array_agg(l.member_id), array_agg(l.unit), array_agg(l.number), array_agg(l.ordinal),
               array_agg(l.pending), array_agg(l.granted_minor), array_agg(l.remaining_minor),
               array_agg(l.held_minor), array_agg(l.active_at), array_agg(l.expires_at)
        INTO lot_members, lot_units, lot_numbers, lot_ordinals,
             lot_pending, lot_granted, lot_remaining, lot_held, lot_active, lot_expires
        FROM ledger.lot l WHERE l.book = p_book AND l.member_id = ANY (p_spenders);

        SELECT array_agg(h.number), array_agg(h.member_id), array_agg(h.unit), array_agg(h.checkout_key),
               array_agg(h.store_id), array_agg(h.terminal_id), array_agg(h.points_minor), array_agg(h.held_at),
               array_agg(h.expires_at)
        INTO hold_numbers, hold_members, hold_units, hold_checkouts, hold_stores, hold_terminals, hold_points, hold_at,
             hold_expires
        FROM (SELECT * FROM ledger.hold o WHERE o.book = p_book AND o.member_id = ANY (p_spenders) AND o.how IS NULL
              ORDER BY o.number) h;

        IF cardinality(hold_numbers) > 0 THEN
            SELECT array_agg(p.hold_number), array_agg(p.lot_number), array_agg(p.lot_ordinal),
                   array_agg(p.points_minor)
            INTO part_holds, part_lots, part_ordinals, part_points
            FROM (SELECT * FROM ledger.hold_part o WHERE o.book = p_book AND o.hold_number = ANY (hold_numbers)
                  ORDER BY o.hold_number, o.ordinal) p;

            SELECT array_agg(c.hold_number), array_agg(c.code), array_agg(c.slot)
            INTO kept_holds, kept_codes, kept_slots
            FROM ledger.hold_coupon c WHERE c.book = p_book AND c.hold_number = ANY (hold_numbers);
            p_codes := p_codes || kept_codes;
        END IF;
    END IF;

    IF cardinality(p_checkouts) > 0 THEN
        SELECT array_agg(h.checkout_key), array_agg(h.number), array_agg(h.held_at), array_agg(h.how),
               array_agg(h.ended_number)
        INTO ended_checkouts, ended_numbers, ended_held_at, ended_how, ended_by
        FROM (SELECT DISTINCT ON (o.checkout_key) o.* FROM ledger.hold o
              WHERE o.checkout_key = ANY (p_checkouts) AND o.book = p_book AND o.how IS NOT NULL
              ORDER BY o.checkout_key, o.number DESC) h;
    END IF;

    IF cardinality(p_purchases) > 0 THEN
        SELECT array_agg(r.purchase_number), array_agg(e.payload) INTO returned_purchases, returned_payloads
        FROM ledger.purchase_return r JOIN ledger.entry e ON e.book = r.book AND e.number = r.last_number
        WHERE r.book = p_book AND r.purchase_number = ANY (p_purchases);
    END IF;

    -- The rest few batches need.
    IF cardinality(p_counted) > 0 THEN
        SELECT array_agg(c.member_id), array_agg(c.counters) INTO counted_members, counted_rows
        FROM ledger.member_counters c WHERE c.book = p_book AND c.member_id = ANY (p_counted);
    END IF;

    IF cardinality(p_codes) > 0 THEN
        SELECT array_agg(u.code), array_agg(u.slot), array_agg(u.book), array_agg(u.number), array_agg(u.held)
        INTO use_codes, use_slots, use_books, use_numbers, use_held
        FROM ledger.coupon_use u WHERE u.code = ANY (p_codes);
    END IF;

    IF cardinality(p_budgets) > 0 THEN
        SELECT array_agg(s.key), array_agg(s.granted), array_agg(s.used)
        INTO slice_keys, slice_granted, slice_used
        FROM ledger.budget_slice s WHERE s.book = p_book AND s.key = ANY (p_budgets);
    END IF;
END $$;

-- Keep the caches of holds and returns: `p_more` has the rows as JSON, since few batches have any.
CREATE FUNCTION ledger.write_more(p_book integer, p_more jsonb) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    rows integer;
BEGIN
    INSERT INTO ledger.hold (book, number, member_id, unit, checkout_key, store_id, terminal_id, points_minor, held_at,
                             expires_at)
    SELECT p_book, h.number, h.member_id, h.unit, decode(h.checkout_key, 'hex'), h.store_id, h.terminal_id,
           h.points_minor, h.held_at, h.expires_at
    FROM jsonb_to_recordset(p_more -> 'holds') AS h (
        number bigint, member_id uuid, unit smallint, checkout_key text, store_id text, terminal_id text,
        points_minor bigint, held_at timestamptz, expires_at timestamptz);

    INSERT INTO ledger.hold_part (book, hold_number, lot_number, lot_ordinal, points_minor, ordinal)
    SELECT p_book, p.hold_number, p.lot_number, p.lot_ordinal, p.points_minor, p.ordinal
    FROM jsonb_to_recordset(p_more -> 'parts') AS p (
        hold_number bigint, lot_number bigint, lot_ordinal smallint, points_minor bigint, ordinal smallint);

    UPDATE ledger.hold h SET how = e.how, ended_number = e.ended_number
    FROM jsonb_to_recordset(p_more -> 'ended') AS e (number bigint, how smallint, ended_number bigint)
    WHERE h.book = p_book AND h.number = e.number AND h.how IS NULL;
    GET DIAGNOSTICS rows = ROW_COUNT;
    IF rows <> jsonb_array_length(p_more -> 'ended') THEN
        RAISE EXCEPTION 'book %: % of % ended holds are open in the cache; run `tallypoint ledger rebuild`',
            p_book, rows, jsonb_array_length(p_more -> 'ended') USING ERRCODE = 'data_corrupted';
    END IF;
    DELETE FROM ledger.hold_part p
    USING jsonb_to_recordset(p_more -> 'ended') AS e (number bigint)
    WHERE p.book = p_book AND p.hold_number = e.number;

    INSERT INTO ledger.purchase_return AS r (book, purchase_number, last_number)
    SELECT p_book, u.purchase_number, u.last_number
    FROM jsonb_to_recordset(p_more -> 'returns') AS u (purchase_number bigint, last_number bigint)
    ON CONFLICT (book, purchase_number) DO UPDATE SET last_number = excluded.last_number;
END $$;

-- Keep the caches of coupons and budgets: `p_uses` has the rows as JSON, since few batches have any.
CREATE FUNCTION ledger.write_uses(p_book integer, p_uses jsonb) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    rows integer;
BEGIN
    DELETE FROM ledger.hold_coupon c
    USING jsonb_to_recordset(p_uses -> 'ended') AS e (number bigint)
    WHERE c.book = p_book AND c.hold_number = e.number;

    INSERT INTO ledger.hold_coupon (book, hold_number, code, slot)
    SELECT p_book, k.hold_number, k.code, k.slot
    FROM jsonb_to_recordset(p_uses -> 'kept') AS k (hold_number bigint, code text, slot smallint);

    -- A use that this book has can change hands in this book alone, under its fence.
    DELETE FROM ledger.coupon_use u
    USING jsonb_to_recordset(p_uses -> 'given_up') AS g (code text, slot smallint)
    WHERE u.code = g.code AND u.slot = g.slot AND u.book = p_book;
    GET DIAGNOSTICS rows = ROW_COUNT;
    IF rows <> jsonb_array_length(p_uses -> 'given_up') THEN
        RAISE EXCEPTION 'book %: % of % uses of coupons are in the cache; run `tallypoint ledger rebuild`',
            p_book, rows, jsonb_array_length(p_uses -> 'given_up') USING ERRCODE = 'data_corrupted';
    END IF;

    INSERT INTO ledger.coupon_use (code, slot, book, number, held)
    SELECT t.code, t.slot, p_book, t.number, t.held
    FROM jsonb_to_recordset(p_uses -> 'taken') AS t (code text, slot smallint, number bigint, held boolean)
    ORDER BY t.code, t.slot;

    INSERT INTO ledger.coupon_issued (code, book, number, member_id, series, valid_from, valid_until)
    SELECT i.code, p_book, i.number, i.member_id, i.series, i.valid_from, i.valid_until
    FROM jsonb_to_recordset(p_uses -> 'issued') AS i (
        code text, number bigint, member_id uuid, series text, valid_from date, valid_until date)
    ORDER BY i.code;

    INSERT INTO ledger.budget_slice AS s (book, key, granted, used)
    SELECT p_book, b.key, b.granted, b.used
    FROM jsonb_to_recordset(p_uses -> 'slices') AS b (key text, granted bigint, used bigint)
    ON CONFLICT (book, key) DO UPDATE SET granted = excluded.granted, used = excluded.used;
END $$;

-- Append a batch, if nobody else has appended since it was read. Returns false, and writes nothing, if somebody has.
CREATE FUNCTION ledger.write_batch_v1(
    p_book integer, p_read_number bigint, p_read_hash bytea,
    p_entries ledger.entry_row[], p_postings ledger.posting_row[], p_balances ledger.balance_row[],
    p_new_lots ledger.lot_row[], p_lots ledger.lot_row[], p_gone_lots ledger.lot_row[],
    p_totals ledger.total_row[], p_counters ledger.counters_row[], p_more jsonb
) RETURNS boolean LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    last_entry ledger.entry_row := p_entries[cardinality(p_entries)];
    one ledger.lot_row;
    found_lots integer := 0;
BEGIN
    UPDATE ledger.book_head SET number = last_entry.number, hash = last_entry.hash, booked_at = last_entry.booked_at
    WHERE book = p_book AND number = p_read_number AND hash = p_read_hash;
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    INSERT INTO ledger.entry (book, number, booked_at, event_at, kind, member_id, message_id, business_key,
                              content_hash, payload, hash)
    SELECT p_book, e.* FROM unnest(p_entries) e;

    INSERT INTO ledger.message_key (message_id, content_hash, book, number, booked_on)
    SELECT e.message_id, e.content_hash, p_book, e.number, (e.booked_at AT TIME ZONE 'UTC')::date
    FROM unnest(p_entries) e WHERE e.message_id IS NOT NULL;

    INSERT INTO ledger.receipt_key (business_key, content_hash, book, number)
    SELECT e.business_key, e.content_hash, p_book, e.number
    FROM unnest(p_entries) e WHERE e.business_key IS NOT NULL;

    IF cardinality(p_postings) > 0 THEN
        INSERT INTO ledger.posting (book, number, ordinal, unit, debit, credit, points_minor, lot_number, lot_ordinal,
                                    member_id, active_at, expires_at, issued_at)
        SELECT p_book, p.* FROM unnest(p_postings) p;
    END IF;

    IF cardinality(p_balances) > 0 THEN
        INSERT INTO ledger.balance AS b (book, member_id, unit, available_minor, pending_minor, held_minor, debt_minor,
                                         next_change_at)
        SELECT p_book, r.* FROM unnest(p_balances) r
        ON CONFLICT (book, member_id, unit) DO UPDATE
        SET available_minor = excluded.available_minor, pending_minor = excluded.pending_minor,
            held_minor = excluded.held_minor, debt_minor = excluded.debt_minor,
            next_change_at = excluded.next_change_at;
    END IF;

    IF cardinality(p_new_lots) > 0 THEN
        INSERT INTO ledger.lot (book, member_id, unit, number, ordinal, pending, granted_minor, remaining_minor,
                                held_minor, active_at, expires_at)
        SELECT p_book, l.* FROM unnest(p_new_lots) l;
    END IF;

    -- One by one: they are few, and a join that was planned while the table was small would read all lots of the book.
    FOREACH one IN ARRAY p_lots LOOP
        UPDATE ledger.lot l
        SET remaining_minor = one.remaining_minor, held_minor = one.held_minor, pending = one.pending
        WHERE l.book = p_book AND l.member_id = one.member_id AND l.unit = one.unit AND l.number = one.number
          AND l.ordinal = one.ordinal;
        IF FOUND THEN
            found_lots := found_lots + 1;
        END IF;
    END LOOP;
    FOREACH one IN ARRAY p_gone_lots LOOP
        DELETE FROM ledger.lot l
        WHERE l.book = p_book AND l.member_id = one.member_id AND l.unit = one.unit AND l.number = one.number
          AND l.ordinal = one.ordinal;
        IF FOUND THEN
            found_lots := found_lots + 1;
        END IF;
    END LOOP;
    IF found_lots <> cardinality(p_lots) + cardinality(p_gone_lots) THEN
        RAISE EXCEPTION 'book %: % of % changed lots are in the cache; run `tallypoint ledger rebuild`',
            p_book, found_lots, cardinality(p_lots) + cardinality(p_gone_lots) USING ERRCODE = 'data_corrupted';
    END IF;

    IF cardinality(p_totals) > 0 THEN
        INSERT INTO ledger.account_total AS t (book, booked_on, unit, account, debit_minor, credit_minor)
        SELECT p_book, r.* FROM unnest(p_totals) r
        ON CONFLICT (book, booked_on, unit, account) DO UPDATE
        SET debit_minor = t.debit_minor + excluded.debit_minor, credit_minor = t.credit_minor + excluded.credit_minor;
    END IF;

    IF cardinality(p_counters) > 0 THEN
        INSERT INTO ledger.member_counters AS c (book, member_id, counters)
        SELECT p_book, r.* FROM unnest(p_counters) r
        ON CONFLICT (book, member_id) DO UPDATE SET counters = excluded.counters;
    END IF;

    IF p_more ? 'ended' THEN
        PERFORM ledger.write_more(p_book, p_more);
    END IF;

    IF p_more ? 'uses' THEN
        PERFORM ledger.write_uses(p_book, p_more -> 'uses');
    END IF;

    RETURN true;
END $$;

-- The same as workers of release 0.4 call them.
DO $$
DECLARE
    called text;
BEGIN
    FOREACH called IN ARRAY ARRAY['ledger.read_batch', 'ledger.write_batch'] LOOP
        EXECUTE replace(pg_get_functiondef((called || '_v1')::regproc), called || '_v1(', called || '(');
    END LOOP;
END $$;

-- --- Rights ---

GRANT USAGE ON SCHEMA ledger TO tallypoint_owner, tallypoint_writer, tallypoint_reader;
GRANT ALL ON ALL TABLES IN SCHEMA ledger TO tallypoint_owner;
GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO tallypoint_writer, tallypoint_reader;
-- The writer appends to the journal and to what finance has decided, and never changes it.
GRANT INSERT ON ledger.entry, ledger.posting, ledger.receipt_key, ledger.unit, ledger.partner, ledger.point_value,
    ledger.close, ledger.close_mark, ledger.close_total TO tallypoint_writer;
GRANT INSERT, DELETE ON ledger.message_key TO tallypoint_writer;
-- Caches and heads it keeps up to date.
GRANT UPDATE ON ledger.book_head TO tallypoint_writer;
GRANT INSERT ON ledger.coupon_issued, ledger.receipt_register TO tallypoint_writer;
GRANT INSERT, UPDATE ON ledger.balance, ledger.account_total, ledger.purchase_return, ledger.member_counters,
    ledger.budget, ledger.budget_slice, ledger.finance_cursor, ledger.finance_total TO tallypoint_writer;
GRANT INSERT, DELETE ON ledger.hold_part, ledger.coupon_use, ledger.hold_coupon TO tallypoint_writer;
GRANT INSERT, UPDATE, DELETE ON ledger.lot, ledger.hold TO tallypoint_writer;

-- --- Finance's views, which everybody may read and nobody write ---

-- The summaries with the day on which finance counts them: the business day, or, if that was closed before the entry
-- was booked, the first open day.
CREATE VIEW ledger.accounting_total AS
SELECT t.*, greatest(t.business_day, c.last_day + 1) AS accounting_day
FROM ledger.finance_total t
LEFT JOIN ledger.close c ON c.unit = t.unit AND c.close_number = t.period;

-- The same for receipts.
CREATE VIEW ledger.accounting_receipt AS
SELECT r.*, greatest(r.business_date, c.last_day + 1) AS accounting_day
FROM ledger.receipt_register r
LEFT JOIN ledger.close c ON c.programme_code = r.programme_code AND c.close_number = r.period;

-- Single postings with the same facts. It reads the journal itself, and needs the register for business dates.
CREATE VIEW ledger.accounting_posting AS
SELECT p.book, p.number, p.ordinal, p.unit, p.debit, p.credit, p.points_minor, p.lot_number, p.lot_ordinal,
       p.member_id, p.active_at, p.expires_at, p.issued_at, e.kind, e.booked_at,
       coalesce(c.close_number, 0) AS period,
       coalesce(r.business_date, (e.booked_at AT TIME ZONE 'UTC')::date) AS business_day,
       CASE WHEN p.credit = 13 THEN '' ELSE coalesce(r.store_id, '') END AS store_id,
       greatest(coalesce(r.business_date, (e.booked_at AT TIME ZONE 'UTC')::date), c.last_day + 1) AS accounting_day
FROM ledger.posting p
JOIN ledger.entry e ON e.book = p.book AND e.number = p.number
LEFT JOIN ledger.receipt_register r ON r.book = p.book AND r.number = p.number
LEFT JOIN LATERAL (
    SELECT m.close_number, k.last_day
    FROM ledger.close_mark m
    JOIN ledger.close k ON k.unit = m.unit AND k.close_number = m.close_number
    WHERE m.book = p.book AND m.unit = p.unit AND m.number < p.number
    ORDER BY m.close_number DESC LIMIT 1
) c ON true;

GRANT SELECT ON ledger.accounting_total, ledger.accounting_receipt, ledger.accounting_posting
    TO tallypoint_owner, tallypoint_writer, tallypoint_reader;
