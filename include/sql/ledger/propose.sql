-- The events that a person asks about, as they are now: what is decided later are these and no others. Who said no is no
-- matter of a decision about events; nor is what may have been sent, and purged since: nobody knows any more.
INSERT INTO proposed (shop, dag_id, run_id, event_id, status, reason, attempts)
SELECT %(shop)s, %(dag_id)s, %(run_id)s, e.event_id, e.status, e.reason, e.attempts
FROM event AS e
WHERE
    e.shop = %(shop)s
    AND e.status = ANY (%(states)s::text[])
    AND (e.status <> 'suppressed' OR e.reason IS DISTINCT FROM 'opted out')
    AND (
        e.status NOT IN ('suppressed', 'expired') OR e.reason = 'baseline'
        OR e.fact_at >= clock_timestamp() - make_interval(days => %(retention_days)s)
    )
    AND (%(reason)s::text IS NULL OR e.reason = %(reason)s)
    AND (%(events)s::text[] = '{}' OR e.event_type = ANY (%(events)s::text[]))
    AND (%(returns)s::text[] = '{}' OR e.return_id = ANY (%(returns)s::text[]))
    AND (%(from)s::timestamptz IS NULL OR e.fact_at >= %(from)s)
    AND (%(until)s::timestamptz IS NULL OR e.fact_at < %(until)s)
    AND (
        %(of_run)s::text IS NULL
        OR e.run_key IN (SELECT r.run_key FROM run AS r WHERE r.shop = %(shop)s AND r.run_id = %(of_run)s)
    )
    AND (
        NOT %(unasked)s
        OR e.reason IS DISTINCT FROM 'restored'
        AND NOT EXISTS (
            SELECT FROM proposed AS p WHERE p.shop = e.shop AND p.event_id = e.event_id AND p.status = e.status
        )
    )
ON CONFLICT DO NOTHING;
