-- A return with labels turned 28 days old with nothing on its way, or its status became expired; said within 3 days.
SELECT
    r.return_id,
    event_key(r.return_id) AS key,
    r.created_at + INTERVAL '28 days' AS fact_at,
    %(as_of)s::timestamptz AS occurred_at,
    'itself' AS timed_by,
    NULL::timestamptz AS looked_after,
    '{}'::jsonb AS detail
FROM remindable_return AS r
WHERE
    %(fresh)s
    AND r.shop = %(shop)s
    AND r.created_at <= %(as_of)s::timestamptz - INTERVAL '28 days'
    AND r.created_at > %(as_of)s::timestamptz - INTERVAL '31 days'
    AND r.labels_enabled
UNION ALL
(
    SELECT DISTINCT ON (c.return_id)
        c.return_id,
        event_key(c.return_id) AS key,
        coalesce(c.updated_at, c.seen_at) AS fact_at,
        coalesce(c.updated_at, c.seen_at) AS occurred_at,
        CASE WHEN c.updated_at IS NULL THEN 'seen' ELSE 'touched' END AS timed_by,
        c.previous_look_at AS looked_after,
        '{}'::jsonb AS detail
    FROM change AS c
    JOIN mirror_return AS r USING (shop, return_id)
    WHERE
        c.shop = %(shop)s
        AND c.source_table = 'returns'
        AND c.seen_at > %(as_of)s::timestamptz - INTERVAL '4 days' -- nothing is seen long before it happens
        AND c.seen_at <= %(as_of)s
        AND c.old_status <> c.new_status
        AND c.new_status = 'expired'
        AND c.live
        AND coalesce(c.updated_at, c.seen_at) > %(as_of)s::timestamptz - INTERVAL '3 days'
        AND r.status = 'expired'
        AND NOT r.is_deleted
        AND NOT EXISTS (
            SELECT
            FROM mirror_label AS l
            WHERE l.shop = c.shop AND l.return_id = c.return_id AND l.ever_shipped
        )
    ORDER BY c.return_id, c.seen_at DESC
)
