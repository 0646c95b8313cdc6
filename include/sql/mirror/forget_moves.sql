-- When rows last changed was read by another zone than the shop has now: no row is older than what is held, by that. Of what
-- has not moved it is told again as its table is applied. What waits for its return is read again, where it is still there.
INSERT INTO held_move
SELECT h.source_table, h.return_id, h.subject, as_read.updated_at
FROM (
    SELECT 'returns' AS source_table, return_id, '' AS subject, updated_at FROM mirror_return WHERE shop = %(shop)s
    UNION ALL
    SELECT 'labels', return_id, number, updated_at FROM mirror_label WHERE shop = %(shop)s
    UNION ALL
    SELECT 'exchange_items', return_id, exchange_id, updated_at FROM mirror_item WHERE shop = %(shop)s
) AS h
JOIN source_cursor AS c ON c.shop = %(shop)s AND c.source_table = h.source_table
CROSS JOIN LATERAL (
    VALUES (h.updated_at), (h.updated_at AT TIME ZONE c.time_zone AT TIME ZONE %(time_zone)s)
) AS as_read (updated_at)
WHERE h.updated_at IS NOT NULL;

ANALYZE held_move;

UPDATE mirror_return SET updated_at = NULL WHERE shop = %(shop)s AND updated_at IS NOT NULL;
UPDATE mirror_label SET updated_at = NULL WHERE shop = %(shop)s AND updated_at IS NOT NULL;
UPDATE mirror_item SET updated_at = NULL WHERE shop = %(shop)s AND updated_at IS NOT NULL;
DELETE FROM mirror_waiting WHERE shop = %(shop)s;
