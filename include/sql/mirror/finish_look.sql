-- The look is complete: it is recorded, the shop's first one enables it, and rules it did not have yet start.
DELETE FROM source_cursor -- of tables that only another source had, or that are read no more
WHERE shop = %(shop)s AND (source <> %(source)s OR source_table <> ALL (%(read)s::text[]));

INSERT INTO look (shop, as_of, whole, extracted, changed, synced_at, told_by)
VALUES (%(shop)s, %(as_of)s, %(whole)s, %(extracted)s, %(changed)s, %(synced_at)s, %(told_by)s);

INSERT INTO shop (shop, enabled_at) VALUES (%(shop)s, %(as_of)s) ON CONFLICT DO NOTHING;

-- A new version goes on where the old one stopped; a rule that comes later starts with this look.
INSERT INTO rule (shop, event_type, version, starts_at, completed_at, restored_at)
SELECT
    s.shop, c.event_type, c.version,
    CASE
        WHEN old.version IS NOT NULL THEN greatest(old.completed_at, old.starts_at)
        WHEN s.enabled_at < %(as_of)s THEN %(as_of)s::timestamptz
    END,
    old.completed_at,
    old.restored_at
FROM unnest(%(event_types)s::text[], %(versions)s::integer[]) AS c (event_type, version)
JOIN shop AS s ON s.shop = %(shop)s
LEFT JOIN LATERAL (
    SELECT r.version, r.starts_at, r.completed_at, r.restored_at
    FROM rule AS r
    WHERE r.shop = s.shop AND r.event_type = c.event_type AND r.version < c.version
    ORDER BY r.version DESC
    LIMIT 1
) AS old ON true
ON CONFLICT DO NOTHING;
