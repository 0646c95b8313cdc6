-- Which return a refund in Shopify was for.
SELECT
    CAST(r.id AS TEXT) AS return_id, CAST(f.provider_refund_id AS TEXT) AS provider_refund_id,
    l.inserted_at AS synced_at
FROM loop.returns AS r
INNER JOIN loop.returns__shopify_refund_object AS f ON f._dlt_parent_id = r._dlt_id
LEFT JOIN loop._dlt_loads AS l ON l.load_id = r._dlt_load_id
UNION ALL
SELECT
    CAST(r.id AS TEXT) AS return_id, CAST(f.provider_refund_id AS TEXT) AS provider_refund_id,
    l.inserted_at AS synced_at
FROM loop.returns AS r
INNER JOIN loop.returns__refunds AS f ON f._dlt_parent_id = r._dlt_id
LEFT JOIN loop._dlt_loads AS l ON l.load_id = r._dlt_load_id
