-- The CRM database as its migrations make it: the whole schema in one file, to be read.
--
-- Nothing runs this file: databases are made and brought up to date by `migrations/`, whose files never change. Whoever
-- adds a migration makes the same change here; `make schema` proves that both make the same database, and names every
-- object that differs.
--
-- What the CRM, marketing and analysts query: members, receipts, lines, points movements, and what promotions did.
--
-- One writer, the CRM stream, adds what the ledger books, entry by entry; everybody else reads. A row of the
-- journal keeps its place: `book` and `number` name the ledger's entry in every table, so anything found here can
-- be proved there. Every primary key starts with `book`, as in the ledger, so Citus can distribute it. Rows are added,
-- never changed: where something ends later, as a hold does, its end is a row of its own.

-- The role of those who read. It cannot log in; grant it to people and tools.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tallypoint_reader') THEN
        CREATE ROLE tallypoint_reader NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- another database of the same server was migrated at this moment
END $$;

CREATE SCHEMA crm;
COMMENT ON SCHEMA crm IS 'Members, receipts and points as the ledger booked them; written by the CRM stream only.';

-- --- How far this database has come, and members ---

CREATE TABLE crm.cursor (
    book       integer PRIMARY KEY,
    ledger_id  uuid NOT NULL,
    number     bigint NOT NULL CHECK (number >= 0),
    hash       bytea NOT NULL CHECK (length(hash) = 32),
    booked_at  timestamptz NOT NULL,
    applied_at timestamptz NOT NULL,
    state      text NOT NULL DEFAULT 'following' CHECK (state IN ('following', 'refused')),
    reason     text CHECK ((reason IS NOT NULL) = (state = 'refused'))
) WITH (fillfactor = 10);
COMMENT ON TABLE crm.cursor IS 'How far each book of the ledger has been applied here. Moved together with the rows.';
COMMENT ON COLUMN crm.cursor.ledger_id IS 'The identity of the ledger that this database follows.';
COMMENT ON COLUMN crm.cursor.number IS 'The newest entry applied; 0 before the first.';
COMMENT ON COLUMN crm.cursor.hash IS 'That entry''s hash; the next entry must extend it.';
COMMENT ON COLUMN crm.cursor.booked_at IS 'When that entry was booked in the ledger.';
COMMENT ON COLUMN crm.cursor.state IS 'following, or refused: the book has stopped, for the reason given.';

CREATE TABLE crm.member (
    book          integer NOT NULL,
    member_id     uuid NOT NULL,
    version       integer NOT NULL,
    status        text NOT NULL,
    name          text NOT NULL,
    phone         text,
    birthday      date,
    language      text NOT NULL,
    card_numbers  text[] NOT NULL,
    card_statuses text[] NOT NULL,
    registered_at timestamptz NOT NULL,
    PRIMARY KEY (book, member_id)
) WITH (fillfactor = 80);
CREATE INDEX member_phone ON crm.member (phone) WHERE phone IS NOT NULL;
COMMENT ON TABLE crm.member IS 'Members with their personal data, each in one row: the newest version only.';
COMMENT ON COLUMN crm.member.version IS 'The version of the record, counted from 1 and raised by every change.';
COMMENT ON COLUMN crm.member.status IS 'active, earn_only (cannot spend), blocked or merged (into another member).';
COMMENT ON COLUMN crm.member.phone IS 'The phone number in E.164, such as +380501234567.';
COMMENT ON COLUMN crm.member.language IS 'The language for texts, an IETF tag; empty if unknown.';
COMMENT ON COLUMN crm.member.card_numbers IS 'The plastic cards, newest first.';
COMMENT ON COLUMN crm.member.card_statuses IS 'What each of card_numbers is worth: active, replaced or blocked.';

-- --- Receipts ---

