-- Stripe's refunds as Fivetran lands them.
SELECT
    CAST(r.id AS TEXT) AS id, CAST(r.charge_id AS TEXT) AS charge_id, LOWER(CAST(r.status AS TEXT)) AS status,
    CAST(r.amount AS DECIMAL(18, 3)) AS amount, LOWER(CAST(r.currency AS TEXT)) AS currency, r.created AS created_at,
    NULL AS created_epoch, CAST(r.metadata AS TEXT) AS metadata, r._fivetran_synced AS synced_at
FROM stripe.refund AS r
