-- The tracking URL of a return, where the shipping notices of its line items agree on one.
SELECT i.return_id, MIN(n.tracking_url) AS tracking_url, MAX(n.synced_at) AS synced_at
FROM (
    SELECT
        CAST(a.return_line_item_id AS TEXT) AS line_item_id,
        NULLIF(NULLIF(TRIM(CAST(a.integration_tracking_url AS TEXT)), ''), 'N/A') AS tracking_url,
        a._fivetran_synced AS synced_at
    FROM loop.advanced_shipping_notice AS a
    WHERE LOWER(COALESCE(CAST(a._fivetran_deleted AS TEXT), 'false')) IN ('false', 'f', '0')
) AS n
INNER JOIN (
    SELECT CAST(l.return_list_id AS TEXT) AS return_id, CAST(l.line_item_id AS TEXT) AS line_item_id
    FROM loop.return_list_line_item AS l
    UNION ALL
    SELECT CAST(c.return_cancelled_id AS TEXT) AS return_id, CAST(c.line_item_id AS TEXT) AS line_item_id
    FROM loop.return_cancelled_line_item AS c
) AS i ON i.line_item_id = n.line_item_id
GROUP BY i.return_id
HAVING COUNT(DISTINCT n.tracking_url) = 1
