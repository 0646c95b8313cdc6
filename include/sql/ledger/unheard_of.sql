-- What a sender holds in the ledger without knowing: commits whose answer was lost with the connection.
SELECT event_id, attempts AS attempt, sent_at, status = 'sending' AS marked
FROM event
WHERE
    shop = %(shop)s
    AND status IN ('pending', 'sending', 'unknown')
    AND lease = %(lease)s
    AND event_id <> ALL (CASE status WHEN 'sending' THEN %(under_way)s::uuid[] ELSE %(in_hand)s::uuid[] END)
