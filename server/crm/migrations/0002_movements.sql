-- What became of points after they were granted: returns, holds, corrections, transfers, closes, the passing of time.
--
-- As before, `book` and `number` name the ledger's entry in every table, and rows are added, never changed: where
-- something ends later, as a hold does, its end is a row of its own.

ALTER TABLE crm.points_movement ADD COLUMN issued_at timestamptz;
-- Until now only purchases moved points.
ALTER TABLE crm.points_movement ADD COLUMN kind text NOT NULL DEFAULT 'purchase';
ALTER TABLE crm.points_movement ALTER COLUMN kind DROP DEFAULT;
COMMENT ON COLUMN crm.points_movement.issued_at IS 'For points that were granted before, in another lot (transfers, points given back after they had lapsed): when they were first granted.';
COMMENT ON COLUMN crm.points_movement.kind IS 'What the entry is: purchase, return, hold, cancel, time, adjustment or transfer. Any of them may also move points whose time had come.';
COMMENT ON TABLE crm.points_movement IS 'Points that moved from one account to another. Earning is issued to available or pending, spending is available or held to redeemed, lapsing is available to expired; a return moves redeemed to available, and available, pending or debt to issued.';
COMMENT ON COLUMN crm.member.status IS 'active, earn_only (cannot spend), blocked or merged (into another member).';

CREATE TABLE crm.goods_return (
    book                    integer NOT NULL,
    number                  bigint NOT NULL,
    store_id                text NOT NULL,
    terminal_id             text NOT NULL,
    business_date           date NOT NULL,
    receipt_number          bigint NOT NULL,
    booked_at               timestamptz NOT NULL,
    event_at                timestamptz NOT NULL,
    time_zone               text NOT NULL,
    member_id               uuid,
    purchase_number         bigint NOT NULL,
    purchase_store_id       text NOT NULL,
    purchase_terminal_id    text NOT NULL,
    purchase_business_date  date NOT NULL,
    purchase_receipt_number bigint NOT NULL,
    programme_code          text NOT NULL,
    programme_version       integer NOT NULL,
    line_count              integer NOT NULL,
    gross_amount_minor      bigint NOT NULL,
    discount_minor          bigint NOT NULL,
    points_money_minor      bigint NOT NULL,
    refund_money_minor      bigint NOT NULL,
    points_unit             text,
    points_precision        smallint,
    points_given_back_minor bigint NOT NULL,
    points_taken_back_minor bigint NOT NULL,
    points_owed_minor       bigint NOT NULL,
    points_waived_minor     bigint NOT NULL,
    balance_after_minor     bigint,
    clawback                text,
    purchase_complete       boolean NOT NULL,
    coupon_codes            text[] NOT NULL,
    PRIMARY KEY (book, number)
);
CREATE INDEX goods_return_purchase ON crm.goods_return (book, purchase_number);
CREATE INDEX goods_return_member ON crm.goods_return (book, member_id, event_at) WHERE member_id IS NOT NULL;
CREATE INDEX goods_return_key ON crm.goods_return (business_date, store_id, terminal_id, receipt_number);
COMMENT ON TABLE crm.goods_return IS 'Returns of goods. Amounts are positive: what the returned part of the purchase had; money is in the purchase''s currency.';
COMMENT ON COLUMN crm.goods_return.business_date IS 'With store_id, terminal_id and receipt_number: the key of the return''s own receipt.';
COMMENT ON COLUMN crm.goods_return.purchase_number IS 'The purchase: crm.receipt has it under the same book and this number.';
COMMENT ON COLUMN crm.goods_return.purchase_business_date IS 'With the other purchase_... columns: the key of the purchase''s receipt.';
COMMENT ON COLUMN crm.goods_return.programme_version IS 'The version of the programme whose settings for returns were used.';
COMMENT ON COLUMN crm.goods_return.gross_amount_minor IS 'List prices of what came back.';
COMMENT ON COLUMN crm.goods_return.discount_minor IS 'Discounts that it had.';
COMMENT ON COLUMN crm.goods_return.points_money_minor IS 'The part of it that points had paid.';
COMMENT ON COLUMN crm.goods_return.refund_money_minor IS 'The money given back: gross less discount less what points had paid.';
COMMENT ON COLUMN crm.goods_return.points_given_back_minor IS 'Points that had been spent and went back to the member.';
COMMENT ON COLUMN crm.goods_return.points_taken_back_minor IS 'Points earned with the purchase that were taken back.';
COMMENT ON COLUMN crm.goods_return.points_owed_minor IS 'Points that should have been taken back, were not there, and are owed now.';
COMMENT ON COLUMN crm.goods_return.points_waived_minor IS 'Points that should have been taken back, were not there, and were let go.';
COMMENT ON COLUMN crm.goods_return.balance_after_minor IS 'The member''s spendable points after this return.';
COMMENT ON COLUMN crm.goods_return.clawback IS 'How earned points are taken back: debt, within_balance or own_lot_only.';
COMMENT ON COLUMN crm.goods_return.purchase_complete IS 'Nothing of the purchase is left to return.';
COMMENT ON COLUMN crm.goods_return.coupon_codes IS 'Coupons that came back because all that they had paid for came back.';

