-- The other contact of each event of a person who was named: it shares a return with theirs.
INSERT INTO opt_out (shop, person_hash, given)
SELECT DISTINCT %(shop)s, other.person_hash, false
FROM event AS e
CROSS JOIN LATERAL (VALUES (e.phone_hash, e.email_hash), (e.email_hash, e.phone_hash)) AS other (named, person_hash)
WHERE
    e.shop = %(shop)s
    AND other.person_hash IS NOT NULL
    AND other.named IN (SELECT o.person_hash FROM opted_out AS o WHERE o.shop = %(shop)s AND o.given)
ON CONFLICT DO NOTHING
