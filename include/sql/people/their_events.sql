-- Events that were for people who said no.
SELECT e.event_id, e.return_id
FROM event AS e
WHERE
    e.shop = %(shop)s
    AND (
        e.phone_hash IN (SELECT o.person_hash FROM opted_out AS o WHERE o.shop = %(shop)s)
        OR e.email_hash IN (SELECT o.person_hash FROM opted_out AS o WHERE o.shop = %(shop)s)
    )
