-- Stripe's charges as Airbyte lands them: times as seconds since 1970.
SELECT
    CAST(c.id AS TEXT) AS id, CAST(c.status AS TEXT) AS status, CAST(c.captured AS TEXT) AS captured,
    CAST(c.livemode AS TEXT) AS livemode, CAST(c.amount AS DECIMAL(18, 3)) AS amount,
    LOWER(CAST(c.currency AS TEXT)) AS currency, NULL AS created_at, CAST(c.created AS TEXT) AS created_epoch,
    CAST(c.receipt_email AS TEXT) AS email, CAST(c.metadata AS TEXT) AS metadata,
    COALESCE(c._airbyte_extracted_at, c._airbyte_emitted_at) AS synced_at
FROM stripe.charges AS c
