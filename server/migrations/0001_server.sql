-- Who is a member and by what they are recognised; stores, terminals and keys; the catalogue; the programme.
--
-- Tables of members start their primary key with `book`; the tables that lead to a book are keyed by their own
-- hash or message id. The rest is small and the same everywhere.

CREATE SCHEMA server;

-- A member. All personal data of a member stands in this one row, so that one UPDATE erases it.
-- `status` and `card_statuses` count as the API's MemberStatus and CardStatus do.
CREATE TABLE server.member (
    book          integer NOT NULL CHECK (book >= 0),
    member_id     uuid NOT NULL,
    status        smallint NOT NULL CHECK (status BETWEEN 1 AND 3),
    status_reason text NOT NULL DEFAULT '',
    name          text NOT NULL DEFAULT '',
    birthday      date,
    language      text NOT NULL DEFAULT '',
    phone         text,
    digital_token text,
    card_numbers  text[] NOT NULL DEFAULT '{}',
    card_statuses smallint[] NOT NULL DEFAULT '{}',
    registered_at timestamptz NOT NULL,
    version       integer NOT NULL CHECK (version > 0),
    PRIMARY KEY (book, member_id),
    CHECK (cardinality(card_numbers) = cardinality(card_statuses))
) WITH (fillfactor = 80);

-- What a register reads, led to its member: an index by keyed hash that holds no personal data. `kind` counts as
-- the API's IdentifierKind and `status` as its CardStatus do.
CREATE TABLE server.member_identifier (
    identifier_hash bytea PRIMARY KEY CHECK (length(identifier_hash) = 32),
    kind            smallint NOT NULL CHECK (kind IN (1, 2, 4)),
    status          smallint NOT NULL CHECK (status BETWEEN 1 AND 3),
    book            integer NOT NULL,
    member_id       uuid NOT NULL
);

-- Messages of administrators that changed a member: the same message changes nothing again.
CREATE TABLE server.admin_message (
    message_id   uuid PRIMARY KEY,
    content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
    book         integer NOT NULL,
    member_id    uuid NOT NULL,
    received_at  timestamptz NOT NULL
);

-- Stores and the time zones in which their dates are judged.
CREATE TABLE server.store (
    store_id  text PRIMARY KEY,
    name      text NOT NULL,
    time_zone text NOT NULL
);

CREATE TABLE server.terminal (
    store_id    text NOT NULL REFERENCES server.store,
    terminal_id text NOT NULL,
    PRIMARY KEY (store_id, terminal_id)
);

-- Keys of terminals and of back-office callers, as keyed hashes. `role` is the name of a role.
CREATE TABLE server.api_key (
    key_hash    bytea PRIMARY KEY CHECK (length(key_hash) = 32),
    role        text NOT NULL,
    name        text NOT NULL,
    store_id    text,
    terminal_id text,
    issued_at   timestamptz NOT NULL,
    revoked_at  timestamptz,
    FOREIGN KEY (store_id, terminal_id) REFERENCES server.terminal,
    CHECK ((role = 'TERMINAL') = (terminal_id IS NOT NULL)),
    CHECK ((store_id IS NULL) = (terminal_id IS NULL))
);

-- A terminal has at most one key that works.
CREATE UNIQUE INDEX api_key_of_terminal ON server.api_key (store_id, terminal_id) WHERE revoked_at IS NULL;

-- The catalogue. `version` is the version of the topic `products` that last changed the row.
CREATE TABLE server.product (
    sku      text PRIMARY KEY,
    category text NOT NULL,
    brand    text NOT NULL,
    tags     text[] NOT NULL,
    name     text NOT NULL,
    version  bigint NOT NULL
);

CREATE INDEX product_version ON server.product (version);

-- Programme files as they were published; never changed.
CREATE TABLE server.programme_version (
    version      integer PRIMARY KEY CHECK (version > 0),
    code         text NOT NULL,
    effective_at timestamptz NOT NULL,
    published_at timestamptz NOT NULL,
    text_sha256  bytea NOT NULL CHECK (length(text_sha256) = 32),
    text         text NOT NULL
);

-- One version number a topic. A write of a topic raises it first, which puts the topic's writers in a queue, so
-- that versions become visible in their order.
CREATE TABLE server.config_version (
    topic   text PRIMARY KEY,
    version bigint NOT NULL
);

INSERT INTO server.config_version (topic, version) VALUES ('stores', 0), ('products', 0), ('programme', 0);

GRANT USAGE ON SCHEMA server TO tallypoint_owner, tallypoint_writer, tallypoint_reader;
GRANT ALL ON ALL TABLES IN SCHEMA server TO tallypoint_owner;
GRANT SELECT ON ALL TABLES IN SCHEMA server TO tallypoint_writer;
GRANT INSERT, UPDATE ON server.member, server.member_identifier, server.store, server.api_key, server.product
    TO tallypoint_writer;
GRANT INSERT, DELETE ON server.admin_message TO tallypoint_writer;
GRANT INSERT ON server.terminal, server.programme_version TO tallypoint_writer;
GRANT UPDATE ON server.config_version TO tallypoint_writer;
GRANT SELECT ON server.member, server.store, server.terminal, server.product, server.programme_version,
    server.config_version TO tallypoint_reader;
