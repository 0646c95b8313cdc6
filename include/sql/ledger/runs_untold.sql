-- Runs of a shop's last day that have held events of which nobody was notified.
SELECT r.run_key, r.dag_id, r.run_id
FROM run AS r
WHERE
    r.shop = %(shop)s
    AND r.as_of > clock_timestamp() - INTERVAL '24 hours'
    AND r.run_key IN (SELECT h.run_key FROM hold AS h WHERE h.told < h.events)
ORDER BY r.run_key;
