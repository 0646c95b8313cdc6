-- One row a return, RETURN_LIST with RETURN_CANCELLED over it: a cancelled return may stay open in the list for ever.
SELECT
    CAST(l.id AS TEXT) AS return_id,
    CASE WHEN c.id IS NOT NULL THEN 'cancelled' ELSE CAST(l.state AS TEXT) END AS state,
    COALESCE(CAST(c.outcome AS TEXT), CAST(l.outcome AS TEXT)) AS outcome,
    COALESCE(CAST(c.order_name AS TEXT), CAST(l.order_name AS TEXT)) AS order_name,
    COALESCE(CAST(c.customer AS TEXT), CAST(l.customer AS TEXT)) AS customer_email,
    COALESCE(CAST(c.status_page_url AS TEXT), CAST(l.status_page_url AS TEXT)) AS status_page_url,
    COALESCE(CAST(c.provider_order_id AS TEXT), CAST(l.provider_order_id AS TEXT)) AS provider_order_id,
    COALESCE(CAST(c.carrier AS TEXT), CAST(l.carrier AS TEXT)) AS carrier,
    COALESCE(CAST(c.tracking_number AS TEXT), CAST(l.tracking_number AS TEXT)) AS tracking_number,
    COALESCE(CAST(c.label_status AS TEXT), CAST(l.label_status AS TEXT)) AS label_status,
    COALESCE(CAST(c.label_url AS TEXT), CAST(l.label_url AS TEXT)) AS label_url,
    COALESCE(CAST(c.label_updated_at AS TEXT), CAST(l.label_updated_at AS TEXT)) AS label_updated_at,
    COALESCE(c.created_at, l.created_at) AS created_at,
    -- The later one: with an older time the cancellation would look like an old version of the return.
    CASE WHEN c.updated_at > l.updated_at OR l.updated_at IS NULL THEN c.updated_at ELSE l.updated_at END AS updated_at,
    CASE WHEN c._fivetran_synced > l._fivetran_synced THEN c._fivetran_synced ELSE l._fivetran_synced END AS synced_at,
    CASE WHEN c.id IS NULL THEN CAST(l._fivetran_deleted AS TEXT) END AS is_deleted
FROM loop.return_list AS l
LEFT JOIN loop.return_cancelled AS c
    ON
        CAST(c.id AS TEXT) = CAST(l.id AS TEXT)
        AND LOWER(COALESCE(CAST(c._fivetran_deleted AS TEXT), 'false')) IN ('false', 'f', '0')
UNION ALL
SELECT
    CAST(c.id AS TEXT) AS return_id,
    'cancelled' AS state,
    CAST(c.outcome AS TEXT) AS outcome,
    CAST(c.order_name AS TEXT) AS order_name,
    CAST(c.customer AS TEXT) AS customer_email,
    CAST(c.status_page_url AS TEXT) AS status_page_url,
    CAST(c.provider_order_id AS TEXT) AS provider_order_id,
    CAST(c.carrier AS TEXT) AS carrier,
    CAST(c.tracking_number AS TEXT) AS tracking_number,
    CAST(c.label_status AS TEXT) AS label_status,
    CAST(c.label_url AS TEXT) AS label_url,
    CAST(c.label_updated_at AS TEXT) AS label_updated_at,
    c.created_at AS created_at,
    c.updated_at AS updated_at,
    c._fivetran_synced AS synced_at,
    CAST(c._fivetran_deleted AS TEXT) AS is_deleted
FROM loop.return_cancelled AS c
LEFT JOIN loop.return_list AS l ON CAST(l.id AS TEXT) = CAST(c.id AS TEXT)
WHERE l.id IS NULL
