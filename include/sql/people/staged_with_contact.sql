-- The contacts that a look has read and not found on the list.
SELECT return_id, customer_phone, customer_email
FROM staged_returns
WHERE customer_phone IS NOT NULL OR customer_email IS NOT NULL
