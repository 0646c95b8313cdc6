-- Exchange items nested in the return. A row is as new as its extraction.
SELECT
    CAST(r.id AS TEXT) AS return_id, NULL AS exchange_id, NULL AS out_of_stock, NULL AS resolution,
    NULL AS restocked_at, NULL AS updated_at, COALESCE(r._airbyte_extracted_at, r._airbyte_emitted_at) AS synced_at,
    r.exchanges AS nested
FROM loop.returns AS r
