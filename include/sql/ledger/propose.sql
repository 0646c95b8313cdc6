-- The events that a person asks about, as they are now: what is decided later are these and no others.
INSERT INTO proposed (shop, dag_id, run_id, event_id, status, reason)
SELECT %(shop)s, %(dag_id)s, %(run_id)s, e.event_id, e.status, e.reason
FROM event AS e
WHERE
    e.shop = %(shop)s
    AND e.status = ANY (%(states)s::text[])
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
