-- Payments and refunds as the canonical contract names them.
SELECT
    transaction_id, return_id, kind, gateway, status, amount, currency, created_at, synced_at
FROM {schema}.transactions
