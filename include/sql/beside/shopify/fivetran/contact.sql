-- Whom an order belongs to. The customer's own phone first, then the payer's, then the recipient's: the last may be
-- that of somebody who was given a present.
SELECT
    CAST(o.id AS TEXT) AS order_id, CAST(o.name AS TEXT) AS order_name,
    COALESCE(NULLIF(TRIM(CAST(o.email AS TEXT)), ''), NULLIF(TRIM(CAST(c.email AS TEXT)), '')) AS email,
    COALESCE(
        NULLIF(TRIM(CAST(c.phone AS TEXT)), ''),
        NULLIF(TRIM(CAST(o.billing_address_phone AS TEXT)), ''),
        NULLIF(TRIM(CAST(o.shipping_address_phone AS TEXT)), '')
    ) AS phone,
    CASE WHEN c._fivetran_synced > o._fivetran_synced THEN c._fivetran_synced ELSE o._fivetran_synced END AS synced_at
FROM shopify."order" AS o
LEFT JOIN shopify.customer AS c ON CAST(c.id AS TEXT) = CAST(o.customer_id AS TEXT)
WHERE LOWER(COALESCE(CAST(o._fivetran_deleted AS TEXT), 'false')) IN ('false', 'f', '0')