CREATE TABLE crm.receipt (
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
    identified_by           text,
    programme_code          text NOT NULL,
    programme_version       integer NOT NULL,
    currency_code           text NOT NULL,
    line_count              integer NOT NULL,
    gross_amount_minor      bigint NOT NULL,
    discount_minor          bigint NOT NULL,
    points_money_minor      bigint NOT NULL,
    net_amount_minor        bigint NOT NULL,
    points_unit             text,
    points_precision        smallint,
    points_earned_minor     bigint NOT NULL,
    points_spent_minor      bigint NOT NULL,
    points_left_out_minor   bigint NOT NULL,
    balance_after_minor     bigint,
    has_variance            boolean NOT NULL,
    coupon_codes            text[] NOT NULL,
    partner                 text,
    PRIMARY KEY (book, number)
);
CREATE INDEX receipt_member ON crm.receipt (book, member_id, event_at) WHERE member_id IS NOT NULL;
CREATE INDEX receipt_key ON crm.receipt (business_date, store_id, terminal_id, receipt_number);
COMMENT ON TABLE crm.receipt IS 'Receipts as paid. Money is in minor units of currency_code, points in the smallest fraction of points_unit.';
COMMENT ON COLUMN crm.receipt.number IS 'The entry of the ledger, gap-free inside its book; not every entry is a receipt.';
COMMENT ON COLUMN crm.receipt.business_date IS 'The store''s business date; with store, terminal and receipt_number it is the receipt''s key.';
COMMENT ON COLUMN crm.receipt.booked_at IS 'When the ledger booked the receipt.';
COMMENT ON COLUMN crm.receipt.event_at IS 'The register''s clock at the sale; time_zone is the store''s.';
COMMENT ON COLUMN crm.receipt.member_id IS 'The member; NULL for a receipt without one.';
COMMENT ON COLUMN crm.receipt.identified_by IS 'card, phone, member_id or digital_token; NULL for a receipt without a member.';
COMMENT ON COLUMN crm.receipt.gross_amount_minor IS 'List prices of all lines.';
COMMENT ON COLUMN crm.receipt.discount_minor IS 'Discounts that the register gave on all lines.';
COMMENT ON COLUMN crm.receipt.points_money_minor IS 'The money that points paid, those of further units included; crm.unit_points has the parts.';
COMMENT ON COLUMN crm.receipt.net_amount_minor IS 'What was paid in money: gross less discount less what points paid.';
COMMENT ON COLUMN crm.receipt.points_precision IS 'Decimal places of a point: 2 means that points_..._minor count hundredths.';
COMMENT ON COLUMN crm.receipt.points_left_out_minor IS 'Points that the shopper asked to spend and that were not spent.';
COMMENT ON COLUMN crm.receipt.balance_after_minor IS 'The member''s spendable points after this receipt.';
COMMENT ON COLUMN crm.receipt.has_variance IS 'The register gave another discount on some line than the rules.';
COMMENT ON COLUMN crm.receipt.partner IS 'The coalition partner in whose store it was paid; NULL in the chain''s own.';

-- A receipt has many lines and a line many promotions: as objects in jsonb they were two thirds of this database, and
-- most of the work of filling it. So each promotion is a short array, and the text is kept as it came.
CREATE TABLE crm.receipt_line (
    book                integer NOT NULL,
    number              bigint NOT NULL,
    line_number         integer NOT NULL,
    sku                 text NOT NULL,
    category            text NOT NULL,
    brand               text NOT NULL,
    tags                text[] NOT NULL,
    quantity_milli      bigint NOT NULL,
    weighed             boolean NOT NULL,
    list_amount_minor   bigint NOT NULL,
    discount_minor      bigint NOT NULL,
    points_money_minor  bigint NOT NULL,
    points_earned_minor bigint NOT NULL,
    promotions          json NOT NULL,
    PRIMARY KEY (book, number, line_number)
);
COMMENT ON TABLE crm.receipt_line IS 'The positions of receipts.';
COMMENT ON COLUMN crm.receipt_line.category IS 'The category as a path, such as grocery/frozen/ice; empty if the receipt had none.';
COMMENT ON COLUMN crm.receipt_line.quantity_milli IS 'Thousandths of a piece, kilogram or litre.';
COMMENT ON COLUMN crm.receipt_line.list_amount_minor IS 'The list price of the whole line before any discount.';
COMMENT ON COLUMN crm.receipt_line.discount_minor IS 'The discount that the register gave on the line.';
COMMENT ON COLUMN crm.receipt_line.points_money_minor IS 'The part of the line that the rules let points pay.';
COMMENT ON COLUMN crm.receipt_line.points_earned_minor IS 'Points of the programme''s own unit; promotions has all.';
COMMENT ON COLUMN crm.receipt_line.promotions IS 'What each promotion did, as arrays of promotion, discount, points, base, further unit and partner, the last ones left out where they are nothing; read it through crm.line_promotion.';

