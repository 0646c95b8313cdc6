-- Payments and refunds as the canonical contract names them.
SELECT
    t.transaction_id, t.return_id, t.kind, t.gateway, t.status, t.amount, t.currency, t.created_at, t.synced_at
FROM loop.transactions AS t
