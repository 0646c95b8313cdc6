-- The tracking URL of a return, by its _dlt_id, where the shipping notices of its line items agree on one.
SELECT i._dlt_parent_id, MIN(n.tracking_url) AS tracking_url, MAX(n.synced_at) AS synced_at
FROM (
    SELECT
        CAST(a.return_line_item_id AS TEXT) AS line_item_id,
        NULLIF(NULLIF(TRIM(CAST(a.integration_tracking_url AS TEXT)), ''), 'N/A') AS tracking_url,
        l.inserted_at AS synced_at
    FROM loop.advanced_shipping_notices AS a
    LEFT JOIN loop._dlt_loads AS l ON l.load_id = a._dlt_load_id
) AS n
INNER JOIN loop.returns__line_items AS i ON CAST(i.line_item_id AS TEXT) = n.line_item_id
GROUP BY i._dlt_parent_id
HAVING COUNT(DISTINCT n.tracking_url) = 1
