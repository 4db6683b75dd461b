-- What promotions did to a line, in a third of the room.
--
-- A receipt has many lines and a line many promotions: as objects in jsonb they were two thirds of this database, and
-- most of the work of filling it. Now each promotion is a short array, and the text is kept as it came.

CREATE FUNCTION pg_temp.as_arrays(promotions jsonb) RETURNS json LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(json_agg(
        CASE
            WHEN part ? 'discount_minor' THEN json_build_array(part -> 'promotion_id', part -> 'discount_minor')
            WHEN part ?| ARRAY['unit', 'partner'] THEN json_build_array(
                part -> 'promotion_id', 0, part -> 'points_minor', part -> 'base_minor', part -> 'unit', part -> 'partner')
            ELSE json_build_array(part -> 'promotion_id', 0, part -> 'points_minor', part -> 'base_minor')
        END ORDER BY ordinal), '[]')
    FROM jsonb_array_elements(promotions) WITH ORDINALITY AS p (part, ordinal)
$$;

DROP VIEW crm.line_promotion;
ALTER TABLE crm.receipt_line ALTER COLUMN promotions TYPE json USING pg_temp.as_arrays(promotions);
DROP FUNCTION pg_temp.as_arrays;
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

GRANT SELECT ON crm.line_promotion TO tallypoint_reader;
