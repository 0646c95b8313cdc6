-- Brings the mirror's returns to what was read: newer or unseen content only, each change logged.
-- Each row's old content is looked up by its key, whatever the planner would think of a larger mirror (LIMIT).
-- A touched but equal row is no change, and is not written but for a newer updated_at.
CREATE TEMP TABLE return_in ON COMMIT DROP AS
SELECT *
FROM (
    SELECT
        s.*,
        m.return_id IS NULL AS is_new,
        m.first_seen_at IS NULL AND NOT s.is_deleted AS is_first_sight,
        coalesce(m.is_deleted, false) AS was_deleted,
        coalesce(greatest(m.created_at, m.updated_at) < %(horizon)s, false) AS was_too_old,
        m.last_status AS old_status,
        s.updated_at IS NOT NULL AND s.updated_at IS DISTINCT FROM m.updated_at AS is_moved,
        CASE WHEN m.return_id IS NULL THEN '{}' ELSE array_remove(ARRAY[
            CASE WHEN s.state IS DISTINCT FROM m.state THEN 'state' END,
            CASE WHEN s.outcome IS DISTINCT FROM m.outcome THEN 'outcome' END,
            CASE WHEN s.order_name IS DISTINCT FROM m.order_name THEN 'order_name' END,
            CASE WHEN s.customer_email IS DISTINCT FROM m.customer_email THEN 'customer_email' END,
            CASE WHEN s.customer_phone IS DISTINCT FROM m.customer_phone THEN 'customer_phone' END,
            CASE WHEN s.status_page_url IS DISTINCT FROM m.status_page_url THEN 'status_page_url' END,
            CASE WHEN s.labels_enabled IS DISTINCT FROM m.labels_enabled THEN 'labels_enabled' END,
            CASE WHEN s.is_instant_exchange IS DISTINCT FROM m.is_instant_exchange THEN 'is_instant_exchange' END,
            CASE WHEN s.charge_at IS DISTINCT FROM m.charge_at THEN 'charge_at' END,
            CASE WHEN s.created_at IS DISTINCT FROM m.created_at THEN 'created_at' END,
            CASE WHEN s.is_deleted IS DISTINCT FROM m.is_deleted THEN 'is_deleted' END,
            CASE WHEN s.opted_out IS DISTINCT FROM m.opted_out THEN 'opted_out' END
        ], NULL) END AS fields
    FROM (
        SELECT DISTINCT ON (return_id) *
        FROM staged_returns AS t
        ORDER BY return_id, updated_at DESC NULLS LAST, synced_at DESC NULLS LAST, t
    ) AS s
    LEFT JOIN LATERAL (
        SELECT * FROM mirror_return AS r WHERE r.shop = %(shop)s AND r.return_id = s.return_id LIMIT 1
    ) AS m ON true
    -- what is held since the last look, and is from after it, is from the future: that hides nothing
    WHERE (s.updated_at >= m.updated_at) IS NOT FALSE OR m.updated_at > %(last_looks_end)s
) AS compared
WHERE is_new OR is_moved OR fields <> '{}';

INSERT INTO change (
    shop, source_table, return_id, subject, seen_at, fields, old_status, new_status, updated_at, live, previous_look_at
)
SELECT
    %(shop)s, 'returns', return_id, '', %(as_of)s, fields, old_status, coalesce(status, old_status),
    CASE WHEN is_moved THEN updated_at END, NOT is_deleted AND NOT was_deleted, %(previous_look)s
FROM return_in
WHERE NOT is_new AND fields <> '{}';

INSERT INTO mirror_return AS m (
    shop, return_id, state, status, last_status, outcome, order_name, customer_email, customer_phone, status_page_url,
    labels_enabled, is_instant_exchange, charge_at, created_at, updated_at, is_deleted, opted_out,
    first_seen_at, previous_look_at
)
SELECT
    %(shop)s, return_id, state, status, status, outcome, order_name, customer_email, customer_phone, status_page_url,
    labels_enabled, is_instant_exchange, charge_at, created_at, updated_at, is_deleted, opted_out,
    CASE WHEN NOT is_deleted THEN %(as_of)s::timestamptz END, %(previous_look)s
FROM return_in
ON CONFLICT (shop, return_id) DO UPDATE SET
    state = excluded.state,
    status = excluded.status,
    last_status = coalesce(excluded.status, m.last_status),
    outcome = excluded.outcome,
    order_name = excluded.order_name,
    customer_email = excluded.customer_email,
    customer_phone = excluded.customer_phone,
    status_page_url = excluded.status_page_url,
    labels_enabled = excluded.labels_enabled,
    is_instant_exchange = excluded.is_instant_exchange,
    charge_at = excluded.charge_at,
    created_at = excluded.created_at,
    updated_at = coalesce(excluded.updated_at, m.updated_at),
    is_deleted = excluded.is_deleted,
    opted_out = excluded.opted_out,
    first_seen_at = coalesce(m.first_seen_at, excluded.first_seen_at),
    previous_look_at = CASE WHEN m.first_seen_at IS NULL THEN excluded.previous_look_at ELSE m.previous_look_at END;

-- Pages that show where a package goes are not held of somebody who said no, nor while the return is deleted, and with it
-- whatever told who might say no one day; nor are those from before. As a rule there is none, and nothing is looked for.
UPDATE mirror_label AS l
SET tracking_url = NULL, label_url = NULL
FROM return_in AS i
WHERE
    (SELECT bool_or(r.opted_out OR r.is_deleted) FROM return_in AS r)
    AND (i.opted_out OR i.is_deleted) AND l.shop = %(shop)s AND l.return_id = i.return_id
    AND num_nonnulls(l.tracking_url, l.label_url) > 0;

UPDATE mirror_waiting AS w
SET row_data = w.row_data - ARRAY['tracking_url', 'label_url']
FROM return_in AS i
WHERE
    (SELECT bool_or(r.is_deleted) FROM return_in AS r)
    AND i.is_deleted AND w.shop = %(shop)s AND w.source_table = 'labels' AND w.return_id = i.return_id;

-- For the return's children: what changes while it is deleted, or as it comes or goes, is nobody's news.
CREATE INDEX ON return_in (return_id);
ANALYZE return_in (return_id);
