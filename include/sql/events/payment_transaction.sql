-- Stripe took a payment of the customer's for the return. Shopify Payments is another gateway, and not counted.
SELECT
    t.return_id,
    event_key(t.transaction_id) AS key,
    f.fact_at,
    f.fact_at AS occurred_at,
    f.timed_by,
    t.previous_look_at AS looked_after,
    '{}'::jsonb AS detail
FROM mirror_transaction AS t
JOIN mirror_return AS r USING (shop, return_id)
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN t.seen_before THEN t.succeeded_at ELSE coalesce(t.created_at, t.succeeded_at) END AS fact_at,
        CASE WHEN t.seen_before OR t.created_at IS NULL THEN 'seen' ELSE 'itself' END AS timed_by
) AS f
WHERE
    t.shop = %(shop)s
    AND t.succeeded_at > %(since)s
    AND t.succeeded_at <= %(as_of)s
    AND t.kind = 'payment'
    AND t.gateway = 'stripe'
    AND t.status = 'succeeded' -- still
    AND NOT r.is_deleted
