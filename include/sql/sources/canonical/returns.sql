-- Returns as the canonical contract names them.
SELECT
    return_id, state, outcome, order_name, customer_email, customer_phone, status_page_url, labels_enabled,
    is_instant_exchange, charge_at, created_at, updated_at, synced_at, is_deleted
FROM {schema}.returns
