-- Exchange items of listed and of cancelled returns; one that was deleted softly is told no more.
SELECT
    CAST(e.return_list_id AS TEXT) AS return_id, CAST(e.exchange_id AS TEXT) AS exchange_id,
    CAST(e.out_of_stock AS TEXT) AS out_of_stock, CAST(e.out_of_stock_resolution AS TEXT) AS resolution,
    NULL AS restocked_at, NULL AS updated_at, e._fivetran_synced AS synced_at, CAST(e.variant_id AS TEXT) AS variant_id
FROM loop.return_list_exchange AS e
WHERE LOWER(COALESCE(CAST(e._fivetran_deleted AS TEXT), 'false')) IN ('false', 'f', '0')
UNION ALL
SELECT
    CAST(e.return_cancelled_id AS TEXT) AS return_id, CAST(e.exchange_id AS TEXT) AS exchange_id,
    CAST(e.out_of_stock AS TEXT) AS out_of_stock, CAST(e.out_of_stock_resolution AS TEXT) AS resolution,
    NULL AS restocked_at, NULL AS updated_at, e._fivetran_synced AS synced_at, CAST(e.variant_id AS TEXT) AS variant_id
FROM loop.return_cancelled_exchange AS e
WHERE LOWER(COALESCE(CAST(e._fivetran_deleted AS TEXT), 'false')) IN ('false', 'f', '0')
