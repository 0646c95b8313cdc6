-- Takes from the mirror whatever would tell who these returns belong to, or show where their packages go. Tracking
-- numbers stay: labels are known by them.
UPDATE mirror_label
SET tracking_url = NULL, label_url = NULL
WHERE
    shop = %(shop)s AND return_id = ANY (%(return_ids)s::text[])
    AND (tracking_url IS NOT NULL OR label_url IS NOT NULL);

UPDATE mirror_waiting
SET row_data = row_data - 'tracking_url' - 'label_url'
WHERE shop = %(shop)s AND source_table = 'labels' AND return_id = ANY (%(return_ids)s::text[]);

UPDATE mirror_return
SET opted_out = true, customer_phone = NULL, customer_email = NULL, order_name = NULL, status_page_url = NULL
WHERE shop = %(shop)s AND return_id = ANY (%(return_ids)s::text[]);
