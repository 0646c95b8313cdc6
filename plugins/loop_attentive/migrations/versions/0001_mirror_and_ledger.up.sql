-- Mirror, change log, ledger and audit views: the whole database of the pipeline.
-- Every time is a timestamptz; every id is text, as the sources have them.

-- ── What the pipeline knows of a shop and its source ────────────────────────

CREATE TABLE loop_attentive.shop (
    shop       text PRIMARY KEY,
    enabled_at timestamptz NOT NULL -- as_of of the first completed look
);

CREATE TABLE loop_attentive.look (
    look_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shop      text NOT NULL,
    as_of     timestamptz NOT NULL, -- when it began to read, by this database's clock
    whole     boolean NOT NULL,     -- read without the cursor
    extracted bigint NOT NULL,      -- rows read from the source
    changed   bigint NOT NULL,      -- mirror rows that are new or differ
    UNIQUE (shop, as_of)
);

-- One row per source table: how far the last completed look got.
CREATE TABLE loop_attentive.source_cursor (
    shop             text NOT NULL,
    source_table     text NOT NULL,
    source           text NOT NULL, -- connection, connector and schema: another source starts anew
    position_column  text CHECK (position_column IN ('synced_at', 'updated_at')),
    position         timestamptz,   -- highest value of that column seen
    position_kind    text CHECK (position_kind IN ('zoned', 'naive')), -- NULL: text; not comparable
    newest_synced_at timestamptz,
    has_rows         boolean NOT NULL,
    looked_at        timestamptz NOT NULL, -- as_of of that look
    PRIMARY KEY (shop, source_table)
);

-- ── Mirror: the latest state of every row, normalised ───────────────────────
-- first_seen_at is the as_of of the look that first saw the row while its return was not deleted;
-- silent rows were first seen while it was, so their appearance is nobody's news.
-- previous_look_at is the as_of of the completed look before that one (NULL: there was none).

CREATE TABLE loop_attentive.mirror_return (
    shop                text NOT NULL,
    return_id           text NOT NULL,
    state               text, -- as the source says, folded
    status              text, -- as Attentive is told: open, closed, canceled, expired (or an unmapped state)
    last_status         text, -- the last status that was not NULL
    outcome             text,
    order_name          text,
    customer_email      text,
    customer_phone      text,
    status_page_url     text,
    labels_enabled      boolean,
    is_instant_exchange boolean,
    charge_at           timestamptz,
    created_at          timestamptz,
    updated_at          timestamptz,
    is_deleted          boolean NOT NULL,
    first_seen_at       timestamptz, -- NULL: deleted ever since it was first seen
    previous_look_at    timestamptz,
    PRIMARY KEY (shop, return_id)
);
CREATE INDEX mirror_return_first_seen ON loop_attentive.mirror_return (shop, first_seen_at);
CREATE INDEX mirror_return_open_by_age ON loop_attentive.mirror_return (shop, created_at)
WHERE state = 'open' AND NOT is_deleted;
CREATE INDEX mirror_return_open_instant ON loop_attentive.mirror_return (shop, created_at)
WHERE state = 'open' AND is_instant_exchange AND NOT is_deleted;
CREATE INDEX mirror_return_last_touched ON loop_attentive.mirror_return (shop, greatest(created_at, updated_at));

-- A label is named by its return and number; '' is the return's label that has no number yet.
CREATE TABLE loop_attentive.mirror_label (
    shop             text NOT NULL,
    return_id        text NOT NULL,
    number           text NOT NULL,
    carrier          text,
    tracking_url     text,
    label_url        text,
    tracking_status  text, -- as Attentive is told; NULL: no label yet
    shipped          text NOT NULL CHECK (shipped IN ('no', 'yes', 'unknown')),
    ever_shipped     boolean NOT NULL, -- sticky: carriers' statuses go back and forth
    created_at       timestamptz,
    updated_at       timestamptz,
    first_seen_at    timestamptz NOT NULL,
    silent           boolean NOT NULL,
    previous_look_at timestamptz,
    first_status     text,        -- tracking_status when first seen
    first_updated_at timestamptz, -- updated_at when first seen, if it is news: a first sight, or moved since the numberless row
    had_no_number    boolean NOT NULL, -- an earlier look saw this label without its number
    became           text,        -- on the '' row: the number it got; that label's story goes on there
    PRIMARY KEY (shop, return_id, number)
);
CREATE INDEX mirror_label_first_seen ON loop_attentive.mirror_label (shop, first_seen_at);

