-- What each return's customer paid on top, in whole units of the currency; what is no amount is none.
SELECT
    u.return_id, LOWER(TRIM(r.customer_email)) AS email, r.created_at, COALESCE(r.synced_at, r.moved_at) AS synced_at,
    LOWER(u.currency) AS currency,
    CASE WHEN u.upsell ~ '^[0-9]+([.][0-9]+)?$' THEN CAST(u.upsell AS DECIMAL(18, 3)) END AS upsell
FROM connector.upsells AS u
INNER JOIN shop.returns AS r ON r.return_id = u.return_id
