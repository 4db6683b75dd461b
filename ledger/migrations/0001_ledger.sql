-- The books: entries, postings, keys, and the caches that are rebuilt from them.
--
-- Every table of a book starts its primary key with `book`, so that one PostgreSQL runs this schema as it is and
-- Citus runs it distributed by `book`. The two key tables are distributed by the key itself.

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

-- The newest entry of each book. Whoever updates a row has the right to append to its book: the fence.
CREATE TABLE ledger.book_head (
    book      integer PRIMARY KEY,
    number    bigint NOT NULL CHECK (number >= 0),
    hash      bytea NOT NULL CHECK (length(hash) = 32),
    booked_at timestamptz NOT NULL
) WITH (fillfactor = 10);

-- One business event each, gap-free in its book, chained by hash, never changed.
CREATE TABLE ledger.entry (
    book         integer NOT NULL,
    number       bigint NOT NULL,
    booked_at    timestamptz NOT NULL,
    event_at     timestamptz NOT NULL,
    kind         smallint NOT NULL,
    member_id    uuid,
    message_id   bytea CHECK (length(message_id) = 16),
    business_key bytea CHECK (length(business_key) = 16),
    content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
    payload      bytea NOT NULL,
    hash         bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (book, number)
);

-- A member's entries, for statements.
CREATE INDEX entry_member ON ledger.entry (book, member_id, number) WHERE member_id IS NOT NULL;

-- Double entry: points move from the debit to the credit account, so an entry always sums to zero.
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
    PRIMARY KEY (book, number, ordinal),
    CHECK (debit <> credit)
);

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

-- Cache: what members have. `next_change_at` is the earliest moment at which one of the lots becomes active or
-- lapses; before it, the figures stand as they are.
CREATE TABLE ledger.balance (
    book           integer NOT NULL,
    member_id      uuid NOT NULL,
    unit           smallint NOT NULL,
    available_minor bigint NOT NULL CHECK (available_minor >= 0),
    pending_minor  bigint NOT NULL CHECK (pending_minor >= 0),
    held_minor     bigint NOT NULL CHECK (held_minor >= 0),
    debt_minor     bigint NOT NULL CHECK (debt_minor >= 0),
    next_change_at timestamptz,
    PRIMARY KEY (book, member_id, unit)
) WITH (fillfactor = 70);

-- Cache: grants of which points are left.
CREATE TABLE ledger.lot (
    book            integer NOT NULL,
    member_id       uuid NOT NULL,
    unit            smallint NOT NULL,
    number          bigint NOT NULL,
    ordinal         smallint NOT NULL,
    pending         boolean NOT NULL,
    granted_minor   bigint NOT NULL CHECK (granted_minor > 0),
    remaining_minor bigint NOT NULL CHECK (remaining_minor > 0),
    active_at       timestamptz,
    expires_at      timestamptz,
    PRIMARY KEY (book, member_id, unit, number, ordinal),
    CHECK (remaining_minor <= granted_minor)
) WITH (fillfactor = 80);

-- Cache: what moved through each account of a book on each day (UTC day of `booked_at`).
CREATE TABLE ledger.account_total (
    book         integer NOT NULL,
    booked_on    date NOT NULL,
    unit         smallint NOT NULL,
    account      smallint NOT NULL,
    debit_minor  bigint NOT NULL CHECK (debit_minor >= 0),
    credit_minor bigint NOT NULL CHECK (credit_minor >= 0),
    PRIMARY KEY (book, booked_on, unit, account)
) WITH (fillfactor = 10);

-- Both sides of every posting, for people who add up columns: they sum to zero.
CREATE VIEW ledger.posting_side AS
SELECT book, number, ordinal, unit, debit AS account, member_id, -points_minor AS points_minor, lot_number, lot_ordinal
FROM ledger.posting
UNION ALL
SELECT book, number, ordinal, unit, credit, member_id, points_minor, lot_number, lot_ordinal
FROM ledger.posting;

