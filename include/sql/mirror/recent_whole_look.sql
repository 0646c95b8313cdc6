-- A whole look that can serve another run: of the same source, read as it is read now, as far back, and of rules as they
-- are now.
SELECT l.as_of, l.extracted, l.changed
FROM look AS l
WHERE
    l.shop = %(shop)s
    AND l.whole
    AND l.as_of >= %(since)s
    AND l.told_by = %(told_by)s
    AND NOT EXISTS (
        SELECT FROM source_cursor AS c
        WHERE
            c.shop = l.shop
            AND ((c.source, c.time_zone) IS DISTINCT FROM (%(source)s, %(time_zone)s) OR c.horizon > %(horizon)s)
    )
    AND NOT EXISTS (
        SELECT FROM unnest(%(event_types)s::text[], %(versions)s::integer[]) AS c (event_type, version)
        WHERE NOT EXISTS (
            SELECT FROM rule AS r
            WHERE r.shop = l.shop AND r.event_type = c.event_type AND r.version = c.version
        )
    )
ORDER BY l.as_of DESC
LIMIT 1
