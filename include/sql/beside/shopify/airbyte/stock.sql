-- How many of a variant are available now, over all locations.
SELECT
    CAST(v.id AS TEXT) AS variant_id, SUM(i.available) AS available, MAX(i.updated_at) AS updated_at,
    MAX(COALESCE(i._airbyte_extracted_at, i._airbyte_emitted_at)) AS synced_at
FROM shopify.product_variants AS v
INNER JOIN shopify.inventory_levels AS i ON CAST(i.inventory_item_id AS TEXT) = CAST(v.inventory_item_id AS TEXT)
GROUP BY CAST(v.id AS TEXT)