CREATE TABLE crm.goods_return_line (
    book                    integer NOT NULL,
    number                  bigint NOT NULL,
    line_number             integer NOT NULL,
    purchase_number         bigint NOT NULL,
    quantity_milli          bigint NOT NULL,
    list_amount_minor       bigint NOT NULL,
    discount_minor          bigint NOT NULL,
    points_money_minor      bigint NOT NULL,
    refund_money_minor      bigint NOT NULL,
    points_given_back_minor bigint NOT NULL,
    points_due_back_minor   bigint NOT NULL,
    PRIMARY KEY (book, number, line_number)
);
CREATE INDEX goods_return_line_purchase ON crm.goods_return_line (book, purchase_number, line_number);
COMMENT ON TABLE crm.goods_return_line IS 'What came back of each line of a purchase; amounts are positive.';
COMMENT ON COLUMN crm.goods_return_line.line_number IS 'The line of the purchase: crm.receipt_line has it under the same book and purchase_number.';
COMMENT ON COLUMN crm.goods_return_line.quantity_milli IS 'Thousandths of a piece, kilogram or litre.';
COMMENT ON COLUMN crm.goods_return_line.points_given_back_minor IS 'Points spent on the line that went back to the member.';
COMMENT ON COLUMN crm.goods_return_line.points_due_back_minor IS 'Points earned with the line that were to be taken back; the return says what became of their sum.';

CREATE TABLE crm.hold (
    book              integer NOT NULL,
    number            bigint NOT NULL,
    booked_at         timestamptz NOT NULL,
    event_at          timestamptz NOT NULL,
    expires_at        timestamptz NOT NULL,
    member_id         uuid NOT NULL,
    store_id          text NOT NULL,
    terminal_id       text NOT NULL,
    checkout_id       text NOT NULL,
    programme_code    text NOT NULL,
    programme_version integer NOT NULL,
    points_minor      bigint NOT NULL,
    money_minor       bigint NOT NULL,
    points_unit       text,
    points_precision  smallint,
    takeover_reason   text,
    coupon_codes      text[] NOT NULL,
    PRIMARY KEY (book, number)
);
CREATE INDEX hold_member ON crm.hold (book, member_id, booked_at);
COMMENT ON TABLE crm.hold IS 'Points kept for a checkout. How each hold ended stands in crm.hold_end; crm.hold_outcome has both.';
COMMENT ON COLUMN crm.hold.expires_at IS 'When the hold ends by itself.';
COMMENT ON COLUMN crm.hold.terminal_id IS 'The register or kiosk: the lane.';
COMMENT ON COLUMN crm.hold.checkout_id IS 'The register''s own name for the checkout.';
COMMENT ON COLUMN crm.hold.money_minor IS 'The money that the points kept pay.';
COMMENT ON COLUMN crm.hold.takeover_reason IS 'Why this lane took over what other lanes held; NULL if it did not.';

