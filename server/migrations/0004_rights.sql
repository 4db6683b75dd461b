-- Rights and audiences: coupons, segments and personal offers; suppliers of goods, groups and partners of stores.

ALTER TABLE server.product ADD COLUMN supplier text NOT NULL DEFAULT '';

ALTER TABLE server.store
    ADD COLUMN groups text[] NOT NULL DEFAULT '{}',
    ADD COLUMN partner text NOT NULL DEFAULT '';

-- Coupons that were loaded or generated, in their normal form; rows are added and never changed. Coupons that receipts
-- gave stand in ledger.coupon_issued. `member_id` is whose it is, null for a bearer's. A coupon stays with the id that
-- it was given to: after a merge that is one of the survivor's ids.
CREATE TABLE server.coupon (
    code        text COLLATE "C" PRIMARY KEY,
    series      text NOT NULL,
    member_id   uuid,
    uses        smallint NOT NULL CHECK (uses > 0),
    valid_from  date,
    valid_until date
);

CREATE INDEX coupon_of_member ON server.coupon (member_id) WHERE member_id IS NOT NULL;

-- Codes and whole series that are blocked, whoever gave them. Series are few, and the same everywhere.
CREATE TABLE server.coupon_block (
    code       text COLLATE "C" PRIMARY KEY,
    blocked_by text NOT NULL,
    blocked_at timestamptz NOT NULL
);

CREATE TABLE server.coupon_series_block (
    series     text PRIMARY KEY,
    blocked_by text NOT NULL,
    blocked_at timestamptz NOT NULL
);

-- Requests that generated coupons, so that one sent again answers with the same codes. The codes are made of
-- `request_id`, `attempt` and the service's secret.
CREATE TABLE server.coupon_generation (
    request_id   uuid PRIMARY KEY,
    content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
    attempt      integer NOT NULL,
    generated_by text NOT NULL,
    generated_at timestamptz NOT NULL
);

-- Which segments a member is in and which offers were made, one row a member. `segments` leads from a segment to the
-- load that last put the member there (empty: nobody's), `offers` from a promotion to [first day, last day], null for
-- none.
CREATE TABLE server.member_audience (
    book      integer NOT NULL CHECK (book >= 0),
    member_id uuid NOT NULL,
    segments  jsonb NOT NULL DEFAULT '{}',
    offers    jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (book, member_id)
) WITH (fillfactor = 80);

GRANT ALL ON server.coupon, server.coupon_block, server.coupon_series_block, server.coupon_generation,
    server.member_audience TO tallypoint_owner;
GRANT SELECT ON server.coupon, server.coupon_block, server.coupon_series_block, server.coupon_generation,
    server.member_audience TO tallypoint_writer, tallypoint_reader;
GRANT INSERT ON server.coupon, server.coupon_generation TO tallypoint_writer;
GRANT INSERT, DELETE ON server.coupon_block, server.coupon_series_block TO tallypoint_writer;
GRANT INSERT, UPDATE, DELETE ON server.member_audience TO tallypoint_writer;
