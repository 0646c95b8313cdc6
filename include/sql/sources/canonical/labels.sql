-- Labels as the canonical contract names them.
SELECT
    l.return_id, l.carrier, l.tracking_number, l.tracking_url, l.label_url, l.status, l.created_at, l.updated_at,
    l.synced_at
FROM loop.labels AS l