CREATE TABLE crm.hold_end (
    book            integer NOT NULL,
    number          bigint NOT NULL,
    hold_number     bigint NOT NULL,
    booked_at       timestamptz NOT NULL,
    kind            text NOT NULL,
    how             text NOT NULL,
    captured_minor  bigint NOT NULL,
    released_minor  bigint NOT NULL,
    reason          text,
    PRIMARY KEY (book, number, hold_number)
);
CREATE UNIQUE INDEX hold_end_hold ON crm.hold_end (book, hold_number);
COMMENT ON TABLE crm.hold_end IS 'How holds ended; each ends once. An expired hold ends with the member''s next entry after its time, so booked_at may be later than its expires_at.';
COMMENT ON COLUMN crm.hold_end.number IS 'The entry with which the hold ended.';
COMMENT ON COLUMN crm.hold_end.hold_number IS 'The hold: crm.hold has it under the same book and this number.';
COMMENT ON COLUMN crm.hold_end.kind IS 'What that entry is, as in crm.points_movement.';
COMMENT ON COLUMN crm.hold_end.how IS 'captured, cancelled, expired, replaced, taken_over or merged.';
COMMENT ON COLUMN crm.hold_end.captured_minor IS 'The points spent of it.';
COMMENT ON COLUMN crm.hold_end.released_minor IS 'The points that became available again.';
COMMENT ON COLUMN crm.hold_end.reason IS 'The register''s reason for a cancel, the cashier''s for a take-over; NULL otherwise.';

CREATE TABLE crm.adjustment (
    book                integer NOT NULL,
    number              bigint NOT NULL,
    booked_at           timestamptz NOT NULL,
    event_at            timestamptz NOT NULL,
    member_id           uuid NOT NULL,
    points_minor        bigint NOT NULL,
    points_unit         text,
    points_precision    smallint,
    balance_after_minor bigint,
    reason_code         text NOT NULL,
    note                text NOT NULL,
    requested_by        text NOT NULL,
    approved_by         text,
    request_id          text NOT NULL,
    programme_code      text NOT NULL,
    PRIMARY KEY (book, number)
);
CREATE INDEX adjustment_member ON crm.adjustment (book, member_id, booked_at);
COMMENT ON TABLE crm.adjustment IS 'Points granted or taken by hand.';
COMMENT ON COLUMN crm.adjustment.points_minor IS 'The points granted or, if negative, taken.';
COMMENT ON COLUMN crm.adjustment.reason_code IS 'Such as goodwill or missing_receipt.';
COMMENT ON COLUMN crm.adjustment.requested_by IS 'Who asked for it: the name of a back-office key.';
COMMENT ON COLUMN crm.adjustment.approved_by IS 'Who approved it; NULL if it needed no approval.';

CREATE TABLE crm.transfer (
    book                integer NOT NULL,
    number              bigint NOT NULL,
    booked_at           timestamptz NOT NULL,
    event_at            timestamptz NOT NULL,
    member_id           uuid NOT NULL,
    other_member_id     uuid NOT NULL,
    outgoing            boolean NOT NULL,
    transfer_id         text NOT NULL,
    reason_code         text NOT NULL,
    requested_by        text NOT NULL,
    points_minor        bigint NOT NULL,
    debt_minor          bigint NOT NULL,
    points_unit         text,
    points_precision    smallint,
    balance_after_minor bigint,
    PRIMARY KEY (book, number)
);
CREATE INDEX transfer_member ON crm.transfer (book, member_id, booked_at);
CREATE INDEX transfer_id ON crm.transfer (transfer_id);
COMMENT ON TABLE crm.transfer IS 'Points moved from one member to another: one row on the side that they left, one on the side where they came, with the same transfer_id.';
COMMENT ON COLUMN crm.transfer.member_id IS 'The member on this side.';
COMMENT ON COLUMN crm.transfer.outgoing IS 'True on the side that the points left.';
COMMENT ON COLUMN crm.transfer.reason_code IS 'Such as merge or family.';
COMMENT ON COLUMN crm.transfer.points_minor IS 'The points moved, pending ones included.';
COMMENT ON COLUMN crm.transfer.debt_minor IS 'The points owed that went along.';

