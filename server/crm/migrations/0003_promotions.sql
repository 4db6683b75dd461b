-- What promotions did: coupons, levels, control groups, prize draws, points of further units, coalition partners.
--
-- As before, `book` and `number` name the ledger's entry in every table, and rows are added, never changed.

ALTER TABLE crm.receipt ADD COLUMN partner text;
COMMENT ON COLUMN crm.receipt.partner IS 'The coalition partner in whose store it was paid; NULL in the chain''s own.';
COMMENT ON COLUMN crm.receipt.points_money_minor IS 'The money that points paid, those of further units included; crm.unit_points has the parts.';
COMMENT ON COLUMN crm.receipt_line.points_earned_minor IS 'Points of the programme''s own unit; promotions has all.';
COMMENT ON COLUMN crm.points_movement.unit IS 'The point unit, as the ledger numbers it: crm.point_unit has its code.';
COMMENT ON COLUMN crm.points_movement.debit IS 'The account that gives: the member''s available, pending, held or debt, the programme''s issued, redeemed, expired, adjusted or clearing, or partner: and a coalition partner''s code.';
COMMENT ON COLUMN crm.points_movement.credit IS 'The account that takes, as debit.';

-- Which points each promotion granted, and at whose expense.
CREATE OR REPLACE VIEW crm.line_promotion AS
SELECT l.book, l.number, l.line_number, p.ordinal, p.part ->> 'promotion_id' AS promotion_id,
       coalesce((p.part ->> 'discount_minor')::bigint, 0) AS discount_minor,
       coalesce((p.part ->> 'base_minor')::bigint, 0) AS base_minor,
       coalesce((p.part ->> 'points_minor')::bigint, 0) AS points_minor,
       p.part ->> 'unit' AS further_unit, p.part ->> 'partner' AS partner
FROM crm.receipt_line l
CROSS JOIN LATERAL jsonb_array_elements(l.promotions) WITH ORDINALITY AS p (part, ordinal);
COMMENT ON COLUMN crm.line_promotion.further_unit IS 'The unit of the points; NULL for the programme''s own. Add up points of one unit only.';
COMMENT ON COLUMN crm.line_promotion.partner IS 'The coalition partner at whose expense they are; NULL for the programme itself.';

CREATE TABLE crm.point_unit (
    unit             smallint PRIMARY KEY,
    code             text NOT NULL,
    points_precision smallint NOT NULL
);
COMMENT ON TABLE crm.point_unit IS 'The point units of the ledger.';
COMMENT ON COLUMN crm.point_unit.points_precision IS 'Decimal places of a point: 2 means that points_minor count hundredths.';

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
COMMENT ON TABLE crm.tier_change IS 'Receipts with which members reached a level or lost it.';
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
COMMENT ON TABLE crm.draw_entry IS 'Entries into prize draws that receipts gave. Returns are in crm.goods_return: whoever draws decides what they mean.';

GRANT SELECT ON ALL TABLES IN SCHEMA crm TO tallypoint_reader;
