-- The mirror forgets what was neither created nor changed within the shop's mirror_days; the ledger's keys stay.
CREATE TEMP TABLE forgotten ON COMMIT DROP AS
WITH gone AS (
    DELETE FROM mirror_return AS r
    WHERE
        r.shop = %(shop)s
        AND greatest(r.created_at, r.updated_at) < %(horizon)s
        -- An item out of stock since long must not look like one that newly is when its return is touched again.
        AND NOT EXISTS (
            SELECT
            FROM mirror_episode AS e
            WHERE e.shop = r.shop AND e.return_id = r.return_id AND e.resolved_at IS NULL
        )
    RETURNING r.return_id
)
SELECT return_id FROM gone;

-- What stays for such an item alone makes no event, unless it is touched again: then its contact comes with it, and its
-- labels' pages.
UPDATE mirror_return
SET customer_phone = NULL, customer_email = NULL, order_name = NULL, status_page_url = NULL
WHERE
    shop = %(shop)s
    AND greatest(created_at, updated_at) < %(horizon)s
    AND num_nonnulls(customer_phone, customer_email, order_name, status_page_url) > 0;

UPDATE mirror_label AS l
SET tracking_url = NULL, label_url = NULL
FROM mirror_return AS r
WHERE
    r.shop = %(shop)s
    AND greatest(r.created_at, r.updated_at) < %(horizon)s
    AND l.shop = r.shop AND l.return_id = r.return_id
    AND num_nonnulls(l.tracking_url, l.label_url) > 0;

ANALYZE forgotten; -- nearly always empty, which the planner would not think

DELETE FROM mirror_label USING forgotten AS f WHERE shop = %(shop)s AND mirror_label.return_id = f.return_id;
DELETE FROM mirror_item USING forgotten AS f WHERE shop = %(shop)s AND mirror_item.return_id = f.return_id;
DELETE FROM mirror_episode USING forgotten AS f WHERE shop = %(shop)s AND mirror_episode.return_id = f.return_id;
DELETE FROM mirror_transaction USING forgotten AS f WHERE shop = %(shop)s AND mirror_transaction.return_id = f.return_id;
DELETE FROM mirror_waiting WHERE shop = %(shop)s AND waiting_since < %(horizon)s;
DELETE FROM change
WHERE
    shop = %(shop)s
    AND source_table IN ('returns', 'labels', 'exchange_items', 'transactions') -- named, so that the key is an index for it
    AND seen_at < %(horizon)s;
