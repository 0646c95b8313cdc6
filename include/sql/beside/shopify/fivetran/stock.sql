-- How many of a variant are available now, over all locations: in inventory_level by Shopify's REST interface, in
-- inventory_quantity by GraphQL.
SELECT
    CAST(v.id AS TEXT) AS variant_id, SUM(i.available) AS available, MAX(i.updated_at) AS updated_at,
    MAX(i.synced_at) AS synced_at
FROM shopify.product_variant AS v
INNER JOIN (
    SELECT
        CAST(l.inventory_item_id AS TEXT) AS item_id, l.available, l.updated_at, l._fivetran_synced AS synced_at
    FROM shopify.inventory_level AS l
    UNION ALL
    SELECT
        CAST(q.inventory_item_id AS TEXT) AS item_id, q.quantity AS available, q.updated_at,
        q._fivetran_synced AS synced_at
    FROM shopify.inventory_quantity AS q
    WHERE LOWER(CAST(q.name AS TEXT)) = 'available'
) AS i ON i.item_id = CAST(v.inventory_item_id AS TEXT)
GROUP BY CAST(v.id AS TEXT)
