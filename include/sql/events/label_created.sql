-- A label is seen with its first real tracking number; one that is cancelled by then is no label.
SELECT
    l.return_id,
    event_key(l.return_id, l.number) AS key,
    f.fact_at,
    f.fact_at AS occurred_at,
    f.timed_by,
    l.previous_look_at AS looked_after,
    jsonb_build_object('number', l.number) AS detail
FROM mirror_label AS l
JOIN mirror_return AS r USING (shop, return_id)
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN NOT l.had_no_number AND l.created_at IS NOT NULL THEN l.created_at
            ELSE coalesce(l.first_updated_at, l.first_seen_at)
        END AS fact_at,
        CASE
            WHEN NOT l.had_no_number AND l.created_at IS NOT NULL THEN 'itself'
            WHEN l.first_updated_at IS NULL THEN 'seen'
            WHEN l.had_no_number THEN 'touched'
            ELSE 'first_sight'
        END AS timed_by
) AS f
WHERE
    l.shop = %(shop)s
    AND l.first_seen_at > %(since)s
    AND l.first_seen_at <= %(as_of)s
    AND l.number <> ''
    AND l.first_status <> 'canceled'
    AND NOT l.silent
    AND NOT r.is_deleted
