-- Labels nested in the return; where there are none, the one of its own columns. A row moves when its updated_at does: it is what PostHog itself follows.
SELECT
    CAST(r.id AS TEXT) AS return_id, r.carrier, r.tracking_number, NULL AS tracking_url, r.label_url,
    r.label_status AS status, NULL AS created_at, r.label_updated_at AS updated_at, NULL AS synced_at,
    r.labels AS nested, r.updated_at AS moved_at
FROM loop.returns AS r
