-- Takes back marks whose requests never left: the event is as it was before, and its attempt never was. A mark is known
-- by its moment too: should this be tried again after a commit that nobody heard of, the event may have been marked anew,
-- by somebody else and with the same number.
WITH mark AS MATERIALIZED (
    SELECT e.event_id, e.attempts, e.released_at, e.status = 'accepted' AS is_accepted, e.lease = %(lease)s AS is_ours
    FROM event AS e
    JOIN
        unnest(%(event_ids)s::uuid[], %(attempts)s::integer[], %(sent_at)s::timestamptz[]) AS u (event_id, attempt, sent_at)
        ON u.event_id = e.event_id AND u.attempt = e.attempts AND u.sent_at = e.sent_at
    WHERE e.event_id = ANY (%(event_ids)s::uuid[]) AND e.status IN ('sending', 'unknown', 'accepted')
    ORDER BY e.event_id
    FOR UPDATE OF e
),
never_made AS (
    DELETE FROM attempt AS a
    USING mark
    WHERE a.event_id = mark.event_id AND a.attempt = mark.attempts AND (a.outcome IS NULL OR a.outcome = 'lost')
    RETURNING a.event_id, a.attempt
)
UPDATE event AS e
SET
    -- an answer to an earlier attempt, which came late, has decided for good
    status = CASE WHEN mark.is_accepted THEN e.status WHEN before.in_doubt THEN 'unknown' ELSE 'pending' END,
    reason = CASE WHEN before.in_doubt THEN 'no answer' END,
    attempts = e.attempts - 1,
    sent_at = before.started_at,
    sent_occurred_at = before.occurred_at,
    restamped = coalesce(before.occurred_at <> date_trunc('milliseconds', e.occurred_at), false),
    resend_at = CASE WHEN before.in_doubt THEN coalesce(%(now)s::timestamptz, clock_timestamp()) END,
    lease = CASE WHEN mark.is_ours AND %(keep)s THEN e.lease END,
    lease_until = CASE WHEN mark.is_ours AND %(keep)s THEN e.lease_until END
FROM never_made AS n
JOIN mark USING (event_id)
LEFT JOIN LATERAL (
    SELECT
        max(p.started_at) AS started_at,
        (array_agg(p.occurred_at ORDER BY p.attempt DESC))[1] AS occurred_at,
        NOT mark.is_accepted AND coalesce(
            bool_or(p.outcome IN ('unknown', 'lost') AND p.started_at > coalesce(mark.released_at, '-infinity')), false
        ) AS in_doubt
    FROM attempt AS p
    WHERE p.event_id = n.event_id AND p.attempt < n.attempt
) AS before ON true
WHERE e.event_id = n.event_id
