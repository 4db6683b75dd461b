-- What a return kept back of the money: for points that had come with the goods and were spent since.

ALTER TABLE crm.goods_return ADD COLUMN kept_back_money_minor bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN crm.goods_return.kept_back_money_minor IS 'Money kept back for points that came with the goods, bought or earned, and could not be taken back; refund_money_minor is without it.';
COMMENT ON COLUMN crm.goods_return.clawback IS 'How earned points are taken back: debt, within_balance, own_lot_only or off_the_refund.';

COMMENT ON TABLE crm.tier_change IS 'Receipts with which members reached a level, and returns with which they lost it.';
COMMENT ON TABLE crm.draw_entry IS 'Entries into prize draws that receipts gave, and, as negative numbers without a promotion, those that returns took back: the sum counts.';
