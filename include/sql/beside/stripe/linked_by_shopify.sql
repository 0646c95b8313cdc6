-- The return that a charge was refunded for, where each of the refunds that Shopify made on it was for this one return.
SELECT
    s.charge_id, MIN(f.return_id) AS return_id, COUNT(DISTINCT s.refund_id) AS refunds,
    MAX(GREATEST(s.synced_at, COALESCE(f.synced_at, s.synced_at))) AS synced_at
FROM beside.refunded_charge AS s
LEFT JOIN connector.refunds AS f ON f.provider_refund_id = s.refund_id
GROUP BY s.charge_id
HAVING COUNT(DISTINCT f.return_id) = 1 AND COUNT(f.return_id) = COUNT(*)
