-- Adds to a shop's list; what was only shared until now may be named as well, and is known by that moment from then on.
-- Tells what is new or newly named.
INSERT INTO opt_out AS o (shop, person_hash, given)
SELECT %(shop)s, person_hash, %(given)s
FROM unnest(%(hashes)s::bigint[]) AS person_hash
ORDER BY person_hash
ON CONFLICT (person_hash, shop) DO UPDATE SET given = true, opted_out_at = excluded.opted_out_at
WHERE excluded.given AND NOT o.given