-- One row for each promotion that did something to a line.
CREATE VIEW crm.line_promotion AS
SELECT l.book, l.number, l.line_number, p.ordinal, p.part ->> 0 AS promotion_id,
       coalesce((p.part ->> 1)::bigint, 0) AS discount_minor,
       coalesce((p.part ->> 3)::bigint, 0) AS base_minor,
       coalesce((p.part ->> 2)::bigint, 0) AS points_minor,
       p.part ->> 4 AS further_unit, p.part ->> 5 AS partner
FROM crm.receipt_line l
CROSS JOIN LATERAL json_array_elements(l.promotions) WITH ORDINALITY AS p (part, ordinal);
COMMENT ON VIEW crm.line_promotion IS 'What each promotion did to each line by the rules: a discount, or points granted on base_minor of money.';
COMMENT ON COLUMN crm.line_promotion.further_unit IS 'The unit of the points; NULL for the programme''s own. Add up points of one unit only.';
COMMENT ON COLUMN crm.line_promotion.partner IS 'The coalition partner at whose expense they are; NULL for the programme itself.';

-- --- Returns ---

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
    kept_back_money_minor   bigint NOT NULL DEFAULT 0,
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
COMMENT ON COLUMN crm.goods_return.clawback IS 'How earned points are taken back: debt, within_balance, own_lot_only or off_the_refund.';
COMMENT ON COLUMN crm.goods_return.purchase_complete IS 'Nothing of the purchase is left to return.';
COMMENT ON COLUMN crm.goods_return.coupon_codes IS 'Coupons that came back because all that they had paid for came back.';
COMMENT ON COLUMN crm.goods_return.kept_back_money_minor IS 'Money kept back for points that came with the goods, bought or earned, and could not be taken back; refund_money_minor is without it.';

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

-- --- Points ---

CREATE TABLE crm.point_unit (
    unit             smallint PRIMARY KEY,
    code             text NOT NULL,
    points_precision smallint NOT NULL
);
COMMENT ON TABLE crm.point_unit IS 'The point units of the ledger.';
COMMENT ON COLUMN crm.point_unit.points_precision IS 'Decimal places of a point: 2 means that points_minor count hundredths.';

