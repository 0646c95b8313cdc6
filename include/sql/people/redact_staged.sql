-- Takes from what a look has read whatever would tell who these returns belong to.
UPDATE staged_returns
SET opted_out = true, customer_phone = NULL, customer_email = NULL, order_name = NULL, status_page_url = NULL
WHERE return_id = ANY (%(return_ids)s::text[]);

-- The return of somebody who said no stays theirs when the source has taken its contact away.
UPDATE staged_returns AS s
SET opted_out = true, order_name = NULL, status_page_url = NULL
FROM mirror_return AS m
WHERE
    m.shop = %(shop)s AND m.return_id = s.return_id AND m.opted_out
    AND NOT s.opted_out AND s.customer_phone IS NULL AND s.customer_email IS NULL;