CREATE TABLE crm.close (
    book           integer NOT NULL,
    number         bigint NOT NULL,
    booked_at      timestamptz NOT NULL,
    programme_code text NOT NULL,
    close_number   integer NOT NULL,
    last_day       date NOT NULL,
    period         text NOT NULL,
    closed_by      text NOT NULL,
    totals_digest  bytea,
    PRIMARY KEY (book, number)
);
COMMENT ON TABLE crm.close IS 'Where a closed business day or month ends in each book: later rows of that day belong to the next open one.';
COMMENT ON COLUMN crm.close.close_number IS 'Counted from 1 for each programme; every book has a row with it.';
COMMENT ON COLUMN crm.close.last_day IS 'The day closed, or the last day of the month closed.';
COMMENT ON COLUMN crm.close.period IS 'day or month.';
COMMENT ON COLUMN crm.close.totals_digest IS 'The SHA-256 of the totals frozen, on the one row that tells of them; NULL on the marks.';

CREATE TABLE crm.seal (
    seal_number integer PRIMARY KEY,
    ledger_id   uuid NOT NULL,
    sealed_at   timestamptz NOT NULL,
    document    text NOT NULL,
    signature   bytea NOT NULL,
    public_key  bytea NOT NULL
);
COMMENT ON TABLE crm.seal IS 'Signed heads of all books, kept outside the ledger''s database: a ledger that lost its tail does not fit them.';
COMMENT ON COLUMN crm.seal.document IS 'What was signed, as text: the ledger''s identity, and the number and hash of every book''s newest entry.';
COMMENT ON COLUMN crm.seal.signature IS 'The Ed25519 signature of document.';
COMMENT ON COLUMN crm.seal.public_key IS 'The key that proves it; compare it with the one that you were given.';

-- Seals are added only. (Whoever may drop the trigger may change them; the seal files are the second copy.)
CREATE FUNCTION crm.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of crm.% are added and never changed', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER seal_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON crm.seal
FOR EACH STATEMENT EXECUTE FUNCTION crm.refuse_change();

-- Each hold with its end, if it has one.
CREATE VIEW crm.hold_outcome AS
SELECT h.*, coalesce(e.how, 'open') AS how, e.number AS ended_number, e.booked_at AS ended_at, e.captured_minor,
       e.released_minor, e.reason AS end_reason
FROM crm.hold h LEFT JOIN crm.hold_end e ON e.book = h.book AND e.hold_number = h.number;
COMMENT ON VIEW crm.hold_outcome IS 'Holds with how they ended; how is open for those that have not ended here yet.';

-- Each line of a purchase with what is left of it after all returns.
CREATE VIEW crm.line_after_returns AS
SELECT l.book, l.number, l.line_number, l.sku, l.category, l.brand, l.tags, l.weighed,
       l.quantity_milli - r.quantity_milli AS quantity_milli,
       l.list_amount_minor - r.list_amount_minor AS list_amount_minor,
       l.discount_minor - r.discount_minor AS discount_minor,
       l.points_earned_minor - r.points_due_back_minor AS points_earned_minor
FROM crm.receipt_line l
CROSS JOIN LATERAL (
    SELECT coalesce(sum(r.quantity_milli), 0)::bigint AS quantity_milli,
           coalesce(sum(r.list_amount_minor), 0)::bigint AS list_amount_minor,
           coalesce(sum(r.discount_minor), 0)::bigint AS discount_minor,
           coalesce(sum(r.points_due_back_minor), 0)::bigint AS points_due_back_minor
    FROM crm.goods_return_line r
    WHERE r.book = l.book AND r.purchase_number = l.number AND r.line_number = l.line_number
) r;
COMMENT ON VIEW crm.line_after_returns IS 'The positions of receipts, less what came back of them.';

GRANT SELECT ON ALL TABLES IN SCHEMA crm TO tallypoint_reader;
