-- Returns with the phone, and where Loop's is missing the e-mail, of the Shopify order that they belong to.
-- The order is found by its id, else by its name where only one order bears it. A contact that lands later moves the row.
SELECT
    r.return_id, r.state, r.outcome, r.order_name,
    COALESCE(NULLIF(TRIM(CAST(r.customer_email AS TEXT)), ''), by_id.email, by_name.email) AS customer_email,
    COALESCE(NULLIF(TRIM(CAST(r.customer_phone AS TEXT)), ''), by_id.phone, by_name.phone) AS customer_phone,
    r.status_page_url, r.labels_enabled, r.is_instant_exchange, r.charge_at, r.created_at, r.updated_at,
    CASE
        WHEN COALESCE(by_id.synced_at, by_name.synced_at) > r.synced_at THEN COALESCE(by_id.synced_at, by_name.synced_at)
        ELSE r.synced_at
    END AS synced_at,
    r.is_deleted,
    CASE
        WHEN COALESCE(by_id.synced_at, by_name.synced_at) > r.moved_at THEN COALESCE(by_id.synced_at, by_name.synced_at)
        ELSE r.moved_at
    END AS moved_at
FROM connector.returns AS r
LEFT JOIN beside.contact AS by_id ON by_id.order_id = r.provider_order_id
LEFT JOIN (
    SELECT
        c.order_name, MIN(c.email) AS email, MIN(c.phone) AS phone, MIN(c.synced_at) AS synced_at
    FROM beside.contact AS c
    GROUP BY c.order_name
    HAVING COUNT(*) = 1
) AS by_name ON by_name.order_name = r.order_name AND by_id.order_id IS NULL
