-- Stripe's refunds as Airbyte lands them: times as seconds since 1970, a number or text.
SELECT
    CAST(r.id AS TEXT) AS id, CAST(r.charge AS TEXT) AS charge_id, LOWER(CAST(r.status AS TEXT)) AS status,
    CAST(r.amount AS DECIMAL(18, 3)) AS amount, LOWER(CAST(r.currency AS TEXT)) AS currency, NULL AS created_at,
    CAST(r.created AS TEXT) AS created_epoch, CAST(r.metadata AS TEXT) AS metadata,
    COALESCE(r._airbyte_extracted_at, r._airbyte_emitted_at) AS synced_at
FROM stripe.refunds AS r
