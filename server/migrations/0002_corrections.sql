-- Corrections: adjustments by hand with who asked and who approved, and members merged into others.

-- An adjustment of points by hand. Its request id is also the id of the message that books it, and the row and the
-- ledger's entry are written in one transaction. `state` counts as the API's AdjustmentState does.
CREATE TABLE server.adjustment_request (
    request_id         uuid PRIMARY KEY,
    content_hash       bytea NOT NULL CHECK (length(content_hash) = 32),
    book               integer NOT NULL,
    member_id          uuid NOT NULL,
    unit               text NOT NULL,
    points_minor       bigint NOT NULL CHECK (points_minor <> 0),
    reason_code        text NOT NULL,
    note               text NOT NULL,
    expires_on         date,
    state              smallint NOT NULL CHECK (state BETWEEN 1 AND 3),
    requested_by       text NOT NULL,
    requested_at       timestamptz NOT NULL,
    limit_points_minor bigint NOT NULL,
    used_points_minor  bigint NOT NULL,
    decided_by         text NOT NULL DEFAULT '',
    decided_at         timestamptz,
    decision_note      text NOT NULL DEFAULT '',
    entry_number       bigint,
    booked_at          timestamptz,
    CHECK ((state = 2) = (entry_number IS NOT NULL)),
    CHECK ((entry_number IS NULL) = (booked_at IS NULL)),
    CHECK ((decided_by = '') = (decided_at IS NULL)),
    CHECK (state <> 2 OR decided_by <> requested_by)
);

COMMENT ON COLUMN server.adjustment_request.limit_points_minor IS
    'What one person might book alone in a day when it was requested.';
COMMENT ON COLUMN server.adjustment_request.used_points_minor IS
    'What the person had booked alone on that day (UTC) before it.';
COMMENT ON COLUMN server.adjustment_request.decided_by IS
    'Who approved or rejected it; empty if it needed nobody or waits.';

-- Pages of the list, and the work that waits.
CREATE INDEX adjustment_request_age ON server.adjustment_request (requested_at, request_id);
CREATE INDEX adjustment_request_waiting ON server.adjustment_request (requested_at, request_id) WHERE state = 1;
CREATE INDEX adjustment_request_member ON server.adjustment_request (member_id, requested_at, request_id);

-- What a person booked alone on a day.
CREATE INDEX adjustment_request_alone ON server.adjustment_request (requested_by, requested_at)
    WHERE state = 2 AND decided_by = '';

-- A merged member's row stays, without personal data: that moves to the survivor's row, so that one UPDATE still
-- erases a person. `further_phones` and `further_tokens` came with merged members and recognise the survivor too.
-- `merged_from` has all who were merged into a member, directly or by way of others.
ALTER TABLE server.member
    DROP CONSTRAINT member_status_check,
    ADD CONSTRAINT member_status_check CHECK (status BETWEEN 1 AND 4),
    ADD COLUMN further_phones text[] NOT NULL DEFAULT '{}',
    ADD COLUMN further_tokens text[] NOT NULL DEFAULT '{}',
    ADD COLUMN merged_into uuid,
    ADD COLUMN merged_from uuid[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT member_merged_check CHECK ((status = 4) = (merged_into IS NOT NULL));

-- Merged members, whose points are moved on whenever some come back.
CREATE INDEX member_merged ON server.member (book, member_id) WHERE status = 4;

GRANT ALL ON server.adjustment_request TO tallypoint_owner;
GRANT SELECT, INSERT, UPDATE ON server.adjustment_request TO tallypoint_writer;
GRANT SELECT ON server.adjustment_request TO tallypoint_reader;
