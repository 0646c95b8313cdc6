-- Contacts of the returns created since a time.
SELECT customer_phone, customer_email
FROM mirror_return
WHERE shop = %(shop)s AND NOT is_deleted AND NOT opted_out AND created_at >= %(since)s
ORDER BY created_at DESC
LIMIT %(most)s
