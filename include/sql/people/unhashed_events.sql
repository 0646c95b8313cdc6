-- Events from before recipients were hashed, that may still be sent.
SELECT event_id, body -> 'user' ->> 'phone', body -> 'user' ->> 'email'
FROM event
WHERE shop = %(shop)s AND body IS NOT NULL AND phone_hash IS NULL AND email_hash IS NULL
