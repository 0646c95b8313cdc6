-- After a restore nobody knows what has been sent since the backup: whatever the backup would still send waits for a person.
WITH doubtful AS MATERIALIZED (
    SELECT e.event_id, e.event_type, e.status, e.reason, e.attempts
    FROM event AS e
    WHERE
        e.shop = %(shop)s
        AND (
            e.status IN ('pending', 'sending')
            -- What waited for a person already: one may have decided about it since, and it may have been sent.
            OR (e.status IN ('held', 'unknown') AND e.reason IS DISTINCT FROM 'restored')
            -- What a later look may have let out: a contact that was mended, a reminder that became true again, a shop
            -- that went live.
            OR (e.status = 'invalid' AND e.reason = 'no recipient')
            OR (e.status = 'suppressed' AND e.reason = 'no longer true')
            OR (e.status = 'suppressed' AND e.reason = 'shadow' AND %(is_live)s)
        )
    ORDER BY e.event_id
    FOR UPDATE OF e
),
lost AS (
    UPDATE attempt AS a
    SET outcome = 'lost', finished_at = clock_timestamp(), error = 'the ledger was restored from a backup'
    FROM doubtful AS d
    WHERE d.status = 'sending' AND a.event_id = d.event_id AND a.attempt = d.attempts AND a.outcome IS NULL
),
waits AS (
    UPDATE event AS e
    SET
        status = CASE d.status
            WHEN 'pending' THEN 'held' WHEN 'sending' THEN 'unknown' WHEN 'invalid' THEN 'suppressed' ELSE d.status
        END,
        reason = 'restored',
        resend_at = NULL,
        lease = NULL,
        lease_until = NULL
    FROM doubtful AS d
    WHERE e.event_id = d.event_id
    RETURNING e.event_type, e.status
)
SELECT event_type, status, count(*) AS events
FROM waits
GROUP BY 1, 2
ORDER BY 1, 2;
