-- The last word on whether a shop sends.
SELECT action = 'stop' AS is_stop, decided_by, why, decided_at
FROM decision
WHERE shop = %(shop)s AND action IN ('stop', 'go on')
ORDER BY decision_id DESC
LIMIT 1;
