-- Brings the mirror's exchange items to what was read; an item whose return is not held yet waits for it, and comes in
-- with it where nothing newer has been read.
CREATE TEMP TABLE item_waited ON COMMIT DROP AS
SELECT r.*
FROM mirror_waiting AS w
JOIN return_in AS i ON i.return_id = w.return_id AND i.is_first_sight
CROSS JOIN LATERAL jsonb_populate_record(NULL::staged_exchange_items, w.row_data) AS r
WHERE w.shop = %(shop)s AND w.source_table = 'exchange_items';

ANALYZE item_waited; -- nearly always empty, which the planner would not think

INSERT INTO staged_exchange_items
SELECT w.*
FROM item_waited AS w
WHERE NOT EXISTS (
    SELECT
    FROM staged_exchange_items AS s
    WHERE s.return_id = w.return_id AND s.exchange_id = w.exchange_id AND (s.updated_at >= w.updated_at) IS NOT FALSE
);

CREATE TEMP TABLE item_read ON COMMIT DROP AS
SELECT DISTINCT ON (t.return_id, t.exchange_id)
    t.*,
    coalesce(t.out_of_stock, false) AND t.resolution IS NULL AND t.restocked_at IS NULL AS is_open,
    r.first_seen_at IS NOT NULL AS is_held,
    (%(previous_look)s::timestamptz IS NULL AND r.previous_look_at IS NULL)
    -- or of the first at its return, which may have been too old to be held until now
    OR coalesce(i.is_first_sight AND r.created_at < %(old)s, false) AS is_of_first_look,
    r.is_deleted OR (coalesce(i.was_deleted, r.is_deleted) AND NOT coalesce(i.is_first_sight, false)) AS is_silent
FROM staged_exchange_items AS t
LEFT JOIN LATERAL (
    SELECT m.first_seen_at, m.is_deleted, m.created_at, m.previous_look_at
    FROM mirror_return AS m
    WHERE m.shop = %(shop)s AND m.return_id = t.return_id
    LIMIT 1
) AS r ON true
LEFT JOIN return_in AS i ON i.return_id = t.return_id
LEFT JOIN too_old AS o ON o.return_id = t.return_id
WHERE r.first_seen_at IS NOT NULL OR o.return_id IS NULL
ORDER BY t.return_id, t.exchange_id, t.updated_at DESC NULLS LAST, t.synced_at DESC NULLS LAST, t;

-- Shopify tells the stock as it is now: an item that was out of it and in again stays settled, whoever bought it since.
UPDATE item_read AS s
SET restocked_at = once.restocked_at, is_open = false
FROM (
    SELECT t.return_id, t.exchange_id, m.restocked_at
    FROM item_read AS t
    CROSS JOIN LATERAL (
        SELECT *
        FROM mirror_item AS i
        WHERE i.shop = %(shop)s AND i.return_id = t.return_id AND i.exchange_id = t.exchange_id
        LIMIT 1
    ) AS m
    WHERE
        %(restocked_once)s
        AND t.is_open
        AND m.settled
        AND (m.out_of_stock, m.resolution) IS NOT DISTINCT FROM (t.out_of_stock, t.resolution)
) AS once
WHERE s.return_id = once.return_id AND s.exchange_id = once.exchange_id;

INSERT INTO mirror_waiting AS w (shop, source_table, return_id, subject, updated_at, waiting_since, row_data)
SELECT
    %(shop)s, 'exchange_items', t.return_id, t.exchange_id, t.updated_at, %(as_of)s,
    to_jsonb(t) - 'is_open' - 'is_held' - 'is_of_first_look' - 'is_silent'
FROM item_read AS t
WHERE NOT t.is_held
ON CONFLICT (shop, source_table, return_id, subject) DO UPDATE SET
    updated_at = excluded.updated_at, row_data = excluded.row_data
WHERE (excluded.updated_at >= w.updated_at) IS NOT FALSE OR w.updated_at > %(last_looks_end)s;

DELETE FROM mirror_waiting AS w
USING return_in AS i
WHERE w.shop = %(shop)s AND w.source_table = 'exchange_items' AND w.return_id = i.return_id AND i.is_first_sight;

CREATE TEMP TABLE item_in ON COMMIT DROP AS
SELECT *
FROM (
    SELECT
        s.*,
        m.exchange_id IS NULL AS is_new,
        coalesce(m.is_open, false) AS was_open,
        coalesce(s.out_of_stock, false) AND s.resolution IS NULL AND s.restocked_at IS NOT NULL
        AND (
            s.is_of_first_look
            OR coalesce(m.is_open, false)
            OR (
                coalesce(m.settled, false)
                AND (m.out_of_stock, m.resolution) IS NOT DISTINCT FROM (s.out_of_stock, s.resolution)
            )
        ) AS settled,
        s.updated_at IS NOT NULL AND s.updated_at IS DISTINCT FROM m.updated_at AS is_moved,
        CASE WHEN m.exchange_id IS NULL THEN '{}' ELSE array_remove(ARRAY[
            CASE WHEN s.out_of_stock IS DISTINCT FROM m.out_of_stock THEN 'out_of_stock' END,
            CASE WHEN s.resolution IS DISTINCT FROM m.resolution THEN 'resolution' END,
            CASE WHEN s.restocked_at IS DISTINCT FROM m.restocked_at THEN 'restocked_at' END
        ], NULL) END AS fields
    FROM item_read AS s
    LEFT JOIN LATERAL (
        SELECT *
        FROM mirror_item AS i
        WHERE i.shop = %(shop)s AND i.return_id = s.return_id AND i.exchange_id = s.exchange_id
        LIMIT 1
    ) AS m ON true
    WHERE
        s.is_held
        -- what is held since the last look, and is from after it, is from the future: that hides nothing
        AND ((s.updated_at >= m.updated_at) IS NOT FALSE OR m.updated_at > %(last_looks_end)s)
) AS compared
WHERE is_new OR is_moved OR fields <> '{}';

INSERT INTO change (
    shop, source_table, return_id, subject, seen_at, fields, old_status, new_status, updated_at, live, previous_look_at
)
SELECT
    %(shop)s, 'exchange_items', return_id, exchange_id, %(as_of)s, fields,
    CASE WHEN was_open THEN 'open' ELSE 'closed' END, CASE WHEN is_open THEN 'open' ELSE 'closed' END,
    CASE WHEN is_moved THEN updated_at END, NOT is_silent, %(previous_look)s
FROM item_in
WHERE NOT is_new AND fields <> '{}';

INSERT INTO mirror_item AS m (
    shop, return_id, exchange_id, out_of_stock, resolution, restocked_at, updated_at, is_open, settled
)
SELECT %(shop)s, return_id, exchange_id, out_of_stock, resolution, restocked_at, updated_at, is_open, settled
FROM item_in
ON CONFLICT (shop, return_id, exchange_id) DO UPDATE SET
    out_of_stock = excluded.out_of_stock,
    resolution = excluded.resolution,
    restocked_at = excluded.restocked_at,
    updated_at = coalesce(excluded.updated_at, m.updated_at),
    is_open = excluded.is_open,
    settled = excluded.settled;
