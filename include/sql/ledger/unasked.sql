-- How many events of a shop are held that no person has been asked about. None when nothing was held in the last week,
-- which is cheap to see, nor while a question about held events is open: it is answered first. One that nobody has
-- answered for a day keeps no other back.
SELECT count(*)
FROM event AS e
WHERE
    e.shop = %(shop)s AND e.status = 'held' AND e.reason IS DISTINCT FROM 'restored'
    AND EXISTS (
        SELECT
        FROM run AS r
        JOIN hold AS h USING (run_key)
        WHERE r.shop = %(shop)s AND h.held_at > clock_timestamp() - INTERVAL '7 days'
    )
    AND NOT EXISTS (
        SELECT
        FROM run AS q
        JOIN proposed AS p USING (shop, dag_id, run_id)
        WHERE
            q.shop = %(shop)s AND q.dag_id = %(dag_id)s AND p.status = 'held'
            AND q.finished_at IS NULL AND q.started_at > clock_timestamp() - INTERVAL '24 hours'
    )
    AND NOT EXISTS (SELECT FROM proposed AS p WHERE p.shop = e.shop AND p.event_id = e.event_id AND p.status = 'held')
