-- The rules start at this moment: what happened until then is baseline when they find it, and a person may release it. A shop
-- that the backup does not know has no rules yet, and may have sent since.
INSERT INTO rule (shop, event_type, version)
SELECT %(shop)s, c.event_type, c.version
FROM unnest(%(event_types)s::text[], %(versions)s::integer[]) AS c (event_type, version)
WHERE NOT EXISTS (SELECT FROM rule AS r WHERE r.shop = %(shop)s);

UPDATE rule
SET
    starts_at = greatest(starts_at, coalesce(%(now)s::timestamptz, clock_timestamp())),
    restored_at = coalesce(%(now)s::timestamptz, clock_timestamp())
WHERE shop = %(shop)s;