-- Read what a batch needs. The head comes first: whatever is read after it is at least as new, so a batch that
-- still finds this head when it writes has decided on the truth.
CREATE FUNCTION ledger.read_batch(
    p_book integer, p_now timestamptz, p_message_ids bytea[], p_business_keys bytea[], p_members uuid[], p_spenders uuid[],
    OUT head_number bigint, OUT head_hash bytea, OUT head_booked_at timestamptz,
    OUT message_ids bytea[], OUT message_hashes bytea[], OUT message_books integer[], OUT message_numbers bigint[],
    OUT receipt_keys bytea[], OUT receipt_hashes bytea[], OUT receipt_books integer[], OUT receipt_numbers bigint[],
    OUT balance_members uuid[], OUT balance_units smallint[], OUT available bigint[], OUT pending bigint[],
    OUT held bigint[], OUT debt bigint[], OUT next_changes timestamptz[],
    OUT lot_members uuid[], OUT lot_units smallint[], OUT lot_numbers bigint[], OUT lot_ordinals smallint[],
    OUT lot_pending boolean[], OUT lot_granted bigint[], OUT lot_remaining bigint[],
    OUT lot_active timestamptz[], OUT lot_expires timestamptz[]
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

    -- Lots are needed to spend, and where time may have changed a balance (a second of margin: the batch is
    -- booked a little later than it is read).
    SELECT p_spenders || array_agg(due.member_id) INTO p_spenders
    FROM unnest(balance_members, next_changes) AS due (member_id, next_change_at)
    WHERE due.next_change_at <= greatest(p_now, head_booked_at) + interval '1 second';

    IF cardinality(p_spenders) > 0 THEN
        SELECT array_agg(l.member_id), array_agg(l.unit), array_agg(l.number), array_agg(l.ordinal),
               array_agg(l.pending), array_agg(l.granted_minor), array_agg(l.remaining_minor),
               array_agg(l.active_at), array_agg(l.expires_at)
        INTO lot_members, lot_units, lot_numbers, lot_ordinals,
             lot_pending, lot_granted, lot_remaining, lot_active, lot_expires
        FROM ledger.lot l WHERE l.book = p_book AND l.member_id = ANY (p_spenders);
    END IF;
END $$;

-- Append a batch, if nobody else has appended since it was read. Returns false, and writes nothing, if somebody has.
CREATE FUNCTION ledger.write_batch(
    p_book integer, p_read_number bigint, p_read_hash bytea,
    entry_number bigint[], entry_booked_at timestamptz[], entry_event_at timestamptz[], entry_kind smallint[],
    entry_member uuid[], entry_message bytea[], entry_key bytea[], entry_content bytea[], entry_payload bytea[],
    entry_hash bytea[],
    posting_number bigint[], posting_ordinal smallint[], posting_unit smallint[], posting_debit smallint[],
    posting_credit smallint[], posting_points bigint[], posting_lot_number bigint[], posting_lot_ordinal smallint[],
    posting_member uuid[], posting_active timestamptz[], posting_expires timestamptz[],
    balance_member uuid[], balance_unit smallint[], balance_available bigint[], balance_pending bigint[],
    balance_held bigint[], balance_debt bigint[], balance_next_change timestamptz[],
    new_lot_member uuid[], new_lot_unit smallint[], new_lot_number bigint[], new_lot_ordinal smallint[],
    new_lot_pending boolean[], new_lot_granted bigint[], new_lot_remaining bigint[], new_lot_active timestamptz[],
    new_lot_expires timestamptz[],
    old_lot_member uuid[], old_lot_unit smallint[], old_lot_number bigint[], old_lot_ordinal smallint[],
    old_lot_pending boolean[], old_lot_remaining bigint[],
    total_day date[], total_unit smallint[], total_account smallint[], total_debit bigint[], total_credit bigint[]
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    last_index integer := cardinality(entry_number);
    rows integer;
    gone integer;
BEGIN
    UPDATE ledger.book_head
    SET number = entry_number[last_index], hash = entry_hash[last_index], booked_at = entry_booked_at[last_index]
    WHERE book = p_book AND number = p_read_number AND hash = p_read_hash;
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    INSERT INTO ledger.entry (book, number, booked_at, event_at, kind, member_id, message_id, business_key,
                              content_hash, payload, hash)
    SELECT p_book, * FROM unnest(entry_number, entry_booked_at, entry_event_at, entry_kind, entry_member,
                                 entry_message, entry_key, entry_content, entry_payload, entry_hash);

    INSERT INTO ledger.message_key (message_id, content_hash, book, number, booked_on)
    SELECT e.message_id, e.content_hash, p_book, e.number, (e.booked_at AT TIME ZONE 'UTC')::date
    FROM unnest(entry_message, entry_content, entry_number, entry_booked_at) AS e (message_id, content_hash, number, booked_at)
    WHERE e.message_id IS NOT NULL;

    INSERT INTO ledger.receipt_key (business_key, content_hash, book, number)
    SELECT e.business_key, e.content_hash, p_book, e.number
    FROM unnest(entry_key, entry_content, entry_number) AS e (business_key, content_hash, number)
    WHERE e.business_key IS NOT NULL;

    IF cardinality(posting_number) > 0 THEN
        INSERT INTO ledger.posting (book, number, ordinal, unit, debit, credit, points_minor, lot_number, lot_ordinal,
                                    member_id, active_at, expires_at)
        SELECT p_book, * FROM unnest(posting_number, posting_ordinal, posting_unit, posting_debit, posting_credit,
                                     posting_points, posting_lot_number, posting_lot_ordinal, posting_member,
                                     posting_active, posting_expires);
    END IF;

    IF cardinality(balance_member) > 0 THEN
        INSERT INTO ledger.balance AS b (book, member_id, unit, available_minor, pending_minor, held_minor, debt_minor,
                                         next_change_at)
        SELECT p_book, * FROM unnest(balance_member, balance_unit, balance_available, balance_pending, balance_held,
                                     balance_debt, balance_next_change)
        ON CONFLICT (book, member_id, unit) DO UPDATE
        SET available_minor = excluded.available_minor, pending_minor = excluded.pending_minor,
            held_minor = excluded.held_minor, debt_minor = excluded.debt_minor,
            next_change_at = excluded.next_change_at;
    END IF;

    IF cardinality(new_lot_member) > 0 THEN
        INSERT INTO ledger.lot (book, member_id, unit, number, ordinal, pending, granted_minor, remaining_minor,
                                active_at, expires_at)
        SELECT p_book, * FROM unnest(new_lot_member, new_lot_unit, new_lot_number, new_lot_ordinal, new_lot_pending,
                                     new_lot_granted, new_lot_remaining, new_lot_active, new_lot_expires);
    END IF;

    IF cardinality(old_lot_member) > 0 THEN
        UPDATE ledger.lot l
        SET remaining_minor = u.remaining_minor, pending = u.pending
        FROM unnest(old_lot_member, old_lot_unit, old_lot_number, old_lot_ordinal, old_lot_pending, old_lot_remaining)
             AS u (member_id, unit, number, ordinal, pending, remaining_minor)
        WHERE l.book = p_book AND l.member_id = u.member_id AND l.unit = u.unit AND l.number = u.number
          AND l.ordinal = u.ordinal AND u.remaining_minor > 0;
        GET DIAGNOSTICS rows = ROW_COUNT;
        DELETE FROM ledger.lot l
        USING unnest(old_lot_member, old_lot_unit, old_lot_number, old_lot_ordinal, old_lot_remaining)
              AS u (member_id, unit, number, ordinal, remaining_minor)
        WHERE l.book = p_book AND l.member_id = u.member_id AND l.unit = u.unit AND l.number = u.number
          AND l.ordinal = u.ordinal AND u.remaining_minor = 0;
        GET DIAGNOSTICS gone = ROW_COUNT;
        IF rows + gone <> cardinality(old_lot_member) THEN
            RAISE EXCEPTION 'book %: % of % changed lots are in the cache; run `tallypoint ledger rebuild`',
                p_book, rows + gone, cardinality(old_lot_member) USING ERRCODE = 'data_corrupted';
        END IF;
    END IF;

    IF cardinality(total_day) > 0 THEN
        INSERT INTO ledger.account_total AS t (book, booked_on, unit, account, debit_minor, credit_minor)
        SELECT p_book, * FROM unnest(total_day, total_unit, total_account, total_debit, total_credit)
        ON CONFLICT (book, booked_on, unit, account) DO UPDATE
        SET debit_minor = t.debit_minor + excluded.debit_minor, credit_minor = t.credit_minor + excluded.credit_minor;
    END IF;

    RETURN true;
END $$;

GRANT USAGE ON SCHEMA ledger TO tallypoint_owner, tallypoint_writer, tallypoint_reader;
GRANT ALL ON ALL TABLES IN SCHEMA ledger TO tallypoint_owner;
GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO tallypoint_writer, tallypoint_reader;
-- The writer appends to the journal and never changes it; caches and heads it keeps up to date.
GRANT INSERT ON ledger.entry, ledger.posting, ledger.receipt_key, ledger.message_key, ledger.unit TO tallypoint_writer;
GRANT DELETE ON ledger.message_key TO tallypoint_writer;
GRANT UPDATE ON ledger.book_head TO tallypoint_writer;
GRANT INSERT, UPDATE ON ledger.balance, ledger.account_total TO tallypoint_writer;
GRANT INSERT, UPDATE, DELETE ON ledger.lot TO tallypoint_writer;
