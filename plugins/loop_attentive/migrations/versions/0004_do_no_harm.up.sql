-- What keeps a mistake from reaching a phone.

-- ── Who a recipient was, when nothing else of them is kept ──────────────────

-- The key of the hashes. It is in this database so that a backup holds both, and opt-outs outlive every other key.
CREATE TABLE loop_attentive.hash_key (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    key       bytea NOT NULL
);
INSERT INTO loop_attentive.hash_key (key) VALUES (sha256((gen_random_uuid()::text || gen_random_uuid()::text)::bytea));

ALTER TABLE loop_attentive.event
ADD COLUMN phone_hash bigint, -- keyed hashes of the recipient (see people.py); NULL: none, or never looked up
ADD COLUMN email_hash bigint,
ADD COLUMN own_time boolean;  -- fact_at is a time that the source gives, not when it was noticed

-- ── Decisions of people ─────────────────────────────────────────────────────

CREATE TABLE loop_attentive.decision (
    decision_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shop        text NOT NULL,
    action      text NOT NULL CHECK (action IN (
        'stop', 'go on', 'send', 'discard', 'release', 'delivered', 'backfill', 'forget', 'restored'
    )),
    decided_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_by  text NOT NULL, -- a user of Airflow; of the machine for a command
    why         text NOT NULL,
    dag_id      text,
    run_id      text,
    scope       jsonb NOT NULL DEFAULT '{}', -- how the events were chosen; nothing private
    events      bigint NOT NULL DEFAULT 0    -- how many it changed
);
CREATE INDEX decision_switch ON loop_attentive.decision (shop, decision_id) WHERE action IN ('stop', 'go on');

CREATE TABLE loop_attentive.decision_event (
    decision_id   bigint NOT NULL REFERENCES loop_attentive.decision,
    event_id      uuid NOT NULL,
    status_before text NOT NULL,
    reason_before text,
    PRIMARY KEY (event_id, decision_id)
);

CREATE VIEW loop_attentive.audit_decision AS
SELECT decision_id, shop, action, decided_at, decided_by, why, dag_id, run_id, scope, events
FROM loop_attentive.decision;

-- A DAG run's decision is made once, however often its task is tried.
CREATE UNIQUE INDEX decision_of_run ON loop_attentive.decision (shop, dag_id, run_id);

-- The events that a run proposes to decide, as they were when it chose them.
CREATE TABLE loop_attentive.proposed (
    shop     text NOT NULL,
    dag_id   text NOT NULL,
    run_id   text NOT NULL,
    event_id uuid NOT NULL,
    status   text NOT NULL,
    reason   text,
    PRIMARY KEY (shop, dag_id, run_id, event_id)
);

-- ── People who said no ──────────────────────────────────────────────────────

-- Phones and e-mail addresses that get nothing any more, by their keyed hashes (see people.py).
CREATE TABLE loop_attentive.opt_out (
    shop         text NOT NULL,
    person_hash  bigint NOT NULL,
    given        boolean NOT NULL, -- a person named it; false: it shares a return with one that was named
    opted_out_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (person_hash, shop)
);

ALTER TABLE loop_attentive.shop
ADD COLUMN account text,    -- the Attentive account that it was last seen with: see attentive.account
ADD COLUMN cleaned_of text; -- the list of people whose data was last removed from its mirror and ledger, as a sum

-- Who gets nothing of a shop: whoever said no to it, or to another shop of the same Attentive account.
CREATE VIEW loop_attentive.opted_out AS
SELECT o.shop, o.person_hash, o.given
FROM loop_attentive.opt_out AS o
UNION ALL
SELECT also.shop, o.person_hash, o.given
FROM loop_attentive.opt_out AS o
JOIN loop_attentive.shop AS its ON its.shop = o.shop
JOIN loop_attentive.shop AS also ON also.account = its.account AND also.shop <> its.shop;

