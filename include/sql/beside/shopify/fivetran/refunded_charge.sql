-- Which Stripe charge a refund in Shopify was made on, where its gateway tells: then `authorization` is the charge's id.
SELECT
    CAST(t.refund_id AS TEXT) AS refund_id,
    COALESCE(CAST(t.authorization AS TEXT), CAST(t.authorization_code AS TEXT)) AS charge_id
FROM shopify.transaction AS t
WHERE
    LOWER(CAST(t.kind AS TEXT)) = 'refund'
    AND COALESCE(CAST(t.authorization AS TEXT), CAST(t.authorization_code AS TEXT)) LIKE 'ch_%'
