-- What there may be to send for a shop: pending, or in doubt and not waiting for a person.
SELECT count(*)
FROM event
WHERE shop = %(shop)s AND (status IN ('pending', 'sending') OR (status = 'unknown' AND resend_at IS NOT NULL));
