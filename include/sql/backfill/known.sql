-- What the ledger holds of a range of days, in numbers: told as what has become of it, and whether a person could release
-- it. Of what is still under way nothing can be released.
SELECT
    e.event_type,
    (e.fact_at AT TIME ZONE %(zone)s)::date AS day,
    v.verdict,
    CASE WHEN e.status <> 'accepted' THEN e.reason END AS reason,
    v.verdict IN ('suppressed', 'expired') AND e.reason IS DISTINCT FROM 'opted out' AS releasable,
    count(*) AS events
FROM event AS e
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN e.status = 'accepted' THEN 'already sent'
            WHEN e.status IN ('pending', 'sending') THEN 'being sent'
            WHEN e.status = 'unknown' THEN 'in doubt'
            WHEN e.status = 'suppressed' AND e.reason = 'no longer true' THEN 'no longer due'
            ELSE e.status
        END AS verdict
) AS v
WHERE
    e.shop = %(shop)s
    AND e.event_type = ANY (%(event_types)s::text[])
    AND e.fact_at >= %(start)s
    AND e.fact_at < %(end)s
GROUP BY 1, 2, 3, 4, 5;
