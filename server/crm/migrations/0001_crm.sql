-- What the CRM, marketing and analysts query: members, receipts, lines and points movements.
--
-- One writer, the CRM stream, adds what the ledger books, entry by entry; everybody else reads. A row of the
-- journal keeps its place: `book` and `number` name the ledger's entry in every table, so anything found here can
-- be proved there. Every primary key starts with `book`, as in the ledger, so Citus can distribute it.

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
COMMENT ON COLUMN crm.member.status IS 'active, earn_only (cannot spend) or blocked.';
COMMENT ON COLUMN crm.member.phone IS 'The phone number in E.164, such as +380501234567.';
COMMENT ON COLUMN crm.member.language IS 'The language for texts, an IETF tag; empty if unknown.';
COMMENT ON COLUMN crm.member.card_numbers IS 'The plastic cards, newest first.';
COMMENT ON COLUMN crm.member.card_statuses IS 'What each of card_numbers is worth: active, replaced or blocked.';

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
COMMENT ON COLUMN crm.receipt.points_money_minor IS 'The money that points paid.';
COMMENT ON COLUMN crm.receipt.net_amount_minor IS 'What was paid in money: gross less discount less what points paid.';
COMMENT ON COLUMN crm.receipt.points_precision IS 'Decimal places of a point: 2 means that points_..._minor count hundredths.';
COMMENT ON COLUMN crm.receipt.points_left_out_minor IS 'Points that the shopper asked to spend and that were not spent.';
COMMENT ON COLUMN crm.receipt.balance_after_minor IS 'The member''s spendable points after this receipt.';
COMMENT ON COLUMN crm.receipt.has_variance IS 'The register gave another discount on some line than the rules.';

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
    promotions          jsonb NOT NULL,
    PRIMARY KEY (book, number, line_number)
);
COMMENT ON TABLE crm.receipt_line IS 'The positions of receipts.';
COMMENT ON COLUMN crm.receipt_line.category IS 'The category as a path, such as grocery/frozen/ice; empty if the receipt had none.';
COMMENT ON COLUMN crm.receipt_line.quantity_milli IS 'Thousandths of a piece, kilogram or litre.';
COMMENT ON COLUMN crm.receipt_line.list_amount_minor IS 'The list price of the whole line before any discount.';
COMMENT ON COLUMN crm.receipt_line.discount_minor IS 'The discount that the register gave on the line.';
COMMENT ON COLUMN crm.receipt_line.points_money_minor IS 'The part of the line that the rules let points pay.';
COMMENT ON COLUMN crm.receipt_line.points_earned_minor IS 'The points granted for the line.';
COMMENT ON COLUMN crm.receipt_line.promotions IS 'What each promotion did; read it through crm.line_promotion.';

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
    PRIMARY KEY (book, number, ordinal)
);
CREATE INDEX points_movement_member ON crm.points_movement (book, member_id, number) WHERE member_id IS NOT NULL;
COMMENT ON TABLE crm.points_movement IS 'Points that moved from one account to another: earning is issued to available or pending, spending is available to redeemed, lapsing is available to expired.';
COMMENT ON COLUMN crm.points_movement.unit IS 'The point unit, as numbered in the ledger.';
COMMENT ON COLUMN crm.points_movement.debit IS 'The account that gives.';
COMMENT ON COLUMN crm.points_movement.credit IS 'The account that takes.';
COMMENT ON COLUMN crm.points_movement.lot_number IS 'The entry of the same book that granted these points; with lot_ordinal it names the grant''s own row here.';
COMMENT ON COLUMN crm.points_movement.active_at IS 'For a grant: when its points become active; NULL means at once.';
COMMENT ON COLUMN crm.points_movement.expires_at IS 'For a grant: when its points lapse; NULL means never.';

-- One row for each promotion that did something to a line.
CREATE VIEW crm.line_promotion AS
SELECT l.book, l.number, l.line_number, p.ordinal, p.part ->> 'promotion_id' AS promotion_id,
       coalesce((p.part ->> 'discount_minor')::bigint, 0) AS discount_minor,
       coalesce((p.part ->> 'base_minor')::bigint, 0) AS base_minor,
       coalesce((p.part ->> 'points_minor')::bigint, 0) AS points_minor
FROM crm.receipt_line l
CROSS JOIN LATERAL jsonb_array_elements(l.promotions) WITH ORDINALITY AS p (part, ordinal);
COMMENT ON VIEW crm.line_promotion IS 'What each promotion did to each line by the rules: a discount, or points granted on base_minor of money.';

-- The journal's rows are added and never changed here; only the stream's own user may write.
GRANT USAGE ON SCHEMA crm TO tallypoint_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA crm TO tallypoint_reader;