CREATE TABLE crm.points_movement (
    book         integer NOT NULL,
    number       bigint NOT NULL,
    ordinal      integer NOT NULL,
    booked_at    timestamptz NOT NULL,
    member_id    uuid,
    unit         integer NOT NULL,
    debit        text NOT NULL,
    credit       text NOT NULL,
    points_minor bigint NOT NULL,
    lot_number   bigint NOT NULL,
    lot_ordinal  integer NOT NULL,
    active_at    timestamptz,
    expires_at   timestamptz,
    issued_at    timestamptz,
    kind         text NOT NULL,
    PRIMARY KEY (book, number, ordinal)
);
CREATE INDEX points_movement_member ON crm.points_movement (book, member_id, number) WHERE member_id IS NOT NULL;
COMMENT ON TABLE crm.points_movement IS 'Points that moved from one account to another. Earning is issued to available or pending, spending is available or held to redeemed, lapsing is available to expired; a return moves redeemed to available, and available, pending or debt to issued.';
COMMENT ON COLUMN crm.points_movement.unit IS 'The point unit, as the ledger numbers it: crm.point_unit has its code.';
COMMENT ON COLUMN crm.points_movement.debit IS 'The account that gives: the member''s available, pending, held or debt, the programme''s issued, redeemed, expired, adjusted or clearing, or partner: and a coalition partner''s code.';
COMMENT ON COLUMN crm.points_movement.credit IS 'The account that takes, as debit.';
COMMENT ON COLUMN crm.points_movement.lot_number IS 'The entry of the same book that granted these points; with lot_ordinal it names the grant''s own row here.';
COMMENT ON COLUMN crm.points_movement.active_at IS 'For a grant: when its points become active; NULL means at once.';
COMMENT ON COLUMN crm.points_movement.expires_at IS 'For a grant: when its points lapse; NULL means never.';
COMMENT ON COLUMN crm.points_movement.issued_at IS 'For points that were granted before, in another lot (transfers, points given back after they had lapsed): when they were first granted.';
COMMENT ON COLUMN crm.points_movement.kind IS 'What the entry is: purchase, return, hold, cancel, time, adjustment or transfer. Any of them may also move points whose time had come.';

CREATE TABLE crm.unit_points (
    book                integer NOT NULL,
    number              bigint NOT NULL,
    points_unit         text NOT NULL,
    points_precision    smallint NOT NULL,
    booked_at           timestamptz NOT NULL,
    member_id           uuid,
    kind                text NOT NULL,
    earned_minor        bigint NOT NULL,
    spent_minor         bigint NOT NULL,
    spent_money_minor   bigint NOT NULL,
    left_out_minor      bigint NOT NULL,
    given_back_minor    bigint NOT NULL,
    taken_back_minor    bigint NOT NULL,
    balance_after_minor bigint NOT NULL,
    debt_after_minor    bigint NOT NULL,
    PRIMARY KEY (book, number, points_unit)
);
COMMENT ON TABLE crm.unit_points IS 'What receipts and returns did to points of units other than the programme''s own, such as gift points.';
COMMENT ON COLUMN crm.unit_points.kind IS 'purchase or return.';
COMMENT ON COLUMN crm.unit_points.earned_minor IS 'Points earned, or bought with the receipt.';
COMMENT ON COLUMN crm.unit_points.left_out_minor IS 'Points that the shopper asked to spend and that the balance did not cover.';
COMMENT ON COLUMN crm.unit_points.balance_after_minor IS 'The member''s spendable points of the unit afterwards.';
COMMENT ON COLUMN crm.unit_points.debt_after_minor IS 'The points of the unit that the member owes afterwards.';

-- --- Holds, and how they ended ---

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

-- Each hold with its end, if it has one.
CREATE VIEW crm.hold_outcome AS
SELECT h.*, coalesce(e.how, 'open') AS how, e.number AS ended_number, e.booked_at AS ended_at, e.captured_minor,
       e.released_minor, e.reason AS end_reason
FROM crm.hold h LEFT JOIN crm.hold_end e ON e.book = h.book AND e.hold_number = h.number;
COMMENT ON VIEW crm.hold_outcome IS 'Holds with how they ended; how is open for those that have not ended here yet.';

-- --- Corrections, closes ---

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

-- --- What promotions did ---

