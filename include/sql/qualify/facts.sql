-- What the payload of each candidate shows. The two label events show the label that they are about, cancelled or not;
-- the others the newest live one. An event about a change shows the value in its key, whatever a later look has seen.
SELECT
    c.event_id, c.event_type, c.key, c.return_id, c.fact_at, c.occurred_at, c.own_time, c.is_released,
    c.detail::text AS detail,
    coalesce(r.opted_out, false) AS opted_out,
    coalesce(c.detail ->> 'status', r.status) AS status,
    r.outcome, r.order_name, r.customer_email, r.customer_phone, r.status_page_url, r.labels_enabled,
    newest.return_id IS NOT NULL AS has_label,
    shown.label_url,
    nullif(shown.number, '') AS tracking_number,
    shown.tracking_url,
    coalesce(c.detail ->> 'tracking_status', shown.tracking_status) AS tracking_status,
    shown.carrier AS tracking_carrier,
    c.detail ->> 'outcome' AS out_of_stock_outcome
FROM candidate AS c
LEFT JOIN LATERAL (
    SELECT m.* FROM mirror_return AS m WHERE m.shop = %(shop)s AND m.return_id = c.return_id LIMIT 1
) AS r ON true
LEFT JOIN LATERAL (
    SELECT l.*
    FROM mirror_label AS l
    WHERE l.shop = %(shop)s AND l.return_id = c.return_id AND l.tracking_status <> 'canceled'
        AND l.became IS NULL
    -- A label without a number counts while the return has none with one.
    ORDER BY l.number = '', coalesce(l.created_at, l.first_seen_at) DESC, l.first_seen_at DESC, l.number DESC
    LIMIT 1
) AS newest ON true
LEFT JOIN LATERAL (
    SELECT l.*
    FROM mirror_label AS l
    WHERE l.shop = %(shop)s AND l.return_id = c.return_id AND l.number = c.detail ->> 'number'
    LIMIT 1
) AS about ON true
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN c.detail ? 'number' THEN about.number ELSE newest.number END AS number,
        CASE WHEN c.detail ? 'number' THEN about.label_url ELSE newest.label_url END AS label_url,
        CASE WHEN c.detail ? 'number' THEN about.tracking_url ELSE newest.tracking_url END AS tracking_url,
        CASE WHEN c.detail ? 'number' THEN about.tracking_status ELSE newest.tracking_status END AS tracking_status,
        CASE WHEN c.detail ? 'number' THEN about.carrier ELSE newest.carrier END AS carrier
) AS shown
WHERE c.is_known = %(known)s AND (c.is_known OR NOT c.is_baseline);
