-- Events whose sender's lease has ended: their request left, or may have, and nobody waits for the answer any more.
-- They may be sent again some time after this was found out: whoever has the answer after all can write it until then.
-- What the sender that asks has under way itself is not lost, however long the database was away. Tells when the oldest of
-- those that are marked was so: nothing older can be lost later.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
lost AS MATERIALIZED (
    SELECT
        e.event_id, e.attempts, e.event_type, e.sent_occurred_at, e.released_at,
        greatest(e.sent_at + %(leaves_within)s::interval, clock.now) + %(resend_after)s::interval AS again_at
    FROM event AS e, clock
    WHERE
        e.status = 'sending' AND e.sent_at >= %(sent_since)s::timestamptz AND e.lease_until < clock.now
        AND e.event_id <> ALL (%(under_way)s::uuid[])
    FOR UPDATE OF e SKIP LOCKED
),
attempted AS (
    UPDATE attempt AS a
    SET outcome = 'lost', finished_at = clock.now, error = 'its process ended before the answer'
    FROM lost, clock
    WHERE a.event_id = lost.event_id AND a.attempt = lost.attempts AND a.outcome IS NULL
),
in_doubt AS (
    UPDATE event AS e
    SET
        status = 'unknown',
        reason = 'no answer: its process ended',
        lease = NULL,
        lease_until = NULL,
        resend_at = CASE
            WHEN
                lost.event_type <> ALL (%(money)s::text[])
                AND lost.again_at < lost.sent_occurred_at + %(journey)s::interval
                AND NOT EXISTS (
                    SELECT FROM attempt AS p
                    WHERE
                        p.event_id = lost.event_id
                        AND p.attempt < lost.attempts
                        AND p.outcome IN ('unknown', 'lost')
                        AND p.started_at > coalesce(lost.released_at, '-infinity')
                )
                THEN lost.again_at
        END
    FROM lost
    WHERE e.event_id = lost.event_id
)
SELECT min(sent_at) AS oldest
FROM event
WHERE status = 'sending' AND sent_at >= %(sent_since)s::timestamptz