-- A return of such a person is held without its contact, order name and status page.
ALTER TABLE loop_attentive.mirror_return ADD COLUMN opted_out boolean NOT NULL DEFAULT false;

-- A deleted return makes no event, and brings its contact along should it come back.
UPDATE loop_attentive.mirror_return
SET customer_phone = NULL, customer_email = NULL, order_name = NULL, status_page_url = NULL
WHERE is_deleted;

-- ── What a run held ─────────────────────────────────────────────────────────

CREATE TABLE loop_attentive.hold (
    run_key    bigint NOT NULL REFERENCES loop_attentive.run ON DELETE CASCADE,
    event_type text NOT NULL,
    reason     text NOT NULL,
    bound      bigint NOT NULL,           -- that was exceeded, when it last was
    events     bigint NOT NULL,           -- held by this run, whatever became of them since
    told       bigint NOT NULL DEFAULT 0, -- of these, how many somebody has been notified of
    PRIMARY KEY (run_key, event_type, reason)
);
CREATE INDEX hold_untold ON loop_attentive.hold (run_key) WHERE told < events;

-- ── Plans of backfills ──────────────────────────────────────────────────────

-- What a run of loop_attentive_backfill foresaw for a range of days.
CREATE TABLE loop_attentive.plan (
    plan_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shop        text NOT NULL,
    dag_id      text NOT NULL,
    run_id      text NOT NULL,
    made_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    as_of       timestamptz NOT NULL, -- of its look
    first_day   date NOT NULL,        -- by the shop's clock; both included
    last_day    date NOT NULL,
    event_types text[] NOT NULL,
    UNIQUE (shop, dag_id, run_id)
);

CREATE TABLE loop_attentive.plan_count (
    plan_id    bigint NOT NULL REFERENCES loop_attentive.plan ON DELETE CASCADE,
    event_type text NOT NULL,
    day        date NOT NULL, -- of the fact, by the shop's clock
    verdict    text NOT NULL,
    reason     text,
    releasable boolean NOT NULL,
    events     bigint NOT NULL
);
CREATE INDEX plan_count_of_plan ON loop_attentive.plan_count (plan_id);

-- The events that it would send, which the ledger did not hold then.
CREATE TABLE loop_attentive.plan_event (
    plan_id    bigint NOT NULL REFERENCES loop_attentive.plan ON DELETE CASCADE,
    event_type text NOT NULL,
    key        text NOT NULL,
    event_id   uuid NOT NULL,
    PRIMARY KEY (plan_id, event_type, key)
);

CREATE VIEW loop_attentive.audit_plan AS
SELECT
    p.plan_id, p.shop, p.dag_id, p.run_id, p.made_at, p.as_of, p.first_day, p.last_day,
    c.event_type, c.day, c.verdict, c.reason, c.releasable, c.events
FROM loop_attentive.plan AS p
LEFT JOIN loop_attentive.plan_count AS c USING (plan_id);

-- ── Retention ───────────────────────────────────────────────────────────────

-- What the purge left of the events that it deleted: how many there were, by the month of the fact (UTC).
CREATE TABLE loop_attentive.purged (
    shop       text NOT NULL,
    event_type text NOT NULL,
    status     text NOT NULL,
    month      date NOT NULL,
    events     bigint NOT NULL,
    attempts   bigint NOT NULL,
    PRIMARY KEY (shop, event_type, status, month)
);

-- The name of an event in 16 bytes, the same on every server and in every version.
CREATE FUNCTION loop_attentive.key_hash(shop text, event_type text, key text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(sha256(convert_to(loop_attentive.event_key(shop, event_type, key), 'UTF8')) FOR 16);

-- Keys of deleted events that have no time of their own, so that none is ever made again: a return that is touched after
-- years would yield them as of that day. The others are late for ever.
CREATE TABLE loop_attentive.purged_key (
    key_hash bytea PRIMARY KEY
);

CREATE VIEW loop_attentive.audit_purged AS
SELECT shop, event_type, status, month, events, attempts
FROM loop_attentive.purged;
