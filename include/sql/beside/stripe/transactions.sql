-- Stripe's payments and refunds. A refund counts when its charge did: a hold that expires is marked refunded and is no
-- refund. Its return is named by the metadata key that the shop's settings give, its own or its charge's; a refund's
-- else by Shopify, unless Stripe has refunds on the charge that Shopify has not made.
SELECT
    c.id AS transaction_id, NULL AS return_id, 'payment' AS kind, 'stripe' AS gateway, c.status, c.amount, c.currency,
    c.created_at, GREATEST(c.synced_at, COALESCE(m.synced_at, c.synced_at)) AS synced_at, c.created_epoch,
    c.metadata AS link, NULL AS charge_link, m.return_id AS matched, m.returned_at AS matched_at
FROM beside.payment AS c
LEFT JOIN beside.matched_by_email AS m ON m.charge_id = c.id
UNION ALL
SELECT
    r.id AS transaction_id, l.return_id, 'refund' AS kind, 'stripe' AS gateway,
    CASE WHEN c.status = 'succeeded' THEN r.status ELSE 'not captured' END AS status,
    CASE
        WHEN r.currency IN ('bif', 'clp', 'djf', 'gnf', 'jpy', 'kmf', 'krw', 'mga', 'pyg', 'rwf', 'ugx', 'vnd', 'vuv', 'xaf', 'xof', 'xpf')
            THEN r.amount
        WHEN r.currency IN ('bhd', 'jod', 'kwd', 'omr', 'tnd') THEN CAST(r.amount / 1000 AS DECIMAL(18, 3))
        ELSE CAST(r.amount / 100 AS DECIMAL(18, 3))
    END AS amount,
    r.currency, r.created_at,
    GREATEST(r.synced_at, c.synced_at, COALESCE(l.synced_at, r.synced_at)) AS synced_at,
    r.created_epoch, r.metadata AS link, c.metadata AS charge_link, NULL AS matched, NULL AS matched_at
FROM beside.refund AS r
INNER JOIN beside.payment AS c ON c.id = r.charge_id -- one that has not landed yet would make it look like news when it does
LEFT JOIN (
    SELECT o.charge_id, COUNT(*) AS refunds
    FROM beside.refund AS o
    WHERE o.status NOT IN ('failed', 'canceled')
    GROUP BY o.charge_id
) AS n ON n.charge_id = r.charge_id
LEFT JOIN beside.linked_by_shopify AS l ON l.charge_id = r.charge_id AND n.refunds <= l.refunds
