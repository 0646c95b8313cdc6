-- Returns as the canonical contract names them.
SELECT
    r.return_id, r.state, r.outcome, r.order_name, r.customer_email, r.customer_phone, r.status_page_url,
    r.labels_enabled, r.is_instant_exchange, r.charge_at, r.created_at, r.updated_at, r.synced_at, r.is_deleted
FROM loop.returns AS r
