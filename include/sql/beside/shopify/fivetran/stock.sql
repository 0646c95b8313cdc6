-- How many of a variant are available now, over all locations; tables of the REST and of the GraphQL connector.
SELECT
    CAST(v.id AS TEXT) AS variant_id, SUM(i.available) AS available, MAX(i.updated_at) AS updated_at,
    MAX(i._fivetran_synced) AS synced_at
FROM shopify.product_variant AS v
INNER JOIN shopify.inventory_level AS i ON CAST(i.inventory_item_id AS TEXT) = CAST(v.inventory_item_id AS TEXT)
GROUP BY CAST(v.id AS TEXT)
