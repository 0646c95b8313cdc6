-- Returns as the source lands them. A row is as new as its extraction.
SELECT
    CAST(r.id AS TEXT) AS return_id, r.state, r.outcome, r.order_name, CAST(r.customer AS TEXT) AS customer_email,
    NULL AS customer_phone, r.status_page_url, NULL AS labels_enabled, NULL AS is_instant_exchange, NULL AS charge_at,
    r.created_at, r.updated_at, COALESCE(r._airbyte_extracted_at, r._airbyte_emitted_at) AS synced_at, NULL AS is_deleted,
    CAST(r.provider_order_id AS TEXT) AS provider_order_id
FROM loop.returns AS r
