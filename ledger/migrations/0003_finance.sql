-- Finance: closes and point values, which are written once, and summaries of the journal, which are caches.

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

-- Closed days and months of a programme, which has one point unit for good. A row is written in one transaction with the marks in all books.
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

GRANT ALL ON ledger.point_value, ledger.close, ledger.close_mark, ledger.close_total, ledger.finance_cursor,
    ledger.finance_total, ledger.receipt_register TO tallypoint_owner;
GRANT SELECT ON ledger.point_value, ledger.close, ledger.close_mark, ledger.close_total, ledger.finance_cursor,
    ledger.finance_total, ledger.receipt_register, ledger.accounting_total, ledger.accounting_receipt,
    ledger.accounting_posting     TO tallypoint_owner, tallypoint_writer, tallypoint_reader;
-- What finance has decided is only ever added to; the summaries are kept up to date.
GRANT INSERT ON ledger.point_value, ledger.close, ledger.close_mark, ledger.close_total TO tallypoint_writer;
GRANT INSERT, UPDATE ON ledger.finance_cursor, ledger.finance_total TO tallypoint_writer;
GRANT INSERT ON ledger.receipt_register TO tallypoint_writer;
