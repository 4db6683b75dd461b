-- What promotions count and use up: members' counters, coupons, budgets that all books share; and coalition partners.

-- Coalition partners. Partner n settles through account 1000 + n.
CREATE TABLE ledger.partner (
    partner smallint PRIMARY KEY CHECK (partner BETWEEN 1 AND 30000),
    code    text NOT NULL UNIQUE CHECK (code <> '')
);

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

-- Read what a batch needs. The head comes first: whatever is read after it is at least as new, so a batch that
-- still finds this head when it writes has decided on the truth.
DROP FUNCTION ledger.read_batch;
CREATE FUNCTION ledger.read_batch(
    p_book integer, p_now timestamptz, p_message_ids bytea[], p_business_keys bytea[], p_members uuid[], p_spenders uuid[],
    p_checkouts bytea[], p_purchases bigint[], p_counted uuid[], p_codes text[], p_budgets text[],
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
DROP FUNCTION ledger.write_batch;
CREATE FUNCTION ledger.write_batch(
    p_book integer, p_read_number bigint, p_read_hash bytea,
    entry_number bigint[], entry_booked_at timestamptz[], entry_event_at timestamptz[], entry_kind smallint[],
    entry_member uuid[], entry_message bytea[], entry_key bytea[], entry_content bytea[], entry_payload bytea[],
    entry_hash bytea[],
    posting_number bigint[], posting_ordinal smallint[], posting_unit smallint[], posting_debit smallint[],
    posting_credit smallint[], posting_points bigint[], posting_lot_number bigint[], posting_lot_ordinal smallint[],
    posting_member uuid[], posting_active timestamptz[], posting_expires timestamptz[], posting_issued timestamptz[],
    balance_member uuid[], balance_unit smallint[], balance_available bigint[], balance_pending bigint[],
    balance_held bigint[], balance_debt bigint[], balance_next_change timestamptz[],
    new_lot_member uuid[], new_lot_unit smallint[], new_lot_number bigint[], new_lot_ordinal smallint[],
    new_lot_pending boolean[], new_lot_granted bigint[], new_lot_remaining bigint[], new_lot_held bigint[],
    new_lot_active timestamptz[], new_lot_expires timestamptz[],
    old_lot_member uuid[], old_lot_unit smallint[], old_lot_number bigint[], old_lot_ordinal smallint[],
    old_lot_pending boolean[], old_lot_remaining bigint[], old_lot_held bigint[],
    total_day date[], total_unit smallint[], total_account smallint[], total_debit bigint[], total_credit bigint[],
    counted_member uuid[], counted_row bytea[],
    p_more jsonb
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
                                    member_id, active_at, expires_at, issued_at)
        SELECT p_book, * FROM unnest(posting_number, posting_ordinal, posting_unit, posting_debit, posting_credit,
                                     posting_points, posting_lot_number, posting_lot_ordinal, posting_member,
                                     posting_active, posting_expires, posting_issued);
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
                                held_minor, active_at, expires_at)
        SELECT p_book, * FROM unnest(new_lot_member, new_lot_unit, new_lot_number, new_lot_ordinal, new_lot_pending,
                                     new_lot_granted, new_lot_remaining, new_lot_held, new_lot_active,
                                     new_lot_expires);
    END IF;

    IF cardinality(old_lot_member) > 0 THEN
        UPDATE ledger.lot l
        SET remaining_minor = u.remaining_minor, held_minor = u.held_minor, pending = u.pending
        FROM unnest(old_lot_member, old_lot_unit, old_lot_number, old_lot_ordinal, old_lot_pending, old_lot_remaining,
                    old_lot_held)
             AS u (member_id, unit, number, ordinal, pending, remaining_minor, held_minor)
        WHERE l.book = p_book AND l.member_id = u.member_id AND l.unit = u.unit AND l.number = u.number
          AND l.ordinal = u.ordinal AND u.remaining_minor + u.held_minor > 0;
        GET DIAGNOSTICS rows = ROW_COUNT;
        DELETE FROM ledger.lot l
        USING unnest(old_lot_member, old_lot_unit, old_lot_number, old_lot_ordinal, old_lot_remaining, old_lot_held)
              AS u (member_id, unit, number, ordinal, remaining_minor, held_minor)
        WHERE l.book = p_book AND l.member_id = u.member_id AND l.unit = u.unit AND l.number = u.number
          AND l.ordinal = u.ordinal AND u.remaining_minor + u.held_minor = 0;
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

    IF cardinality(counted_member) > 0 THEN
        INSERT INTO ledger.member_counters AS c (book, member_id, counters)
        SELECT p_book, * FROM unnest(counted_member, counted_row)
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

GRANT ALL ON ledger.partner, ledger.member_counters, ledger.coupon_use, ledger.hold_coupon, ledger.coupon_issued,
    ledger.budget, ledger.budget_slice TO tallypoint_owner;
GRANT SELECT ON ledger.partner, ledger.member_counters, ledger.coupon_use, ledger.hold_coupon, ledger.coupon_issued,
    ledger.budget, ledger.budget_slice TO tallypoint_writer, tallypoint_reader;
GRANT INSERT ON ledger.partner, ledger.coupon_issued TO tallypoint_writer;
GRANT INSERT, DELETE ON ledger.coupon_use, ledger.hold_coupon TO tallypoint_writer;
GRANT INSERT, UPDATE ON ledger.member_counters, ledger.budget, ledger.budget_slice TO tallypoint_writer;
