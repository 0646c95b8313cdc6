-- Whether the source is fresh enough, and tells enough, to remind people by; if not, why.
SELECT reason IS NULL AS fresh, reason
FROM (
    SELECT CASE
        WHEN NOT coalesce(bool_or(c.has_rows) FILTER (WHERE c.source_table = 'labels'), false)
            THEN 'the source has no labels, so it cannot tell what is shipped'
        WHEN NOT bool_or(c.tells_shipped) FILTER (WHERE c.source_table = 'labels')
            THEN 'no label has a status, so nothing tells what is shipped'
        WHEN %(freshness_hours)s::numeric IS NULL THEN NULL
        -- The connector's own record of its last completed sync, where it keeps one.
        WHEN l.synced_at < o.oldest
            THEN
                'the last complete sync was at ' || key_time(l.synced_at)
                || ', more than freshness_hours ago'
        WHEN l.synced_at IS NOT NULL THEN NULL
        WHEN count(c.newest_synced_at) FILTER (WHERE c.source_table IN ('returns', 'labels')) < 2
            THEN 'returns or labels have no synced_at, so nobody can tell how fresh they are'
        WHEN min(c.newest_synced_at) FILTER (WHERE c.source_table IN ('returns', 'labels')) < o.oldest
            THEN
                'returns or labels were last synced at '
                || key_time(min(c.newest_synced_at) FILTER (WHERE c.source_table IN ('returns', 'labels')))
                || ', more than freshness_hours ago'
    END AS reason
    FROM (
        SELECT %(now)s::timestamptz - make_interval(secs => 3600.0 * %(freshness_hours)s::float8) AS oldest
    ) AS o
    LEFT JOIN (
        SELECT synced_at FROM look WHERE shop = %(shop)s ORDER BY as_of DESC LIMIT 1
    ) AS l ON true
    LEFT JOIN source_cursor AS c ON c.shop = %(shop)s
    GROUP BY o.oldest, l.synced_at
) AS judged
