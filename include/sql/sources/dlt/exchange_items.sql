-- Exchange items from the child table.
SELECT
    CAST(r.id AS TEXT) AS return_id, CAST(e.exchange_id AS TEXT) AS exchange_id, e.out_of_stock,
    e.out_of_stock_resolution AS resolution, NULL AS restocked_at, NULL AS updated_at, l.inserted_at AS synced_at,
    CAST(e.variant_id AS TEXT) AS variant_id
FROM loop.returns AS r
INNER JOIN loop.returns__exchanges AS e ON e._dlt_parent_id = r._dlt_id
LEFT JOIN loop._dlt_loads AS l ON l.load_id = r._dlt_load_id
