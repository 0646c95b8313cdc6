-- What was pending when enabled_at was moved past its fact, its type was switched off, or a test list was given, is not
-- sent either: as if it were judged now. What a person has decided to send, whenever it happened, is no baseline again.
-- Who is on the list by one contact gets nothing by the other. An unknown one that would be sent again, the same as it was,
-- waits for a person instead.
WITH forbidden AS MATERIALIZED (
    SELECT e.event_id, e.status, l.by_phone, l.by_email, j.reason
    FROM event AS e
    CROSS JOIN LATERAL (
        SELECT
            %(everybody)s OR coalesce(e.phone_hash = ANY (%(listed)s::bigint[]), false) AS by_phone,
            %(everybody)s OR coalesce(e.email_hash = ANY (%(listed)s::bigint[]), false) AS by_email
    ) AS l
    CROSS JOIN LATERAL (
        SELECT
            (NOT l.by_phone AND e.body #> '{user,phone}' IS NOT NULL)
            OR (NOT l.by_email AND e.body #> '{user,email}' IS NOT NULL) AS somebody
    ) AS unlisted
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN
                    NOT ({since_enabled})
                    AND NOT EXISTS (SELECT FROM decision_event AS d WHERE d.event_id = e.event_id)
                    THEN 'baseline'
                WHEN e.event_type = ANY (%(events_off)s::text[]) THEN 'switched off'
                WHEN NOT (l.by_phone OR l.by_email) THEN 'not on the test list'
            END AS reason
    ) AS j
    WHERE
        e.shop = %(shop)s
        AND (e.status = 'pending' OR (e.status = 'unknown' AND e.resend_at IS NOT NULL))
        AND (j.reason IS NOT NULL OR unlisted.somebody)
    ORDER BY e.event_id -- as everybody locks them
    FOR UPDATE OF e
),
by_the_list AS (
    UPDATE event AS e
    SET body = e.body::jsonb #- CASE WHEN f.by_phone THEN '{user,email}' ELSE '{user,phone}' END::text[]
    FROM forbidden AS f
    WHERE e.event_id = f.event_id AND f.status = 'pending' AND f.reason IS NULL
),
not_again AS (
    UPDATE event AS e
    SET resend_at = NULL, lease = NULL, lease_until = NULL
    FROM forbidden AS f
    WHERE e.event_id = f.event_id AND f.status = 'unknown'
)
UPDATE event AS e
SET
    status = 'suppressed',
    reason = f.reason,
    body = NULL,
    lease = NULL,
    lease_until = NULL
FROM forbidden AS f
WHERE e.event_id = f.event_id AND f.status = 'pending' AND f.reason IS NOT NULL;
