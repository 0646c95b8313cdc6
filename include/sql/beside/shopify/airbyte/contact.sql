-- Whom an order belongs to. Its customer is found by the e-mail, which Shopify gives to one customer only: the order
-- names the customer inside of JSON. The addresses' phones are there too, and not read.
SELECT
    CAST(o.id AS TEXT) AS order_id, CAST(o.name AS TEXT) AS order_name,
    COALESCE(NULLIF(TRIM(CAST(o.email AS TEXT)), ''), NULLIF(TRIM(CAST(o.contact_email AS TEXT)), '')) AS email,
    COALESCE(NULLIF(TRIM(c.phone), ''), NULLIF(TRIM(CAST(o.phone AS TEXT)), '')) AS phone,
    CASE
        WHEN c.synced_at > COALESCE(o._airbyte_extracted_at, o._airbyte_emitted_at) THEN c.synced_at
        ELSE COALESCE(o._airbyte_extracted_at, o._airbyte_emitted_at)
    END AS synced_at
FROM shopify.orders AS o
LEFT JOIN (
    SELECT
        LOWER(TRIM(CAST(k.email AS TEXT))) AS email, MIN(CAST(k.phone AS TEXT)) AS phone,
        MIN(COALESCE(k._airbyte_extracted_at, k._airbyte_emitted_at)) AS synced_at
    FROM shopify.customers AS k
    WHERE TRIM(CAST(k.email AS TEXT)) <> ''
    GROUP BY LOWER(TRIM(CAST(k.email AS TEXT)))
    HAVING COUNT(*) = 1
) AS c
    ON c.email = LOWER(
        COALESCE(NULLIF(TRIM(CAST(o.email AS TEXT)), ''), NULLIF(TRIM(CAST(o.contact_email AS TEXT)), ''))
    )
WHERE o.deleted_at IS NULL
