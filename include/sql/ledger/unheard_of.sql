-- What a sender holds in the ledger without knowing: commits whose answer was lost with the connection. A mark is known by
-- its moment too: of one event an older one may be under way.
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
