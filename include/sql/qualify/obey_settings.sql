-- What was pending when a type was switched off, or a test list was given, is not sent either: as if it were judged now.
-- Who is on the list by one contact gets nothing by the other.
WITH pending AS MATERIALIZED (
    SELECT
        e.event_id,
        e.event_type = ANY (%(events_off)s::text[]) AS is_off,
        %(everybody)s OR coalesce(e.phone_hash = ANY (%(listed)s::bigint[]), false) AS by_phone,
        %(everybody)s OR coalesce(e.email_hash = ANY (%(listed)s::bigint[]), false) AS by_email
    FROM event AS e
    WHERE e.shop = %(shop)s AND e.status = 'pending'
    ORDER BY e.event_id -- as everybody locks them
    FOR UPDATE
),
unlisted AS (
    UPDATE event AS e
    SET body = e.body::jsonb #- CASE WHEN p.by_phone THEN '{user,email}' ELSE '{user,phone}' END::text[]
    FROM pending AS p
    WHERE e.event_id = p.event_id AND NOT p.is_off AND p.by_phone <> p.by_email
)
UPDATE event AS e
SET
    status = 'suppressed',
    reason = CASE WHEN p.is_off THEN 'switched off' ELSE 'not on the test list' END,
    body = NULL,
    lease = NULL,
    lease_until = NULL
FROM pending AS p
WHERE e.event_id = p.event_id AND (p.is_off OR NOT (p.by_phone OR p.by_email));
