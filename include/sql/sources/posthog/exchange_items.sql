-- Exchange items nested in the return. A row moves when its updated_at does: it is what PostHog itself follows.
SELECT
    CAST(r.id AS TEXT) AS return_id, NULL AS exchange_id, NULL AS out_of_stock, NULL AS resolution,
    NULL AS restocked_at, NULL AS updated_at, NULL AS synced_at,
    r.exchanges AS nested, r.updated_at AS moved_at
FROM loop.returns AS r
