-- Stripe's charges in live mode, in whole units of their currency. One counts once it is captured: until then it is a
-- hold, which may expire.
SELECT
    c.id, LOWER(TRIM(c.email)) AS email, c.currency, c.created_at, c.created_epoch, c.metadata, c.synced_at,
    CASE WHEN LOWER(c.captured) IN ('true', 't', '1') THEN LOWER(c.status) ELSE 'not captured' END AS status,
    CASE
        WHEN c.currency IN ('bif', 'clp', 'djf', 'gnf', 'jpy', 'kmf', 'krw', 'mga', 'pyg', 'rwf', 'ugx', 'vnd', 'vuv', 'xaf', 'xof', 'xpf')
            THEN c.amount
        WHEN c.currency IN ('bhd', 'jod', 'kwd', 'omr', 'tnd') THEN CAST(c.amount / 1000 AS DECIMAL(18, 3))
        ELSE CAST(c.amount / 100 AS DECIMAL(18, 3))
    END AS amount
FROM beside.charge AS c
WHERE LOWER(COALESCE(c.livemode, 'true')) IN ('true', 't', '1')
