-- Returns that nothing but their events tells to be of people who said no: the mirror holds no contact of them, because
-- they are deleted, say, or Loop has taken it away. What yields the events stands for the name in braces.
SELECT r.return_id
FROM mirror_return AS r
WHERE
    r.shop = %(shop)s
    AND NOT r.opted_out
    AND r.customer_phone IS NULL
    AND r.customer_email IS NULL
    AND r.return_id IN (
        SELECT t.return_id FROM (
{their_events}
        ) AS t
    )
