-- Stripe's charges as Fivetran lands them.
SELECT
    CAST(c.id AS TEXT) AS id, CAST(c.status AS TEXT) AS status, CAST(c.captured AS TEXT) AS captured,
    CAST(c.livemode AS TEXT) AS livemode, CAST(c.amount AS DECIMAL(18, 3)) AS amount,
    LOWER(CAST(c.currency AS TEXT)) AS currency, c.created AS created_at, NULL AS created_epoch,
    COALESCE(CAST(c.receipt_email AS TEXT), CAST(c.billing_detail_email AS TEXT)) AS email,
    CAST(c.metadata AS TEXT) AS metadata, c._fivetran_synced AS synced_at
FROM stripe.charge AS c
