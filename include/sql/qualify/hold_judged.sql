-- Of the types of which more would be released at once than the shop lets out unseen, all wait for a person.
UPDATE judged AS j
SET status = 'held', reason = %(reason)s
FROM event AS e
WHERE
    e.event_id = j.event_id
    AND j.status = 'pending'
    AND e.event_type IN (
        SELECT flood.event_type
        FROM judged AS f
        JOIN event AS flood USING (event_id)
        WHERE f.status = 'pending'
        GROUP BY flood.event_type
        HAVING count(*) > %(bound)s
    );
