-- Whether the source is fresh enough, and tells enough, to remind people by; if not, why.
SELECT reason IS NULL AS fresh, reason
FROM (
    SELECT CASE
        WHEN NOT coalesce(bool_or(has_rows) FILTER (WHERE source_table = 'labels'), false)
            THEN 'the source has no labels, so it cannot tell what is shipped'
        WHEN %(freshness_hours)s::numeric IS NULL THEN NULL
        WHEN count(newest_synced_at) FILTER (WHERE source_table IN ('returns', 'labels')) < 2
            THEN 'returns or labels have no synced_at, so nobody can tell how fresh they are'
        WHEN
            min(newest_synced_at) FILTER (WHERE source_table IN ('returns', 'labels'))
            < %(now)s::timestamptz - make_interval(secs => 3600.0 * %(freshness_hours)s::float8)
            THEN
                'returns or labels were last synced at '
                || key_time(min(newest_synced_at) FILTER (WHERE source_table IN ('returns', 'labels')))
                || ', more than freshness_hours ago'
    END AS reason
    FROM source_cursor
    WHERE shop = %(shop)s
) AS judged
