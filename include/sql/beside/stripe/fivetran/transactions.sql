-- Stripe's charges and refunds in live mode. A charge counts once it is captured: a hold that expires is marked
-- refunded and is no refund. Its return is named by the metadata key that the shop's settings give; a refund's also by
-- Shopify, where exactly one return was refunded on its charge.
SELECT
    CAST(c.id AS TEXT) AS transaction_id, NULL AS return_id, 'payment' AS kind, 'stripe' AS gateway,
    CASE
        WHEN LOWER(CAST(c.captured AS TEXT)) IN ('true', 't', '1') THEN CAST(c.status AS TEXT)
        ELSE 'not captured'
    END AS status,
    CAST(c.amount AS DECIMAL(18, 2)) AS amount, CAST(c.currency AS TEXT) AS currency, c.created AS created_at, NULL AS created_epoch,
    c._fivetran_synced AS synced_at, CAST(c.metadata AS TEXT) AS link
FROM stripe.charge AS c
WHERE LOWER(COALESCE(CAST(c.livemode AS TEXT), 'true')) IN ('true', 't', '1')
UNION ALL
SELECT
    CAST(r.id AS TEXT) AS transaction_id, l.return_id, 'refund' AS kind, 'stripe' AS gateway,
    CASE
        WHEN LOWER(CAST(c.captured AS TEXT)) IN ('true', 't', '1') THEN CAST(r.status AS TEXT)
        ELSE 'not captured'
    END AS status,
    CAST(r.amount AS DECIMAL(18, 2)) AS amount, CAST(r.currency AS TEXT) AS currency, r.created AS created_at, NULL AS created_epoch,
    CASE WHEN c._fivetran_synced > r._fivetran_synced THEN c._fivetran_synced ELSE r._fivetran_synced END AS synced_at,
    COALESCE(NULLIF(CAST(r.metadata AS TEXT), '{}'), CAST(c.metadata AS TEXT)) AS link
FROM stripe.refund AS r
LEFT JOIN stripe.charge AS c ON CAST(c.id AS TEXT) = CAST(r.charge_id AS TEXT)
LEFT JOIN (
    SELECT s.charge_id, MIN(f.return_id) AS return_id
    FROM connector.refunds AS f
    INNER JOIN beside.refunded_charge AS s ON s.refund_id = f.provider_refund_id
    GROUP BY s.charge_id
    HAVING COUNT(DISTINCT f.return_id) = 1
) AS l ON l.charge_id = CAST(r.charge_id AS TEXT)
WHERE LOWER(COALESCE(CAST(c.livemode AS TEXT), 'true')) IN ('true', 't', '1')
