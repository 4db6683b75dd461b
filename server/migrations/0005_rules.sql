-- From a draft to the tills: for whom a version of the programme counts, and what shadows would have changed.

-- What was said about for whom a version counts; never changed, only added to. For a receipt the newest row holds whose
-- `from_at` has come by the receipt's own time; null stands for what a version begins with. A version without any row
-- counts for everybody. `mode` is 1 for live and 2 for a shadow, `share_by` 1 for stores and 2 for receipts, as the
-- API's RolloutMode and RolloutBy.
CREATE TABLE server.rules_rollout (
    rollout          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version          integer NOT NULL REFERENCES server.programme_version,
    mode             smallint NOT NULL CHECK (mode IN (1, 2)),
    share_millionths integer NOT NULL CHECK (share_millionths BETWEEN 0 AND 1000000),
    share_by         smallint NOT NULL CHECK (share_by IN (1, 2)),
    from_at          timestamptz,
    set_by           text NOT NULL
);

-- A version begins once.
CREATE UNIQUE INDEX rules_rollout_beginning ON server.rules_rollout (version) WHERE from_at IS NULL;

-- What a shadow would have changed, by the store's calendar day: sums that workers add to once a second.
CREATE TABLE server.rules_shadow (
    version             integer NOT NULL REFERENCES server.programme_version,
    day                 date NOT NULL,
    store_id            text NOT NULL,
    receipts            bigint NOT NULL,
    differing           bigint NOT NULL,
    live_discount_minor bigint NOT NULL,
    discount_minor      bigint NOT NULL,
    live_points_minor   bigint NOT NULL,
    points_minor        bigint NOT NULL,
    failed              bigint NOT NULL,
    PRIMARY KEY (version, day, store_id)
);

GRANT ALL ON server.rules_rollout, server.rules_shadow TO tallypoint_owner;
GRANT SELECT, INSERT ON server.rules_rollout TO tallypoint_writer;
GRANT SELECT, INSERT, UPDATE ON server.rules_shadow TO tallypoint_writer;
GRANT SELECT ON server.rules_rollout, server.rules_shadow TO tallypoint_reader;