CREATE TABLE crm.coupon_event (
    book          integer NOT NULL,
    number        bigint NOT NULL,
    ordinal       integer NOT NULL,
    booked_at     timestamptz NOT NULL,
    member_id     uuid,
    kind          text NOT NULL,
    code          text NOT NULL,
    action        text NOT NULL,
    slot          integer,
    series        text,
    promotion_ids text[] NOT NULL,
    valid_from    date,
    valid_until   date,
    PRIMARY KEY (book, number, ordinal)
);
CREATE INDEX coupon_event_code ON crm.coupon_event (code, booked_at);
CREATE INDEX coupon_event_member ON crm.coupon_event (book, member_id, booked_at) WHERE member_id IS NOT NULL;
COMMENT ON TABLE crm.coupon_event IS 'What became of coupons, one row each time: issued with a receipt, held for a checkout, used, released, revoked.';
COMMENT ON COLUMN crm.coupon_event.kind IS 'What the entry is, as in crm.points_movement.';
COMMENT ON COLUMN crm.coupon_event.action IS 'issued; held (kept for a checkout); used; released (free again: the hold ended, or goods came back); revoked (the goods for which it was issued came back).';
COMMENT ON COLUMN crm.coupon_event.slot IS 'Which of the coupon''s uses, counted from 0; NULL where it is issued.';
COMMENT ON COLUMN crm.coupon_event.series IS 'The series, where the entry tells it: of coupons issued and used; empty for a generic code.';
COMMENT ON COLUMN crm.coupon_event.promotion_ids IS 'The promotions that applied because of it, or the one that issued it.';
COMMENT ON COLUMN crm.coupon_event.valid_from IS 'For one that is issued: the first day on which it counts.';
COMMENT ON COLUMN crm.coupon_event.valid_until IS 'For one that is issued: the last day on which it counts; NULL if it does not lapse.';

CREATE TABLE crm.tier_change (
    book        integer NOT NULL,
    number      bigint NOT NULL,
    booked_at   timestamptz NOT NULL,
    event_at    timestamptz NOT NULL,
    member_id   uuid NOT NULL,
    tier_before text,
    tier_after  text,
    good_until  date,
    PRIMARY KEY (book, number)
);
CREATE INDEX tier_change_member ON crm.tier_change (book, member_id, booked_at);
COMMENT ON TABLE crm.tier_change IS 'Receipts with which members reached a level, and returns with which they lost it.';
COMMENT ON COLUMN crm.tier_change.tier_before IS 'The level before; NULL for none.';
COMMENT ON COLUMN crm.tier_change.tier_after IS 'The level after; NULL for none.';
COMMENT ON COLUMN crm.tier_change.good_until IS 'The last day on which it is certain; NULL if it is never taken away.';

CREATE TABLE crm.withheld (
    book         integer NOT NULL,
    number       bigint NOT NULL,
    ordinal      integer NOT NULL,
    booked_at    timestamptz NOT NULL,
    event_at     timestamptz NOT NULL,
    member_id    uuid,
    promotion_id text NOT NULL,
    reason       text NOT NULL,
    PRIMARY KEY (book, number, ordinal)
);
CREATE INDEX withheld_promotion ON crm.withheld (promotion_id, event_at);
COMMENT ON TABLE crm.withheld IS 'Promotions whose conditions held on a receipt and that were not applied: what control groups did not get.';
COMMENT ON COLUMN crm.withheld.reason IS 'control: the member is in a control group.';

CREATE TABLE crm.draw_entry (
    book         integer NOT NULL,
    number       bigint NOT NULL,
    ordinal      integer NOT NULL,
    booked_at    timestamptz NOT NULL,
    event_at     timestamptz NOT NULL,
    member_id    uuid,
    draw         text NOT NULL,
    entries      integer NOT NULL,
    promotion_id text NOT NULL,
    PRIMARY KEY (book, number, ordinal)
);
CREATE INDEX draw_entry_draw ON crm.draw_entry (draw, member_id);
COMMENT ON TABLE crm.draw_entry IS 'Entries into prize draws that receipts gave, and, as negative numbers without a promotion, those that returns took back: the sum counts.';

-- --- Seals ---

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

-- --- Rights: the journal's rows are added and never changed here; only the stream's own user may write ---

GRANT USAGE ON SCHEMA crm TO tallypoint_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA crm TO tallypoint_reader;
