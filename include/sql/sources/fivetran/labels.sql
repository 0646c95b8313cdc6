-- The one label that a return's own columns tell of; its tracking URL from the shipping notices, if they agree on one.
SELECT
    r.return_id, r.carrier, r.tracking_number, a.tracking_url, r.label_url, r.label_status AS status,
    NULL AS created_at, r.label_updated_at AS updated_at,
    CASE WHEN a.synced_at > r.synced_at THEN a.synced_at ELSE r.synced_at END AS synced_at
FROM connector.list_or_cancelled AS r
LEFT JOIN connector.tracking_urls AS a ON a.return_id = r.return_id
WHERE r.tracking_number IS NOT NULL OR r.label_status IS NOT NULL
