-- The one label that a return's own columns tell of; its tracking URL from the shipping notices, if they agree on one.
SELECT
    r.return_id, r.carrier, r.tracking_number, a.tracking_url, r.label_url, r.label_status AS status,
    NULL AS created_at, r.label_updated_at AS updated_at,
    CASE WHEN a.synced_at > r.synced_at THEN a.synced_at ELSE r.synced_at END AS synced_at
FROM connector.list_or_cancelled AS r
LEFT JOIN (
    SELECT
        CAST(i.return_list_id AS TEXT) AS return_id,
        MIN(CAST(n.integration_tracking_url AS TEXT)) AS tracking_url,
        MAX(n._fivetran_synced) AS synced_at
    FROM loop.advanced_shipping_notice AS n
    INNER JOIN loop.return_list_line_item AS i ON CAST(i.line_item_id AS TEXT) = CAST(n.return_line_item_id AS TEXT)
    GROUP BY CAST(i.return_list_id AS TEXT)
    HAVING COUNT(DISTINCT CAST(n.integration_tracking_url AS TEXT)) = 1
) AS a ON a.return_id = r.return_id
WHERE r.tracking_number IS NOT NULL OR r.label_status IS NOT NULL
