-- What was pending when a type was switched off, or a test list was given, is not sent either: as if it were judged now.
-- Who is on the list by one contact gets nothing by the other.
WITH forbidden AS MATERIALIZED (
    SELECT e.event_id, j.is_off, j.by_phone, j.by_email
    FROM event AS e
    CROSS JOIN LATERAL (
        SELECT
            e.event_type = ANY (%(events_off)s::text[]) AS is_off,
            %(everybody)s OR coalesce(e.phone_hash = ANY (%(listed)s::bigint[]), false) AS by_phone,
            %(everybody)s OR coalesce(e.email_hash = ANY (%(listed)s::bigint[]), false) AS by_email
    ) AS j
    WHERE e.shop = %(shop)s AND e.status = 'pending' AND (j.is_off OR NOT j.by_phone OR NOT j.by_email)
    ORDER BY e.event_id -- as everybody locks them
    FOR UPDATE OF e
),
unlisted AS (
    UPDATE event AS e
    SET body = e.body::jsonb #- CASE WHEN f.by_phone THEN '{user,email}' ELSE '{user,phone}' END::text[]
    FROM forbidden AS f
    WHERE e.event_id = f.event_id AND NOT f.is_off AND f.by_phone <> f.by_email
)
UPDATE event AS e
SET
    status = 'suppressed',
    reason = CASE WHEN f.is_off THEN 'switched off' ELSE 'not on the test list' END,
    body = NULL,
    lease = NULL,
    lease_until = NULL
FROM forbidden AS f
WHERE e.event_id = f.event_id AND (f.is_off OR NOT (f.by_phone OR f.by_email));
