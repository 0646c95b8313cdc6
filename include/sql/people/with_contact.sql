-- The contacts that the mirror holds for a shop.
SELECT return_id, customer_phone, customer_email
FROM mirror_return
WHERE shop = %(shop)s AND (customer_phone IS NOT NULL OR customer_email IS NOT NULL)
