-- Labels as the canonical contract names them.
SELECT
    return_id, carrier, tracking_number, tracking_url, label_url, status, created_at, updated_at, synced_at
FROM {schema}.labels
