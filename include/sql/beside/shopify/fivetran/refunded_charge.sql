-- Which Stripe charge a refund in Shopify was made on, where its gateway tells: then the charge's id is in
-- `authorization` (REST) or `authorization_code` (GraphQL).
SELECT
    CAST(t.refund_id AS TEXT) AS refund_id,
    COALESCE(CAST(t.authorization AS TEXT), CAST(t.authorization_code AS TEXT)) AS charge_id,
    t._fivetran_synced AS synced_at
FROM shopify.transaction AS t
WHERE
    LOWER(CAST(t.kind AS TEXT)) = 'refund'
    AND COALESCE(LOWER(CAST(t.status AS TEXT)), 'success') = 'success'
    AND LOWER(COALESCE(CAST(t.test AS TEXT), 'false')) IN ('false', 'f', '0')
    AND COALESCE(CAST(t.authorization AS TEXT), CAST(t.authorization_code AS TEXT)) LIKE 'ch_%'
