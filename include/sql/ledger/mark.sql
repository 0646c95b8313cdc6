-- Judges leased events in the moment before they leave; those that go become sending, together with their attempt. What
-- is for somebody who said no is suppressed whatever else holds, a resend too, and forgets whom it was for.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
leased AS MATERIALIZED (
    SELECT
        e.event_id, e.shop, e.return_id, e.event_type, e.status, e.occurred_at, e.released_at, e.sent_occurred_at,
        e.due_at, e.resend_at, e.order_at, e.order_no, e.body IS NULL AS is_empty, e.phone_hash, e.email_hash
    FROM event AS e
    WHERE e.event_id = ANY (%(event_ids)s::uuid[]) AND e.lease = %(lease)s AND e.status IN ('pending', 'unknown')
    ORDER BY e.event_id
    FOR UPDATE
),
judged AS MATERIALIZED (
    SELECT
        e.event_id,
        CASE
            WHEN
                EXISTS (
                    SELECT FROM opted_out AS o
                    WHERE o.shop = e.shop AND o.person_hash = ANY (ARRAY[e.phone_hash, e.email_hash])
                )
                THEN 'opted out'
            WHEN e.is_empty OR greatest(e.due_at, e.resend_at) > clock.now THEN 'not now'
            WHEN e.event_type <> ALL (%(money)s::text[]) AND {earlier} THEN 'not now'
            WHEN e.status = 'unknown' AND e.resend_at IS NULL THEN 'not now'
            WHEN e.status = 'unknown' AND clock.now - e.sent_occurred_at >= %(journey)s::interval THEN 'past resending'
            WHEN e.event_id = ANY (%(waiting)s::uuid[]) THEN 'waits'
            WHEN e.event_id = ANY (%(no_longer)s::uuid[])
                THEN CASE e.status WHEN 'unknown' THEN 'past resending' ELSE 'no longer' END
            WHEN
                e.status = 'pending'
                AND e.event_type <> ALL (%(reminders)s::text[])
                AND clock.now - coalesce(e.released_at, e.occurred_at) > %(max_lateness)s::interval
                THEN 'expired'
            ELSE 'goes'
        END AS verdict,
        CASE
            WHEN e.status = 'unknown' THEN e.sent_occurred_at
            WHEN
                e.released_at IS NOT NULL
                AND EXISTS (
                    SELECT
                    FROM decision_event AS x
                    JOIN decision AS d ON d.decision_id = x.decision_id
                    WHERE x.event_id = e.event_id AND d.action = 'release'
                )
                THEN date_trunc('milliseconds', clock.now)
            WHEN clock.now - e.occurred_at <= %(journey)s::interval THEN date_trunc('milliseconds', e.occurred_at)
            ELSE date_trunc('milliseconds', clock.now)
        END AS stamp
    FROM leased AS e, clock
),
marked AS (
    UPDATE event AS e
    SET
        status = 'sending',
        reason = NULL,
        attempts = e.attempts + 1,
        sent_at = clock.now,
        sent_occurred_at = j.stamp,
        restamped = j.stamp <> date_trunc('milliseconds', e.occurred_at),
        resend_at = NULL,
        lease_until = clock.now + %(lease_time)s::interval
    FROM judged AS j, clock
    WHERE e.event_id = j.event_id AND j.verdict = 'goes'
    RETURNING e.event_id, e.attempts, e.event_type, e.sent_at, e.sent_occurred_at, e.body
),
attempted AS (
    INSERT INTO attempt (event_id, attempt, run_key, task_id, map_index, try_number, occurred_at, started_at)
    SELECT
        m.event_id, m.attempts, %(run_key)s, %(task_id)s, %(map_index)s, %(try_number)s, m.sent_occurred_at, clock.now
    FROM marked AS m, clock
),
left_out AS (
    UPDATE event AS e
    SET
        status = CASE
            WHEN j.verdict = 'expired' THEN 'expired'
            WHEN j.verdict IN ('no longer', 'opted out') THEN 'suppressed'
            ELSE e.status
        END,
        reason = CASE j.verdict
            WHEN 'expired' THEN 'too late'
            WHEN 'no longer' THEN 'no longer true'
            WHEN 'opted out' THEN 'opted out'
            WHEN 'waits' THEN %(waits_for_source)s
            ELSE e.reason
        END,
        phone_hash = CASE WHEN j.verdict <> 'opted out' THEN e.phone_hash END,
        email_hash = CASE WHEN j.verdict <> 'opted out' THEN e.email_hash END,
        body = CASE WHEN j.verdict NOT IN ('expired', 'no longer', 'opted out') THEN e.body END,
        resend_at = CASE WHEN j.verdict NOT IN ('past resending', 'opted out') THEN e.resend_at END,
        lease = NULL,
        lease_until = NULL
    FROM judged AS j
    WHERE e.event_id = j.event_id AND j.verdict <> 'goes'
)
SELECT
    m.event_id, 'goes' AS verdict, m.attempts AS attempt, m.sent_at, m.event_type, m.sent_occurred_at AS occurred_at, m.body
FROM marked AS m
UNION ALL
SELECT j.event_id, j.verdict, NULL, NULL, NULL, NULL, NULL
FROM judged AS j
WHERE j.verdict <> 'goes'