CREATE TABLE loop_attentive.mirror_item (
    shop         text NOT NULL,
    return_id    text NOT NULL,
    exchange_id  text NOT NULL,
    out_of_stock boolean,
    resolution   text,
    restocked_at timestamptz,
    updated_at   timestamptz,
    is_open      boolean NOT NULL,
    PRIMARY KEY (shop, return_id, exchange_id)
);
CREATE INDEX mirror_item_open ON loop_attentive.mirror_item (shop, return_id) WHERE is_open;

-- A stretch in which a return had an open out-of-stock item; opened_at (a look's as_of) names it.
CREATE TABLE loop_attentive.mirror_episode (
    shop               text NOT NULL,
    return_id          text NOT NULL,
    opened_at          timestamptz NOT NULL,
    opened_fact_at     timestamptz NOT NULL,
    opened_timed_by    text NOT NULL,
    opened_after       timestamptz, -- previous completed look at the items
    opened_silently    boolean NOT NULL,
    resolved_at        timestamptz,
    resolved_fact_at   timestamptz,
    resolved_timed_by  text,
    resolved_after     timestamptz,
    resolved_silently  boolean,
    outcome            text, -- credit, refund; NULL: restocked, or nothing Attentive has a word for
    PRIMARY KEY (shop, return_id, opened_at)
);
CREATE INDEX mirror_episode_opened ON loop_attentive.mirror_episode (shop, opened_at);
CREATE INDEX mirror_episode_resolved ON loop_attentive.mirror_episode (shop, resolved_at);

CREATE TABLE loop_attentive.mirror_transaction (
    shop               text NOT NULL,
    transaction_id     text NOT NULL,
    return_id          text NOT NULL,
    kind               text,
    gateway            text,
    status             text,
    amount             numeric,
    currency           text,
    created_at         timestamptz,
    succeeded_at       timestamptz, -- as_of of the look that first saw it succeeded, not silently
    seen_before        boolean NOT NULL, -- an earlier look saw it not yet succeeded
    previous_look_at   timestamptz,
    PRIMARY KEY (shop, transaction_id)
);
CREATE INDEX mirror_transaction_succeeded ON loop_attentive.mirror_transaction (shop, succeeded_at);
CREATE INDEX mirror_transaction_return ON loop_attentive.mirror_transaction (shop, return_id);

-- Rows whose return the mirror does not hold yet.
CREATE TABLE loop_attentive.mirror_waiting (
    shop         text NOT NULL,
    source_table text NOT NULL,
    return_id    text NOT NULL,
    subject      text NOT NULL, -- the row's own name within its table
    updated_at   timestamptz,
    waiting_since timestamptz NOT NULL,
    row_data     jsonb NOT NULL,
    PRIMARY KEY (shop, source_table, return_id, subject)
);

-- Every change of a status that a look saw: of a return, or of a label (subject: its number).
CREATE TABLE loop_attentive.change (
    shop             text NOT NULL,
    source_table     text NOT NULL,
    return_id        text NOT NULL,
    subject          text NOT NULL,
    seen_at          timestamptz NOT NULL, -- as_of of the look
    fields           text[] NOT NULL,      -- names of the columns that differ; no values: they may be private
    old_status       text,
    new_status       text,
    updated_at       timestamptz,          -- the row's, if it moved with the change
    live             boolean NOT NULL,     -- the return was deleted neither before nor after
    previous_look_at timestamptz,
    PRIMARY KEY (shop, source_table, seen_at, return_id, subject)
);
CREATE INDEX change_of_return ON loop_attentive.change (shop, return_id);

-- ── Ledger: each event once, and what became of it ──────────────────────────

-- A rule of the catalogue as a shop has it. starts_at NULL: since the shop's own enabled_at.
CREATE TABLE loop_attentive.rule (
    shop         text NOT NULL,
    event_type   text NOT NULL,
    version      integer NOT NULL,
    starts_at    timestamptz,
    completed_at timestamptz, -- as_of up to which it has judged everything: its mark
    PRIMARY KEY (shop, event_type, version)
);

CREATE TABLE loop_attentive.run (
    run_key      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id       text NOT NULL,
    run_id       text NOT NULL,
    shop         text NOT NULL,
    window_start timestamptz, -- given for a backfill only: what it is narrowed to
    window_end   timestamptz,
    as_of        timestamptz, -- of its look
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    extracted    bigint NOT NULL DEFAULT 0,
    changed      bigint NOT NULL DEFAULT 0,
    requests     bigint NOT NULL DEFAULT 0, -- made by the hook, counted in the transaction that settles them
    UNIQUE (dag_id, run_id, shop)
);

CREATE TABLE loop_attentive.run_rule (
    run_key          bigint NOT NULL REFERENCES loop_attentive.run ON DELETE CASCADE,
    event_type       text NOT NULL,
    yielded          bigint NOT NULL,
    known            bigint NOT NULL,
    created          bigint NOT NULL,
    outcomes_omitted bigint NOT NULL, -- return outcomes that Attentive's table does not have
    PRIMARY KEY (run_key, event_type)
);

CREATE TABLE loop_attentive.event (
    event_id         uuid PRIMARY KEY, -- externalEventId: UUIDv5 of shop, event and key
    shop             text NOT NULL,
    event_type       text NOT NULL,
    key              text NOT NULL,
    return_id        text NOT NULL,
    occurred_at      timestamptz NOT NULL, -- true time; for reminders the as_of that found them due
    fact_at          timestamptz NOT NULL,
    detected_at      timestamptz NOT NULL, -- as_of of the look that found it
    status           text NOT NULL CHECK (status IN (
        'pending', 'held', 'sending', 'accepted', 'rejected', 'invalid', 'expired', 'suppressed', 'unknown'
    )),
    reason           text,
    detail           jsonb NOT NULL DEFAULT '{}', -- what the event is about, by id and status only
    body             jsonb, -- {"user": ..., "properties": ...} while it may still be sent
    order_at         timestamptz NOT NULL, -- place among the events of its return: Created first
    order_no         smallint NOT NULL,
    bucket           smallint NOT NULL GENERATED ALWAYS AS ((hashtextextended(return_id, 0) & 63)::smallint) STORED,
    run_key          bigint NOT NULL REFERENCES loop_attentive.run,
    attempts         smallint NOT NULL DEFAULT 0,
    http_status      smallint,
    sent_at          timestamptz,
    sent_occurred_at timestamptz, -- occurredAt of the last body that left
    restamped        boolean NOT NULL DEFAULT false,
    released_at      timestamptz, -- a person decided to send it (again)
    due_at           timestamptz NOT NULL DEFAULT '-infinity', -- not before
    resend_at        timestamptz, -- unknown only; NULL: waits for a person
    lease            uuid,
    lease_until      timestamptz,
    UNIQUE (shop, event_type, key)
);
-- The hot paths see only what is not final, however long the history.
CREATE INDEX event_live ON loop_attentive.event (shop, return_id, order_at, order_no)
WHERE status IN ('pending', 'sending', 'unknown');
CREATE INDEX event_pending ON loop_attentive.event (shop, order_at, order_no, event_id)
WHERE status = 'pending';
CREATE INDEX event_sending ON loop_attentive.event (event_id) WHERE status = 'sending';
CREATE INDEX event_resend ON loop_attentive.event (shop, resend_at)
WHERE status = 'unknown' AND resend_at IS NOT NULL;
CREATE INDEX event_no_recipient ON loop_attentive.event (shop, return_id)
WHERE status = 'invalid' AND reason = 'no recipient';
CREATE INDEX event_shadow ON loop_attentive.event (shop, fact_at)
WHERE status = 'suppressed' AND reason = 'shadow';
CREATE INDEX event_run ON loop_attentive.event (run_key, event_type, status);
CREATE INDEX event_return ON loop_attentive.event (shop, return_id);

CREATE TABLE loop_attentive.attempt (
    event_id    uuid NOT NULL REFERENCES loop_attentive.event ON DELETE CASCADE,
    attempt     smallint NOT NULL,
    run_key     bigint NOT NULL,
    task_id     text NOT NULL,
    map_index   integer NOT NULL,
    try_number  integer NOT NULL,
    occurred_at timestamptz NOT NULL, -- as stamped in the body
    started_at  timestamptz NOT NULL, -- marked; the request leaves within a few tenths of a second
    finished_at timestamptz,
    outcome     text CHECK (outcome IN (
        'accepted', 'rejected', 'throttled', 'failed', 'refused', 'not sent', 'unknown', 'lost'
    )), -- NULL: under way; lost: its process ended before the answer
    http_status smallint,
    error       text,
    PRIMARY KEY (event_id, attempt)
);
CREATE INDEX attempt_run ON loop_attentive.attempt (run_key);

-- When the next request may leave, for every worker of one Attentive account. Settings keep the row, which changes
-- many times a second, in its page: as large as it is, it would be cut up otherwise.
CREATE TABLE loop_attentive.pace (
    account      text PRIMARY KEY, -- keyed hash of host and API key
    setting      integer NOT NULL CHECK (setting > 0), -- requests a second: the smallest of the account's shops
    learned      integer CHECK (learned > 0), -- what x-ratelimit-limit last said
    free_at      timestamptz[] NOT NULL, -- one permit an element; taken: reserved until then
    token        integer[] NOT NULL, -- of the take that has the permit; NULL: nobody
    last_token   integer NOT NULL DEFAULT 0,
    paused_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 20, toast_tuple_target = 8160);

CREATE TABLE loop_attentive.pace_setting (
    account             text NOT NULL,
    shop                text NOT NULL,
    requests_per_second integer NOT NULL CHECK (requests_per_second > 0),
    renewed_at          timestamptz NOT NULL, -- a shop that has not sent for a day does not count
    PRIMARY KEY (account, shop)
);

-- ── For rules and people ────────────────────────────────────────────────────

-- Up to four parts of a key, joined so that no two lists of parts make the same key; so plain that they are inlined.
CREATE FUNCTION loop_attentive.event_key(a text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN replace(replace(a, '\', '\\'), '|', '\|');

CREATE FUNCTION loop_attentive.event_key(a text, b text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN loop_attentive.event_key(a) || '|' || loop_attentive.event_key(b);

CREATE FUNCTION loop_attentive.event_key(a text, b text, c text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN loop_attentive.event_key(a, b) || '|' || loop_attentive.event_key(c);

CREATE FUNCTION loop_attentive.event_key(a text, b text, c text, d text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN loop_attentive.event_key(a, b, c) || '|' || loop_attentive.event_key(d);

-- A time as it stands in keys.
CREATE FUNCTION loop_attentive.key_time(moment timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

-- Returns that a customer may be reminded of: open, nothing of them on its way, and nothing that cannot be told.
-- A label without a number counts as cannot-be-told only while its return has none with one; a cancelled one is none.
CREATE VIEW loop_attentive.remindable_return AS
SELECT
    r.shop, r.return_id, r.created_at, r.charge_at, r.is_instant_exchange,
    coalesce(r.labels_enabled, EXISTS (
        SELECT
        FROM loop_attentive.mirror_label AS l
        WHERE l.shop = r.shop AND l.return_id = r.return_id AND l.number <> '' AND l.tracking_status <> 'canceled'
    )) AS labels_enabled
FROM loop_attentive.mirror_return AS r
LEFT JOIN LATERAL (
    SELECT l.return_id
    FROM loop_attentive.mirror_label AS l
    WHERE l.shop = r.shop AND l.return_id = r.return_id AND (l.ever_shipped OR (l.shipped = 'unknown' AND (
        l.number <> '' OR NOT EXISTS (
            SELECT
            FROM loop_attentive.mirror_label AS n
            WHERE n.shop = r.shop AND n.return_id = r.return_id AND n.number <> '' AND n.tracking_status <> 'canceled'
        )
    )))
    LIMIT 1 -- so that it is looked up for each open return: to read all labels that ever shipped would cost far more
) AS shipped ON true
WHERE r.state = 'open' AND NOT r.is_deleted AND shipped.return_id IS NULL;

CREATE VIEW loop_attentive.audit_event AS
SELECT
    e.event_id, e.shop, e.event_type, e.return_id, e.key, e.occurred_at, e.fact_at, e.detected_at,
    e.status, e.reason, e.attempts, e.http_status, e.sent_at, e.restamped, r.run_id, r.dag_id
FROM loop_attentive.event AS e
JOIN loop_attentive.run AS r USING (run_key);

CREATE VIEW loop_attentive.audit_attempt AS
SELECT
    a.event_id, a.attempt, r.dag_id, r.run_id, a.task_id, a.map_index, a.try_number,
    a.started_at, a.finished_at, a.outcome, a.http_status, a.error
FROM loop_attentive.attempt AS a
JOIN loop_attentive.run AS r USING (run_key);

CREATE VIEW loop_attentive.audit_run AS
SELECT
    r.run_id, r.dag_id, r.shop, r.window_start, r.window_end, r.as_of, r.started_at, r.finished_at,
    r.extracted, r.changed, rules.yielded, rules.known, rules.created AS qualified, r.requests,
    states.pending, states.held, states.sending, states.accepted, states.rejected,
    states.invalid, states.expired, states.suppressed, states.unknown
FROM loop_attentive.run AS r
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(yielded), 0)::bigint AS yielded,
        coalesce(sum(known), 0)::bigint AS known,
        coalesce(sum(created), 0)::bigint AS created
    FROM loop_attentive.run_rule
    WHERE run_key = r.run_key
) AS rules
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE status = 'pending') AS pending,
        count(*) FILTER (WHERE status = 'held') AS held,
        count(*) FILTER (WHERE status = 'sending') AS sending,
        count(*) FILTER (WHERE status = 'accepted') AS accepted,
        count(*) FILTER (WHERE status = 'rejected') AS rejected,
        count(*) FILTER (WHERE status = 'invalid') AS invalid,
        count(*) FILTER (WHERE status = 'expired') AS expired,
        count(*) FILTER (WHERE status = 'suppressed') AS suppressed,
        count(*) FILTER (WHERE status = 'unknown') AS unknown
    FROM loop_attentive.event
    WHERE run_key = r.run_key
) AS states;
