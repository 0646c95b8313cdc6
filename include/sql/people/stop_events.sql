-- Leaves of some events only that they existed; what might still have gone out is suppressed. Those on their way are
-- left until they are answered, or until their sender's lease has ended: then nobody waits for the answer any more.
-- What somebody has in hand is stepped over, so that nobody is ever waited for with locks in hand.
WITH theirs AS MATERIALIZED (
    SELECT
        e.event_id, e.status, e.reason, e.attempts,
        e.status IN ('pending', 'held', 'sending', 'unknown') AS is_stopped
    FROM event AS e
    WHERE
        e.event_id = ANY (%(event_ids)s::uuid[])
        AND (e.status <> 'sending' OR e.lease_until < clock_timestamp())
    ORDER BY e.event_id
    FOR UPDATE SKIP LOCKED
),
lost AS (
    UPDATE attempt AS a
    SET outcome = 'lost', finished_at = clock_timestamp(), error = 'its process ended before the answer'
    FROM theirs AS t
    WHERE t.status = 'sending' AND a.event_id = t.event_id AND a.attempt = t.attempts AND a.outcome IS NULL
),
recorded AS (
    INSERT INTO decision_event (decision_id, event_id, status_before, reason_before)
    SELECT %(decision_id)s, t.event_id, t.status, t.reason
    FROM theirs AS t
    WHERE t.is_stopped AND %(decision_id)s::bigint IS NOT NULL
)
UPDATE event AS e
SET
    status = CASE WHEN t.is_stopped THEN 'suppressed' ELSE e.status END,
    reason = CASE WHEN t.is_stopped THEN 'opted out' ELSE e.reason END,
    resend_at = NULL,
    body = NULL,
    phone_hash = NULL,
    email_hash = NULL,
    lease = NULL,
    lease_until = NULL
FROM theirs AS t
WHERE e.event_id = t.event_id
RETURNING e.event_id, t.is_stopped
