-- Under which Attentive account the shops of one connection are; written only when it is another than before. Who said no to
-- others of the account that a shop leaves, as with a new key, goes on its own list: the others may never be heard of again.
WITH leaving AS (
    SELECT shop, account
    FROM shop
    WHERE shop = ANY (%(shops)s::text[]) AND account <> %(account)s
),
kept AS (
    INSERT INTO opt_out AS o (shop, person_hash, given, opted_out_at)
    SELECT
        l.shop, x.person_hash, bool_or(x.given),
        coalesce(min(x.opted_out_at) FILTER (WHERE x.given), min(x.opted_out_at))
    FROM leaving AS l
    JOIN shop AS also ON also.account = l.account AND also.shop <> l.shop
    JOIN opt_out AS x ON x.shop = also.shop
    GROUP BY l.shop, x.person_hash
    ORDER BY l.shop, x.person_hash
    ON CONFLICT (person_hash, shop) DO UPDATE SET given = true, opted_out_at = excluded.opted_out_at
    WHERE excluded.given AND NOT o.given
)
UPDATE shop SET account = %(account)s WHERE shop = ANY (%(shops)s::text[]) AND account IS DISTINCT FROM %(account)s
