-- Exchange items with the time at which Shopify has their variant in stock (again).
SELECT
    e.return_id, e.exchange_id, e.out_of_stock, e.resolution,
    COALESCE(e.restocked_at, CASE WHEN s.available > 0 THEN s.updated_at END) AS restocked_at,
    e.updated_at,
    CASE WHEN s.synced_at > e.synced_at THEN s.synced_at ELSE e.synced_at END AS synced_at,
    e.nested, e.moved_at
FROM connector.exchange_items AS e
LEFT JOIN beside.stock AS s ON s.variant_id = e.variant_id
