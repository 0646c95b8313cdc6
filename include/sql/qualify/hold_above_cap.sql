-- Of the events that are released now, those that are more than a person may get in a day wait for a person's decision:
-- the latest in order, Created first, of each phone and of each e-mail address.
-- What is released, and what of it by this transaction, as conditions on event e, stand for the names in braces. The day's
-- events are looked up by their runs, however long the history, and counted for those whom this transaction writes to; as
-- a rule nobody is written to too often, and that is all (EXISTS). Guesses about what this transaction has just written
-- are worth nothing: IS TRUE has the planner hash a list instead of joining by them.
WITH addressed AS MATERIALIZED (
    SELECT unnest(ARRAY[e.phone_hash, e.email_hash]) AS contact
    FROM event AS e
    WHERE e.run_key = ANY (%(run_keys)s::bigint[]) AND e.status = 'pending' AND {new}
),
recent AS NOT MATERIALIZED (
    SELECT
        unnest(ARRAY[e.phone_hash, e.email_hash]) AS contact, e.event_id, e.order_at, e.order_no,
        e.status = 'pending' AND {released} AS is_released
    FROM run AS r
    CROSS JOIN LATERAL (
        SELECT e.*
        FROM event AS e
        WHERE
            e.run_key = r.run_key
            AND e.status IN ('pending', 'sending', 'unknown', 'accepted')
            AND (e.detected_at > %(day_ago)s OR (e.status = 'pending' AND {released}))
            AND (
                (e.phone_hash IN (SELECT a.contact FROM addressed AS a)) IS TRUE
                OR (e.email_hash IN (SELECT a.contact FROM addressed AS a)) IS TRUE
            )
        OFFSET 0
    ) AS e
    WHERE r.shop = %(shop)s AND (r.as_of > %(day_ago)s OR r.run_key = ANY (%(run_keys)s::bigint[]))
),
crowded AS MATERIALIZED (
    SELECT r.contact
    FROM recent AS r
    WHERE r.contact IS NOT NULL
    GROUP BY r.contact
    HAVING count(*) > %(cap)s
),
above AS MATERIALIZED (
    SELECT DISTINCT ranked.event_id
    FROM (
        SELECT
            t.event_id, t.is_open,
            row_number() OVER (
                PARTITION BY t.contact
                -- What a person has decided about pushes nothing else out while it waits.
                ORDER BY t.is_released, NOT t.is_open, t.order_at, t.order_no, t.event_id
            ) AS place
        FROM (
            SELECT
                r.*,
                r.is_released AND NOT EXISTS (SELECT FROM decision_event AS d WHERE d.event_id = r.event_id) AS is_open
            FROM recent AS r
            WHERE EXISTS (SELECT FROM crowded) AND (r.contact IN (SELECT c.contact FROM crowded AS c)) IS TRUE
        ) AS t
    ) AS ranked
    WHERE ranked.is_open AND ranked.place > %(cap)s
),
free AS MATERIALIZED (
    SELECT e.event_id
    FROM event AS e
    WHERE e.event_id = ANY (ARRAY(SELECT a.event_id FROM above AS a)) AND e.status = 'pending'
    FOR UPDATE SKIP LOCKED -- a sender is marking the others at this moment
)
UPDATE event AS e
SET status = 'held', reason = %(reason)s, lease = NULL, lease_until = NULL
FROM free
WHERE e.event_id = free.event_id
RETURNING e.event_type;
