-- Returns as Fivetran lands them. Which are instant exchanges, and whether labels are enabled, no table of it says.
SELECT
    r.return_id, r.state, r.outcome, r.order_name, r.customer_email, NULL AS customer_phone, r.status_page_url,
    NULL AS labels_enabled, NULL AS is_instant_exchange, NULL AS charge_at, r.created_at, r.updated_at, r.synced_at,
    r.is_deleted, r.provider_order_id
FROM connector.list_or_cancelled AS r
