-- Batches are written with leaner statements: their rows arrive as arrays of rows, and not column by column.

-- Points are checked when a batch's rows arrive. PostgreSQL reads the text of a table's CHECK constraints anew for every
-- statement, which took a tenth of the time of a small batch. (The lengths of keys and hashes the chain proves; postings,
-- which can never be mended, keep their constraints.)
CREATE DOMAIN ledger.points AS bigint CHECK (VALUE >= 0);
CREATE DOMAIN ledger.some_points AS bigint CHECK (VALUE > 0);
ALTER TABLE ledger.book_head DROP CONSTRAINT book_head_number_check, DROP CONSTRAINT book_head_hash_check;
ALTER TABLE ledger.entry DROP CONSTRAINT entry_message_id_check, DROP CONSTRAINT entry_business_key_check,
    DROP CONSTRAINT entry_content_hash_check, DROP CONSTRAINT entry_hash_check;
ALTER TABLE ledger.balance DROP CONSTRAINT balance_available_minor_check, DROP CONSTRAINT balance_pending_minor_check,
    DROP CONSTRAINT balance_held_minor_check, DROP CONSTRAINT balance_debt_minor_check;
ALTER TABLE ledger.lot DROP CONSTRAINT lot_granted_minor_check, DROP CONSTRAINT lot_held_minor_check,
    DROP CONSTRAINT lot_remaining, DROP CONSTRAINT lot_left;
ALTER TABLE ledger.account_total DROP CONSTRAINT account_total_debit_minor_check,
    DROP CONSTRAINT account_total_credit_minor_check;

-- Receipts of up to 8 kB lie in their row as they are. To compress one of 30 lines took 60 µs, of 60 lines 180 µs, more
-- than to book it; in return they take up to twice the space.
ALTER TABLE ledger.entry SET (toast_tuple_target = 8160);

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

-- Append a batch, if nobody else has appended since it was read. Returns false, and writes nothing, if somebody has.
DROP FUNCTION ledger.write_batch;
CREATE FUNCTION ledger.write_batch(
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
