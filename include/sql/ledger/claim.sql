-- Leases the oldest events of a batch that may leave now: due, nobody's, and first of their return. Changes no state.
WITH pending AS MATERIALIZED (
    SELECT e.event_id
    FROM event AS e
    WHERE
        {claimable}
        AND e.status = 'pending'
        AND e.body IS NOT NULL
        AND e.due_at <= %(claimed_at)s::timestamptz
        AND (e.order_at, e.order_no, e.event_id) > (%(after_at)s::timestamptz, %(after_no)s::smallint, %(after_id)s::uuid)
    ORDER BY e.order_at, e.order_no, e.event_id
    LIMIT %(most)s
    FOR UPDATE SKIP LOCKED
),
resends AS MATERIALIZED (
    SELECT e.event_id
    FROM event AS e
    WHERE
        {claimable}
        AND e.status = 'unknown'
        AND e.resend_at <= %(claimed_at)s::timestamptz
    ORDER BY e.resend_at
    LIMIT %(most)s
    FOR UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE event AS e
    SET lease = %(lease)s, lease_until = %(claimed_at)s::timestamptz + %(lease_time)s::interval
    FROM (SELECT event_id FROM pending UNION ALL SELECT event_id FROM resends) AS c
    WHERE e.event_id = c.event_id
    RETURNING e.event_id, e.event_type, e.return_id, e.status = 'unknown' AS resend, e.order_at, e.order_no
)
SELECT event_id, event_type, return_id, resend, order_at, order_no FROM claimed
ORDER BY order_at, order_no, event_id
