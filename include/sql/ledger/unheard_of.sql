-- What a sender holds in the ledger without knowing: commits whose answer was lost with the connection. A mark is known by
-- its moment too: of one event an older one may be under way. The late answer to an earlier attempt may have settled an event
-- meanwhile, and ended the lease: then only the attempt tells whose mark it was.
SELECT event_id, attempts AS attempt, sent_at, status = 'sending' AS marked
FROM event
WHERE
    shop = %(shop)s
    AND status IN ('pending', 'sending', 'unknown')
    AND lease = %(lease)s
    AND CASE
        WHEN status = 'sending'
            THEN (event_id, sent_at) NOT IN (SELECT * FROM unnest(%(under_way)s::uuid[], %(marked_at)s::timestamptz[]))
        ELSE event_id <> ALL (%(in_hand)s::uuid[])
    END
UNION ALL
SELECT e.event_id, a.attempt, a.started_at, true
FROM attempt AS a
JOIN event AS e ON e.event_id = a.event_id AND e.attempts = a.attempt AND e.sent_at = a.started_at
WHERE
    a.run_key = %(run_key)s
    AND (a.task_id, a.map_index, a.try_number) = (%(task_id)s, %(map_index)s, %(try_number)s)
    AND a.outcome IS NULL
    AND e.status = 'accepted'
    AND (a.event_id, a.started_at) NOT IN (SELECT * FROM unnest(%(under_way)s::uuid[], %(marked_at)s::timestamptz[]))
