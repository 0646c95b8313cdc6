-- When the next event of a batch may leave that could not when we last claimed, why not sooner, and how many are left.
-- One that was due and nobody's waits for another of its return, which is among these; or another sender was claiming it
-- at that moment: should that one die, somebody has to come back for it.
WITH overlooked AS MATERIALIZED (
    SELECT e.event_id
    FROM event AS e
    WHERE
        {claimable}
        AND (
            (e.status = 'pending' AND e.body IS NOT NULL AND e.due_at <= %(claimed_at)s::timestamptz)
            OR (e.status = 'unknown' AND e.resend_at <= %(claimed_at)s::timestamptz)
        )
    LIMIT 1
),
clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
waiting AS (
    SELECT
        status,
        CASE
            WHEN event_type = ANY (%(stopped)s::text[]) OR reason = %(waits_for_source)s THEN NULL
            WHEN status = 'sending' THEN lease_until
            WHEN status = 'unknown' THEN greatest(resend_at, lease_until)
            ELSE greatest(due_at, lease_until)
        END AS at,
        CASE
            WHEN status = 'sending' OR lease_until > greatest(due_at, resend_at) THEN 'another sender has it in hand'
            ELSE reason
        END AS why
    FROM event
    WHERE
        shop = %(shop)s
        AND bucket = ANY (%(buckets)s::smallint[])
        AND status IN ('pending', 'sending', 'unknown')
        AND (status <> 'unknown' OR resend_at IS NOT NULL)
    UNION ALL
    SELECT 'overlooked', clock.now + %(look_again)s::interval, 'another sender has it in hand'
    FROM overlooked, clock
)
SELECT
    min(at) FILTER (WHERE at > %(claimed_at)s::timestamptz) AS at,
    (array_agg(why ORDER BY at) FILTER (WHERE at > %(claimed_at)s::timestamptz))[1] AS why,
    count(*) FILTER (WHERE status = 'pending') AS pending,
    (SELECT now FROM clock) AS now
FROM waiting
