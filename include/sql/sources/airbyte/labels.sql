-- Labels nested in the return; where there are none, the one of its own columns. A row is as new as its extraction.
SELECT
    CAST(r.id AS TEXT) AS return_id, r.carrier, r.tracking_number, NULL AS tracking_url, r.label_url,
    r.label_status AS status, NULL AS created_at, r.label_updated_at AS updated_at, COALESCE(r._airbyte_extracted_at, r._airbyte_emitted_at) AS synced_at,
    r.labels AS nested
FROM loop.returns AS r
