-- Returns that nothing but their events tells to be of people who said no: the mirror holds no contact of them, because
-- they are deleted, say, or Loop has taken it away.
SELECT r.return_id
FROM mirror_return AS r
WHERE
    r.shop = %(shop)s
    AND NOT r.opted_out
    AND r.customer_phone IS NULL
    AND r.customer_email IS NULL
    AND r.return_id IN (
        SELECT e.return_id
        FROM event AS e
        WHERE
            e.shop = %(shop)s
            AND (
                e.phone_hash IN (SELECT o.person_hash FROM opted_out AS o WHERE o.shop = %(shop)s)
                OR e.email_hash IN (SELECT o.person_hash FROM opted_out AS o WHERE o.shop = %(shop)s)
            )
    )
