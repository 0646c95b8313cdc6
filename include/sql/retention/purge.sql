-- Deletes some events with their attempts, as long as nobody else has them in hand. What stays are their counts and the
-- hashes of their keys; and what their runs say of themselves is reduced with them, so that it adds up at each commit.
WITH old AS MATERIALIZED (
    SELECT e.event_id, e.shop, e.event_type, e.key, e.status, e.fact_at, e.own_time, e.run_key
    FROM event AS e
    WHERE
        e.event_id = ANY (%(event_ids)s::uuid[])
        AND (e.sent_at IS NULL OR e.sent_at < %(horizon)s)
        AND (e.released_at IS NULL OR e.released_at < %(horizon)s)
        AND e.status <> 'sending'
        AND (e.lease_until IS NULL OR e.lease_until < clock_timestamp())
    FOR UPDATE SKIP LOCKED
),
attempts AS (
    DELETE FROM attempt AS a
    USING old
    WHERE a.event_id = old.event_id
    RETURNING a.event_id, a.run_key, a.outcome
),
events AS (
    DELETE FROM event AS e
    USING old
    WHERE e.event_id = old.event_id
),
decided AS (
    DELETE FROM decision_event AS d
    USING old
    WHERE d.event_id = old.event_id
),
keys AS (
    INSERT INTO purged_key (key_hash)
    SELECT key_hash(shop, event_type, key)
    FROM old
    WHERE own_time IS NOT TRUE OR event_type = ANY (%(never_again)s::text[])
    ON CONFLICT DO NOTHING
),
requests AS (
    UPDATE run AS r
    SET requests = r.requests - a.requests
    FROM (
        SELECT run_key, count(*) AS requests FROM attempts WHERE outcome <> 'lost' GROUP BY run_key
    ) AS a
    WHERE r.run_key = a.run_key
),
found AS (
    UPDATE run_rule AS r
    SET created = r.created - o.events, yielded = r.yielded - o.events
    FROM (SELECT run_key, event_type, count(*) AS events FROM old GROUP BY run_key, event_type) AS o
    WHERE r.run_key = o.run_key AND r.event_type = o.event_type
),
counted AS (
    INSERT INTO purged AS p (shop, event_type, status, month, events, attempts)
    SELECT
        old.shop, old.event_type, old.status, date_trunc('month', old.fact_at, 'UTC')::date,
        count(*), coalesce(sum(a.attempts), 0)
    FROM old
    LEFT JOIN (SELECT event_id, count(*) AS attempts FROM attempts GROUP BY event_id) AS a USING (event_id)
    GROUP BY old.shop, old.event_type, old.status, date_trunc('month', old.fact_at, 'UTC')
    ON CONFLICT (shop, event_type, status, month) DO UPDATE
    SET events = p.events + excluded.events, attempts = p.attempts + excluded.attempts
)
SELECT (SELECT count(*) FROM old) AS events, (SELECT count(*) FROM attempts) AS attempts;
